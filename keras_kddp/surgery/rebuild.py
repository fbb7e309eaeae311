"""A model made anew from its edited configuration."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.surgery.graph import SurgeryError

Config = dict[str, Any]


def rebuild(model: keras.Model, edit: Callable[[Config], None]) -> keras.Model:
    """Returns a new model from the edited config of a model.

    Weights are fresh; names are kept. The global random state is not touched.

    Args:
        model: A built Sequential or Functional model.
        edit: Changes the config (a copy) in place.

    Raises:
        SurgeryError: If Keras cannot make the model from its config.
    """
    config = model.get_config()
    for entry in config["layers"]:
        entry.pop("build_config", None)  # it would build at the old widths
    edit(config)
    try:
        with _compat.untouched_seeds():
            return type(model).from_config(
                config, custom_objects=_custom_objects(model)
            )
    except (TypeError, ValueError) as error:
        raise SurgeryError(
            "The model must be rebuildable from `model.get_config()`. "
            f"Received '{model.name}', for which Keras says: {error}. Custom "
            "layers need a `get_config` that returns every argument."
        ) from error


def _custom_objects(model: keras.Model) -> dict[str, Any]:
    """Returns classes and functions that a user need not have registered."""
    found: dict[str, Any] = {}
    for operation in _operations(model):
        found[type(operation).__name__] = type(operation)
        activation = getattr(operation, "activation", None)
        if callable(activation) and hasattr(activation, "__name__"):
            found[activation.__name__] = activation
    return {
        name: value
        for name, value in found.items()
        if not value.__module__.startswith("keras.")
    }


def _operations(model: keras.Model) -> list[Any]:
    return [node.operation for node in _compat.call_nodes(model)]


def layers_of(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layers of a model by name."""
    return {layer.name: layer for layer in model.layers}


def paired_variables(
    old_model: keras.Model, new_model: keras.Model
) -> Iterator[tuple[keras.Layer, keras.Variable, keras.Variable]]:
    """Pairs the variables of layers that two models have in common.

    Seed states of Dropout and its like are among them.

    Yields:
        The old layer, its variable, and the variable of the new model.
    """
    successors = layers_of(new_model)
    for name, layer in layers_of(old_model).items():
        if name not in successors:
            continue
        new = successors[name].variables
        if len(new) != len(layer.variables):  # folding gave it a bias
            by_name = {variable.name: variable for variable in new}
            new = [by_name[variable.name] for variable in layer.variables]
        for old_variable, variable in zip(layer.variables, new, strict=True):
            yield layer, old_variable, variable


def to_numpy(variable: keras.Variable) -> np.ndarray:
    """Returns the value of a variable in its own dtype."""
    return np.asarray(keras.ops.convert_to_numpy(variable.value))
