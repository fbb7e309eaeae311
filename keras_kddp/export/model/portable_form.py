"""The form of a model, for as long as it is traced, that most runtimes run."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.export.errors import ExportError
from keras_kddp.model_io import Tensor
from keras_kddp.surgery.calls import flat_calls
from keras_kddp.surgery.layer_state import is_custom

MOST_STEPS = 1000
"""Most steps of recurrent layers, all together, that are unrolled."""

_INTEGER = ("int8", "int16x8")
_LOOPING = ("float16", "int4")  # what TFLM refuses keeps its small loops
_TRACING = threading.RLock()  # the layers' attributes are one for all threads


@contextlib.contextmanager
def portable_form(model: keras.Model, quantization: str) -> Iterator[None]:
    """Makes a model trace into operations that more runtimes have.

    What it computes stays the same, and so does the model afterwards:

    - Recurrent layers are unrolled. The converter crashes on a loop in int8 and
      int16x8; in float32, TFLM computes some wrongly and never ends others.
      Files that TFLM does not run in any case (float16, int4), and those of
      more than `MOST_STEPS` steps, keep their loops: they are smaller.
    - An `Embedding` wraps negative ids by arithmetic: TFLM has no SELECT of
      integers.
    - Sequences of one channel are added as vectors: the converter takes the
      one for a bias, and fails.

    Args:
        model: A built Sequential or Functional model, to be traced inside.
        quantization: As `to_tflite` takes it.

    Raises:
        ExportError: If int8 or int16x8 would have to unroll more steps.
    """
    layers = _compat.all_layers(model)
    with _TRACING, contextlib.ExitStack() as restored:
        for layer in _to_unroll(layers, quantization):
            restored.callback(setattr, layer, "unroll", layer.unroll)
            layer.unroll = True
            if layer.go_backwards and layer.zero_output_for_mask:
                layer.inner_loop = functools.partial(
                    _turned_loop, layer, layer.inner_loop
                )
                restored.callback(delattr, layer, "inner_loop")
        for layer in layers:
            if _is_plain_embedding(layer):
                layer.call = functools.partial(_embedded, layer)
                restored.callback(delattr, layer, "call")
        for addition in _additions(model):
            addition.call = functools.partial(_added, addition.call)
            restored.callback(delattr, addition, "call")
        yield


def _to_unroll(layers: list[Any], quantization: str) -> list[Any]:
    """Returns the recurrent layers that must not become loops."""
    looping = [
        layer
        for layer in layers
        if isinstance(layer, keras.layers.RNN) and not layer.unroll
    ]
    if quantization in _LOOPING:
        return []
    if sum(map(_steps, looping)) <= MOST_STEPS:
        return looping
    if quantization not in _INTEGER:
        return []
    longest = max(looping, key=_steps)
    raise ExportError(
        f'In quantization="{quantization}", recurrent layers are unrolled: '
        f"their steps must be {MOST_STEPS:,} at most. Received: "
        f"{sum(map(_steps, looping)):,}, of which layer '{longest.name}' "
        f"({type(longest).__name__}) takes {_steps(longest):,}. Shorten "
        "the sequence, with strides or pooling before the layer, or use "
        'quantization="dynamic", which keeps the loop.'
    )


def _steps(layer: Any) -> int:
    """Returns how many steps a recurrent layer was built for, 0 if unknown."""
    shapes = layer.get_build_config() or {}
    several = [*shapes.get("shapes_dict", {}).values(), ()]
    shape = shapes.get("input_shape") or several[0]
    return int(shape[1] or 0) if len(shape) > 1 else 0


def _turned_loop(
    layer: Any,
    loop: Callable[..., Any],
    sequences: Any,
    initial_state: Any,
    mask: Any,
    **options: Any,
) -> Any:
    """Returns what a loop backwards returns, run forwards over turned steps.

    Unrolled backwards, Keras zeroes outputs by a mask that it did not turn.
    """
    if mask is not None:
        (mask,) = keras.tree.flatten(mask)
        numbers = keras.ops.cast(mask, "float32")  # TFLM turns no booleans
        mask = keras.ops.flip(numbers, axis=1) > 0.5
    turned = keras.tree.map_structure(
        lambda part: keras.ops.flip(part, axis=1), sequences
    )
    layer.go_backwards = False
    try:
        return loop(turned, initial_state, mask, **options)
    finally:
        layer.go_backwards = True


def _is_plain_embedding(layer: Any) -> bool:
    is_embedding = type(layer) is keras.layers.Embedding
    return is_embedding and layer.quantization_mode is None


def _embedded(layer: Any, inputs: Tensor) -> Tensor:
    """Returns what an Embedding returns; id -1 is the last of the rows."""
    import tensorflow as tf  # here: the other backends do without it

    ids = keras.ops.cast(inputs, "int32")
    minus_one = keras.ops.maximum(keras.ops.minimum(ids, 0), -1)
    rows = tf.gather(layer.embeddings, ids - layer.input_dim * minus_one)
    return keras.ops.cast(rows, layer.compute_dtype)


def _additions(model: keras.Model) -> list[Any]:
    """Returns the operations that add: layers, and those of `x + y`."""
    operations = [node.operation for node in flat_calls(model).nodes]
    found = {
        id(x): x
        for x in operations
        if type(x).__name__ == "Add" and not is_custom(x)
    }
    return list(found.values())


def _added(add: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Returns what an addition returns, which gets sequences as vectors."""
    parts = keras.tree.flatten(inputs)
    shapes = {tuple(getattr(part, "shape", ())) for part in parts}
    shape = shapes.pop()
    if shapes or len(shape) != 3 or shape[-1] != 1:
        return add(*inputs)
    vectors = keras.tree.map_structure(
        lambda part: keras.ops.reshape(part, (shape[0], -1)), inputs
    )
    return keras.ops.reshape(add(*vectors), shape)
