"""Whether a model scales inputs that were scaled before."""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.data.batches import evenly_spaced
from keras_kddp.model_io import Array, Arrays, Tensor

_ROWS = 64
_SMALLEST_SPREAD = 1 / 8  # 1 / 255 is far below, standardized inputs above
_FARTHEST = 8  # standard deviations, on average
_SCALING_LAYERS = (
    keras.layers.Lambda,
    keras.layers.Normalization,
    keras.layers.Rescaling,
)
_SCALING_OPERATIONS = {"add", "divide", "multiply", "subtract", "truedivide"}


class _Scaling(NamedTuple):
    """One operation that scales a model's inputs.

    Attributes:
        name: Of the operation, with those of the models around it.
        operation: A layer, or a raw operation such as a division.
        given: What it takes of the examples, (rows, ...).
        result: What it gives for them, (rows, ...).
    """

    name: str
    operation: Any
    given: Array
    result: Array


def warn_of_scaling(model: keras.Model, x: Arrays, name: str) -> None:
    """Warns where a model scales inputs as if they had another range.

    Looks at every Rescaling, Normalization, Lambda and division by a constant
    that the inputs reach before the first weights, in nested models as well,
    and at what it makes of some examples.

    Args:
        model: Any model; of one without a graph nothing is known.
        x: Its inputs, an array or a dict or list of arrays.
        name: What the warning calls the model.
    """
    graph = _compat.functional_graph(model)
    arrays = keras.tree.flatten(x)
    if graph is None or len(arrays) != len(graph.inputs):
        return
    values: dict[int, Tensor] = {}
    for tensor, array in zip(graph.inputs, arrays, strict=True):
        rows = np.asarray(array)[evenly_spaced(len(array), _ROWS)]
        if rows.dtype.kind in "iuf":
            values[id(tensor)] = keras.ops.convert_to_tensor(
                rows.astype("float32")
            )
    # In the scope, a call does not reach the model.
    with keras.StatelessScope():
        found = list(_scalings(graph, values, ""))
    for scaling in found:
        _warn_of(scaling, name)


def _warn_of(scaling: _Scaling, name: str) -> None:
    """Warns of one operation, if the examples do not suit it."""
    before, after = (_spread(x) for x in (scaling.given, scaling.result))
    is_tiny = 0 < after < min(before / 2, _SMALLEST_SPREAD)
    if not is_tiny and not _is_far_off(scaling):
        return
    lowest, highest = scaling.given.min(), scaling.given.max()
    warnings.warn(
        "The inputs must not be scaled twice, or not at all: they span "
        f"{lowest:.4g} to {highest:.4g} before the {name}'s "
        f"'{scaling.name}' ({type(scaling.operation).__name__}), and "
        f"{scaling.result.min():.4g} to {scaling.result.max():.4g} behind it. "
        "Give it inputs in the range that it was made for (npz:FILE takes "
        "numbers as they are, npz:FILE,scale=255 divides them), or take it "
        "out of the model.",
        stacklevel=4,
    )


def _spread(values: Array) -> float:
    """Returns how far the examples lie apart where they do so the most."""
    return float(np.ptp(values, axis=0).max()) if values.size else 0.0


def _is_far_off(scaling: _Scaling) -> bool:
    """Says whether examples lie far from those that a layer was adapted to."""
    layer = scaling.operation
    if not isinstance(layer, keras.layers.Normalization) or layer.invert:
        return False
    deviations = np.abs(scaling.result).mean(axis=0)
    # What never varied where it was adapted says nothing of the range.
    varied = np.broadcast_to(
        keras.ops.convert_to_numpy(layer.variance)[0] > 0, deviations.shape
    )
    return bool(varied.any() and np.median(deviations[varied]) > _FARTHEST)


def _scalings(
    model: keras.Model, values: dict[int, Tensor], path: str
) -> Iterator[_Scaling]:
    """Yields what scales the inputs before anything with weights.

    Args:
        model: A model with a graph.
        values: Examples by the id of the symbolic tensor; what is computed
            of them is added.
        path: Names of the models around it.
    """
    for node in _compat.call_nodes(model):
        inside = _graph_of(node.operation)
        if inside is not None:
            for inner, outer in zip(inside.inputs, node.inputs, strict=True):
                _hand_on(values, outer, inner)
            yield from _scalings(inside, values, f"{path}{node.name}/")
            for inner, outer in zip(inside.outputs, node.outputs, strict=True):
                _hand_on(values, inner, outer)
            continue
        if len(node.inputs) != 1 or id(node.inputs[0]) not in values:
            continue
        is_scaling = _is_scaling(node.operation)
        if not is_scaling and not _hands_on(node.operation):
            continue
        given = values[id(node.inputs[0])]
        try:
            result = _compute(node, given)
        # Whatever a function of the user says to examples on their own.
        except Exception:  # noqa: S112
            continue
        values[id(node.outputs[0])] = result
        if is_scaling:
            arrays = map(keras.ops.convert_to_numpy, (given, result))
            yield _Scaling(f"{path}{node.name}", node.operation, *arrays)


def _graph_of(operation: Any) -> Any:
    """Returns the graph of a nested model, None of anything else."""
    is_model = isinstance(operation, keras.Model)
    return _compat.functional_graph(operation) if is_model else None


def _hand_on(values: dict[int, Tensor], source: Any, target: Any) -> None:
    if id(source) in values:
        values[id(target)] = values[id(source)]


def _is_scaling(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Layer):
        return isinstance(operation, _SCALING_LAYERS)
    return type(operation).__name__.lower() in _SCALING_OPERATIONS


def _hands_on(operation: Any) -> bool:
    """Says whether Keras' own operation only moves or drops numbers."""
    is_own = type(operation).__module__.split(".")[0] == "keras"
    return is_own and not getattr(operation, "weights", ())


def _compute(node: _compat.CallNode, given: Tensor) -> Tensor:
    """Returns what the operation of a node makes of examples."""
    symbol = node.inputs[0]
    args, kwargs = keras.tree.map_structure(
        lambda x: given if x is symbol else x, (node.args, node.kwargs)
    )
    if isinstance(node.operation, keras.layers.Layer):
        kwargs["training"] = False
    return node.operation(*args, **kwargs)
