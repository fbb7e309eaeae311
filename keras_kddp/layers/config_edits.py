"""Penalties taken out of the config of a model, or put into it."""

from collections.abc import Callable
from typing import Any

import keras

from keras_kddp.layers.penalties import (
    ActivityPenalty,
    ActivityRegularizedDense,
)
from keras_kddp.model_io import Tensor
from keras_kddp.surgery.masks import takes_mask
from keras_kddp.surgery.rebuild import Config, entry_name

Reference = tuple[str, int, int]  # as the config names a tensor


def drop_penalties(config: Config) -> None:
    """Takes the penalties out of a config and out of those nested in it."""
    dropped: dict[Reference, Any] = {}
    kept = []
    for entry in config["layers"]:
        if "layers" in entry["config"]:
            drop_penalties(entry["config"])
        if _is_class(entry, ActivityPenalty):
            for call, node in enumerate(entry.get("inbound_nodes", ())):
                reference = (entry["config"]["name"], call, 0)
                dropped[reference] = node["args"][0]
            continue
        if _is_class(entry, ActivityRegularizedDense):
            del entry["config"]["l1"]
            entry["module"] = "keras.layers"
            entry["class_name"] = "Dense"
            entry["registered_name"] = None
            for node in entry.get("inbound_nodes", ()):
                node["kwargs"].pop("mask", None)  # Dense takes none
        kept.append(entry)
    config["layers"] = kept
    _redirect(config, lambda reference: _source(reference, dropped))


def insert_penalty(
    config: Config,
    reference: Reference,
    penalty: ActivityPenalty,
    tensor: Tensor,
) -> None:
    """Puts a penalty behind a tensor; all its readers then read the penalty."""
    name = _penalty_name(config, reference)
    entry = keras.saving.serialize_keras_object(penalty)
    entry["config"]["name"] = name
    names = [entry_name(other) for other in config["layers"]]
    position = names.index(reference[0])
    if "input_layers" in config:  # Functional
        _redirect(
            config,
            lambda other: [name, 0, 0] if tuple(other) == reference else None,
        )
        entry["name"] = name
        argument = {
            "class_name": "__keras_tensor__",
            "config": {
                "shape": tensor.shape,
                "dtype": tensor.dtype,
                "keras_history": list(reference),
            },
        }
        # None: Keras then looks for the mask when the model runs. Without it,
        # it would put a new operation with a name of its own in the graph.
        kwargs = {"mask": None} if takes_mask(penalty) else {}
        entry["inbound_nodes"] = [{"args": (argument,), "kwargs": kwargs}]
    config["layers"].insert(position + 1, entry)


def _penalty_name(config: Config, reference: Reference) -> str:
    """Returns a name for the penalty behind a tensor that is still free."""
    source, call, _ = reference
    name = f"{source}_penalty" + (f"_{call}" if call else "")
    while any(entry_name(other) == name for other in config["layers"]):
        name += "_"
    return name


def _redirect(
    config: Config, successor: Callable[[list[Any]], list[Any] | None]
) -> None:
    """Changes which tensors the calls and outputs of a config read.

    Args:
        config: Of a Functional model; a Sequential's names no tensors.
        successor: Reference -> the one to read instead, or None.
    """

    def visit(value: Any) -> Any:
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                history = value["config"]["keras_history"]
                new = successor(list(history)) or history
                return {
                    **value,
                    "config": {**value["config"], "keras_history": new},
                }
            return {key: visit(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(visit(item) for item in value)
        return value

    for entry in config["layers"]:
        if "inbound_nodes" in entry:
            entry["inbound_nodes"] = visit(entry["inbound_nodes"])

    if "output_layers" in config:
        config["output_layers"] = _redirect_outputs(
            config["output_layers"], successor
        )


def _redirect_outputs(
    outputs: Any, successor: Callable[[list[Any]], list[Any] | None]
) -> Any:
    """Returns a config's structure of output references, redirected."""
    if isinstance(outputs, dict):
        return {
            key: _redirect_outputs(item, successor)
            for key, item in outputs.items()
        }
    if len(outputs) == 3 and isinstance(outputs[0], str):
        return successor(list(outputs)) or outputs
    return [_redirect_outputs(item, successor) for item in outputs]


def _source(
    reference: list[Any], dropped: dict[Reference, Any]
) -> list[Any] | None:
    """Returns what a dropped identity read, through chains of them."""
    found = None
    while tuple(reference) in dropped:
        tensor = dropped[tuple(reference)]
        found = reference = tensor["config"]["keras_history"]
    return found


def _is_class(entry: Config, layer_class: type) -> bool:
    registered = keras.saving.get_registered_name(layer_class)
    return entry.get("registered_name") == registered
