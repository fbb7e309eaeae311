"""What a model takes and gives: structures, last activations, numbers."""

from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_kddp import _compat

Tensor: TypeAlias = Any
"""A tensor of the backend, or a symbolic one: Keras ships no types."""

Array: TypeAlias = NDArray[Any]
"""A NumPy array of any dtype."""

Arrays: TypeAlias = Any
"""An array, or a structure of arrays as a model takes or gives them."""

_HANDING_ON = (
    keras.layers.Activation,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Reshape,
)
_OPERATIONS_HANDING_ON = {"cast", "clip", "reshape", "squeeze"}


def wide_dtype(*dtypes: Any) -> str:
    """Returns "float64" if one of the dtypes is that, else "float32".

    `keras.backend.result_type` has no float64 on JAX and torch.
    """
    names = {keras.backend.standardize_dtype(dtype) for dtype in dtypes}
    return "float64" if "float64" in names else "float32"


def at_least_float32(values: Arrays) -> Tensor:
    """Returns values in float32, or in float64 where they are that."""
    values = keras.ops.convert_to_tensor(values)
    return keras.ops.cast(values, wide_dtype(values.dtype))


def log_probabilities(values: Arrays) -> Tensor:
    """Returns log p of softmax outputs, in float32 at least.

    They are logits of the same distribution at every temperature, since
    `log softmax(z) = z - logsumexp(z)`.
    """
    values = at_least_float32(values)
    tiny = 1e-300 if str(values.dtype).endswith("float64") else 1e-37
    return keras.ops.log(keras.ops.maximum(values, tiny))


def output_activations(model: keras.Model) -> list[str]:
    """Returns the names of the activations that made a model's outputs.

    Args:
        model: Any model; a subclassed one has no graph to look at.

    Returns:
        `"softmax"`, `"sigmoid"`, ... for each flat output; `"linear"` where
        there is none or it cannot be told. Empty for a model without a graph.
    """
    graph = _compat.functional_graph(model)
    return [] if graph is None else [*map(_activation_of, graph.outputs)]


def input_structure(model: keras.Model) -> Any:
    """Returns a model's symbolic inputs in the structure it takes.

    Alone, in a list or in a dict. `model.inputs` is always a list, and a
    Sequential that was never called has no `model.input`.
    """
    return _compat.functional_graph(model).input


def output_structure(model: keras.Model) -> Any:
    """Returns a model's symbolic outputs in the structure it returns.

    A Sequential that was never called has no `model.output`.
    """
    return _compat.functional_graph(model).output


def output_names(model: keras.Model) -> list[str]:
    """Returns the names by which Keras knows a model's flat outputs.

    Args:
        model: Any model; one without a graph has no names: [].
    """
    graph = _compat.functional_graph(model)
    return [] if graph is None else list(graph.output_names)


def outputs_and_masks(
    model: keras.Model, inputs: Arrays
) -> tuple[list[Array], list[Array | None]]:
    """Returns the flat outputs of a batch at inference, with their masks.

    `predict` drops the masks, by which Keras' own metrics leave padding out.

    Args:
        model: A built model; it keeps no trace of the call.
        inputs: A batch as the model takes it.

    Returns:
        The outputs, (batch, ...) each, and for each the steps that are no
        padding, (batch, steps) booleans, or None.
    """
    # In the scope, add_loss and state updates do not reach the model.
    with keras.StatelessScope():
        outputs = keras.tree.flatten(model(inputs, training=False))
    masks = map(_compat.keras_mask, outputs)
    to_array = keras.ops.convert_to_numpy
    return (
        [to_array(output) for output in outputs],
        [None if mask is None else to_array(mask) for mask in masks],
    )


def all_outputs_and_masks(
    model: keras.Model, x: Arrays, batch_size: int = 256
) -> tuple[list[Array], list[Array | None]]:
    """Returns `outputs_and_masks` of whole arrays, batch by batch.

    Args:
        model: A built model.
        x: Arrays of one length, as the model takes them.
        batch_size: Rows of one call.
    """
    batches = []
    for start in range(0, len(keras.tree.flatten(x)[0]), batch_size):
        rows = slice(start, start + batch_size)
        batch = keras.tree.map_structure(
            lambda a, r=rows: keras.ops.convert_to_tensor(a[r]), x
        )
        batches.append(outputs_and_masks(model, batch))
    outputs, masks = zip(*batches, strict=True)
    return (
        [np.concatenate(parts) for parts in zip(*outputs, strict=True)],
        [
            None if parts[0] is None else np.concatenate(parts)
            for parts in zip(*masks, strict=True)
        ],
    )


def which_count(shape: tuple[int, ...], mask: Array | None) -> Array:
    """Returns which answers are no padding, (batch, ...) booleans.

    Args:
        shape: Of the answers, (batch, ...).
        mask: None, or the steps that are no padding, (batch, steps): the
            others are no answers.
    """
    if mask is None or mask.ndim > len(shape):
        return np.ones(shape, bool)
    further_axes = (1,) * (len(shape) - mask.ndim)
    return np.broadcast_to(mask.reshape(mask.shape + further_axes), shape)


def count_hits(hits: Array, mask: Array | None) -> tuple[int, int]:
    """Returns how many answers are right, and how many there are.

    Args:
        hits: Whether each answer is right, (batch, ...).
        mask: As `which_count` takes it.
    """
    valid = which_count(hits.shape, mask)
    return int(hits[valid].sum()), int(valid.sum())


def share_of_hits(hits: Array, mask: Array | None) -> float:
    """Returns the share of right answers, 0 where padding is all there is.

    Args:
        hits: As `count_hits` takes them.
        mask: As `count_hits` takes it.
    """
    right, count = count_hits(hits, mask)
    return right / max(count, 1)


def _activation_of(tensor: Tensor) -> str:
    """Returns the name of the activation that made a symbolic tensor."""
    while True:
        node = _compat.producing_node(tensor)
        operation = node.operation
        if isinstance(operation, keras.Model):
            position = [id(x) for x in node.outputs].index(id(tensor))
            inside = output_activations(operation)
            return inside[position] if inside else "linear"
        name, hands_on = _ending(operation)
        if name != "linear" or not hands_on:
            return name
        tensor = node.inputs[0]


def _ending(operation: Any) -> tuple[str, bool]:
    """Returns an operation's activation, and whether it hands values on."""
    if not isinstance(operation, keras.layers.Layer):
        name = type(operation).__name__.lower()
        hands_on = name in _OPERATIONS_HANDING_ON
        return ("linear", True) if hands_on else (name, False)
    if isinstance(operation, keras.layers.TimeDistributed):
        return _ending(operation.layer)
    activation = getattr(operation, "activation", None)
    if any(
        isinstance(x, keras.layers.Softmax) for x in (operation, activation)
    ):
        return "softmax", False
    name = getattr(activation, "__name__", "linear")
    if name.startswith("softmax"):  # such as TensorFlow's own, softmax_v2
        name = "softmax"
    return name, isinstance(operation, _HANDING_ON)


def to_numpy(variable: keras.Variable) -> np.ndarray:
    """Returns the value of a variable in its own dtype."""
    return np.asarray(variable.numpy())
