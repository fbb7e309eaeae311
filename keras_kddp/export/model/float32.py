"""A model as files hold it: plain, and in float32 throughout."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.export.errors import ExportError
from keras_kddp.export.model.signature import check_exportable
from keras_kddp.layers.preparation import finalize
from keras_kddp.surgery.layer_state import carry_layer_state


def plain_copy(model: Any) -> keras.Model:
    """Returns a model without penalties, in float32.

    Args:
        model: A built Sequential or Functional model.

    Raises:
        ValueError: If it is no built model.
        ExportError: If a layer cannot be rebuilt from its config.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a Keras 3 model. Received: "
            f"{type(model).__name__} of {type(model).__module__}. Load it with "
            "keras.saving.load_model, or keras_kddp.export.from_tf_keras."
        )
    check_exportable(model)
    return in_float32(finalize(model))


def in_float32(model: keras.Model) -> keras.Model:
    """Returns the model itself, or its copy in float32 with the same weights.

    Files hold float32, so a model of mixed_float16 or float64 is exported,
    and compared, as the copy in which every layer computes in float32. The
    model that is given, and the state of `random`, stay as they are.

    Args:
        model: A built Sequential or Functional model.

    Raises:
        ExportError: If a layer cannot be rebuilt from its config.
    """
    if all(map(_is_float32, _tensors_and_layers(model))):
        return model
    try:
        with _float32_defaults():
            copy = _float32_copy(model)
        copy.set_weights(model.get_weights())
        carry_layer_state(model, copy)
    except Exception as error:
        raise ExportError(
            f"Model {model.name!r}, which is not float32 throughout, must be "
            f"rebuildable from its layers' configs. Received: {error}\n"
            "Give its own layers a get_config that fits their constructor."
        ) from error
    return copy


def _tensors_and_layers(model: keras.Model) -> Iterator[Any]:
    yield from model.inputs
    yield from model.variables
    for layer in model.layers:
        yield layer
        if _has_graph(layer):
            yield from _tensors_and_layers(layer)


def _has_graph(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.Model) and bool(
        getattr(layer, "inputs", None)
    )


def _is_float32(part: Any) -> bool:
    is_layer = isinstance(part, keras.Layer)
    dtype = part.compute_dtype if is_layer else part.dtype
    return "float" not in dtype or dtype == "float32"


@contextlib.contextmanager
def _float32_defaults() -> Iterator[None]:
    """Layers made here are float32 by default and cost no random state."""
    state, policy = random.getstate(), keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(state)


def _float32_copy(model: keras.Model) -> keras.Model:
    return keras.models.clone_model(
        model,
        input_tensors=_float32_inputs(model),
        clone_function=_float32_layer,
    )


def _float32_inputs(model: keras.Model) -> Any:
    inputs = [
        keras.Input(
            # Of an unnamed input, tensor and layer have different names.
            tensor=keras.KerasTensor(
                tensor.shape,
                tensor.dtype if _is_float32(tensor) else "float32",
                name=tensor.name,
            ),
            name=_compat.producing_node(tensor).operation.name,
        )
        for tensor in model.inputs
    ]
    if isinstance(model, keras.Sequential):
        return inputs[0]
    return keras.tree.pack_sequence_as(model.input, inputs)


def _float32_layer(layer: keras.Layer) -> keras.Layer:
    if _has_graph(layer):
        return _float32_copy(layer)
    return type(layer).from_config(_float32_config(layer.get_config()))


def _float32_config(config: Any) -> Any:
    """Returns the config with float32 instead of every dtype policy."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": "float32"}}
        return {key: _float32_config(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_float32_config(value) for value in config]
    return config
