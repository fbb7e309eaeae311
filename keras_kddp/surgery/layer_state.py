"""What layers know beside their weights, carried into a copy of a model."""

import tempfile
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.calls import is_flattened, layers_by_path
from keras_kddp.surgery.channels import Records, describe

_METHODS = (
    "save_own_variables",
    "load_own_variables",
    "save_assets",
    "load_assets",
)


def carry_layer_state(
    model: keras.Model, new_model: keras.Model, changed: Container[str] = ()
) -> None:
    """Gives the layers of a copy what their weights do not tell.

    Statistics of an adapted `Normalization`, vocabularies, and whatever a
    custom layer saves and loads by itself: it goes the way it goes into a
    `.keras` file.

    Args:
        model: The model; it is only read.
        new_model: Its copy, with the weights of the model by now.
        changed: Names ("outer/inner") of layers whose weights have other
            shapes in the copy; they are left alone.
    """
    successors = layers_by_path(new_model)
    for name, layer in layers_by_path(model).items():
        new = successors.get(name)
        if new is None or is_flattened(layer):
            continue
        _carry_recurrent_state(layer, new)
        if name not in changed:
            carry_state(layer, new)


def carry_state(layer: Any, new: Any) -> None:
    """Gives a layer, and the layers inside it, what another saves by itself.

    Args:
        layer: The layer; it is only read.
        new: Its copy, with its weights.
    """
    for old, successor in _with_inner_layers(layer, new):
        if has_own_state(old):
            _carry(old, successor)


def _carry_recurrent_state(layer: Any, new: Any) -> None:
    """Goes on where a stateful recurrent layer stands, which no file tells."""
    for old, successor in _with_inner_layers(layer, new):
        if isinstance(old, keras.layers.RNN) and old.stateful:
            for state, copied in zip(old.states, successor.states, strict=True):
                copied.assign(to_numpy(state))


def carry_adapted_state(model: keras.Model, new_model: keras.Model) -> None:
    """Gives a copy what layers learned from data before any training.

    Statistics and vocabularies: the state, weights included, of layers that
    save some and have nothing to train.

    Args:
        model: The model; it is only read.
        new_model: Its copy, whose other weights stay as they are.
    """
    successors = layers_by_path(new_model)
    for name, layer in layers_by_path(model).items():
        if is_flattened(layer):
            continue
        for old, new in _with_inner_layers(layer, successors[name]):
            if has_own_state(old) and not old.trainable_variables:
                for variable, successor in zip(
                    old.variables, new.variables, strict=True
                ):
                    successor.assign(to_numpy(variable))
                _carry(old, new)


def _with_inner_layers(layer: Any, new: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs a layer, and the layers inside it, with those of its copy."""
    return zip(
        [layer, *_compat.all_layers(layer)],
        [new, *_compat.all_layers(new)],
        strict=True,
    )


def has_own_state(layer: Any) -> bool:
    """Says whether a layer saves more, or otherwise, than its weights.

    Layers of Keras with weights override the methods for their quantized
    forms alone; those that preprocess have more to tell.
    """
    return any(
        not vars(base).keys().isdisjoint(_METHODS)
        if _is_custom(base)
        else ".preprocessing." in base.__module__
        for base in type(layer).__mro__
    )


def is_custom(layer: Any) -> bool:
    """Says whether a layer's class is neither of Keras nor of this package."""
    return _is_custom(type(layer))


def _is_custom(layer_class: type) -> bool:
    return not layer_class.__module__.startswith(("keras.", "keras_kddp."))


def knows_more_than_weights(layer: Any) -> bool:
    """Says whether a layer saves what none of its weights is.

    Args:
        layer: A built layer; only read.
    """
    if not has_own_state(layer):
        return False
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    weights = [to_numpy(variable) for variable in layer.variables]
    is_told = (
        any(np.array_equal(np.asarray(value), weight) for weight in weights)
        for value in store.values()
    )
    if not all(is_told):
        return True
    with tempfile.TemporaryDirectory(prefix="keras_kddp_") as folder:
        if hasattr(layer, "save_assets"):
            layer.save_assets(folder)
        return any(Path(folder).iterdir())


def pin_own_state(records: Records, layers: Mapping[str, Any]) -> None:
    """Keeps weights whole beside which a layer saves more by itself.

    Args:
        records: What the rules of a model said; the pins are added.
        layers: Layer name -> layer.
    """
    for name, slices in records.slices.items():
        layer = layers[name]
        if is_custom(layer) and knows_more_than_weights(layer):
            reason = (
                f"{describe(layer)} saves state of its own beside its weights, "
                "which surgery cannot cut"
            )
            records.blocked.setdefault(name, reason)
            records.pins += [(labels, reason) for labels in slices.values()]


def _carry(layer: Any, new: Any) -> None:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    new.load_own_variables(store)
    if hasattr(layer, "save_assets"):  # only where a class has some
        with tempfile.TemporaryDirectory(prefix="keras_kddp_") as folder:
            layer.save_assets(folder)
            new.load_assets(folder)
