"""What layers know beside their weights, carried into a copy of a model."""

import tempfile
from collections.abc import Container
from typing import Any

import keras

from keras_kddp.surgery.calls import is_flattened, layers_by_path

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
    layer of one's own saves and loads by itself: it goes the way it goes into
    a `.keras` file.

    Args:
        model: The model; it is only read.
        new_model: Its copy, with the weights of the model by now.
        changed: Names ("outer/inner") of layers whose weights have other
            shapes in the copy; they are left alone.
    """
    successors = layers_by_path(new_model)
    for name, layer in layers_by_path(model).items():
        new = successors.get(name)
        if new is None or is_flattened(layer) or name in changed:
            continue
        if _has_own_state(layer):
            _carry(layer, new)


def _has_own_state(layer: Any) -> bool:
    """Says whether a layer saves more, or otherwise, than its weights.

    Layers of Keras with weights override the methods for their quantized
    forms alone; those that preprocess have more to tell.
    """
    module = type(layer).__module__
    if module.startswith(("keras.src.layers.", "keras_kddp.")):
        return ".preprocessing." in module
    return any(
        getattr(type(layer), name, None)
        is not getattr(keras.layers.Layer, name, None)
        for name in _METHODS
    )


def _carry(layer: Any, new: Any) -> None:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    new.load_own_variables(store)
    if hasattr(layer, "save_assets"):  # only where a class has some
        with tempfile.TemporaryDirectory(prefix="keras_kddp_") as folder:
            layer.save_assets(folder)
            new.load_assets(folder)
