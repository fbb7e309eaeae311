"""Whether a model scales inputs that were scaled before."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.data.batches import evenly_spaced
from keras_kddp.model_io import Array, Arrays, Tensor

_ROWS = 64
_SMALLEST_SPREAD = 1 / 8  # 1 / 255 is far below, standardized inputs above
_LARGEST_GAIN = 1 / 48  # 1 / 50 is for percents, 0.1 for the weight of a branch
_FARTHEST = 8  # standard deviations, on average
_CLOSEST = 1 / 8  # standard deviations, of what should deviate by one
_SMALLEST_GAIN = 1e-6  # below any scaling, above what is left of rounding
_FARTHEST_OFFSET = 30  # spreads, as far as means of pixels are off [0, 1]
_SCALING_LAYERS = (
    keras.layers.Lambda,
    keras.layers.Normalization,
    keras.layers.Rescaling,
)
_JOINING = {"concatenate", "stack"}
_SCALING_OPERATIONS = {"add", "divide", "multiply", "subtract", "truedivide"}


class _Scaling(NamedTuple):
    """One operation that scales a model's inputs.

    Attributes:
        name: Of the operation, with those of the models around it.
        operation: A layer, or a raw operation such as a division.
        given: What it takes of the examples, (rows, ...).
        result: What it gives for them, (rows, ...).
        gain: What it multiplies by; 0 of what is no scaling, such as a mean
            that is taken off or a norm that is divided by.
    """

    name: str
    operation: Any
    given: Array
    result: Array
    gain: float


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
        if not _suits(scaling):
            _warn_of(scaling, name)
            return  # those behind it have its results


def _suits(scaling: _Scaling) -> bool:
    """Says whether the examples are in the range that an operation is for."""
    if isinstance(scaling.operation, keras.layers.Normalization):
        return _suits_adapted(scaling)
    return _suits_constants(scaling)


def _warn_of(scaling: _Scaling, name: str) -> None:
    lowest, highest = scaling.given.min(), scaling.given.max()
    warnings.warn(
        "The inputs must not be scaled twice, or not at all: they span "
        f"{lowest:.4g} to {highest:.4g} before the {name}'s "
        f"'{scaling.name}' ({type(scaling.operation).__name__}), and "
        f"{scaling.result.min():.4g} to {scaling.result.max():.4g} behind it. "
        "Give it inputs in the range that it was made for (npz:FILE takes "
        "numbers as they are, npz:FILE,scale=255 divides them), or take it "
        "out of the model.",
        stacklevel=6,
    )


def _spread(values: Array) -> float:
    """Returns how far the examples lie apart where they do so the most."""
    return float(np.ptp(values, axis=0).max()) if values.size else 0.0


def _suits_constants(scaling: _Scaling) -> bool:
    """Says whether the range of examples suits a factor and an offset.

    Whole numbers that span more than -1 to 1 were not scaled before: images
    may be dark, and recordings quiet.
    """
    given, result = scaling.given, scaling.result
    before = _spread(given)
    is_whole = before > 2 and bool((given == np.round(given)).all())
    if not before or not scaling.gain or is_whole:
        return True
    after = scaling.gain * before
    if scaling.gain <= _LARGEST_GAIN and after < _SMALLEST_SPREAD:
        return False
    # ImageNet's means are taken off pixels, not off numbers in [0, 1].
    shares = (abs(given.mean()) / before, abs(result.mean()) / after)
    return bool(shares[1] < max(_FARTHEST_OFFSET, 2 * shares[0]))


def _suits_adapted(scaling: _Scaling) -> bool:
    """Says whether examples are like those that a layer was adapted to."""
    layer, result = scaling.operation, scaling.result
    if layer.invert:
        return True
    # What never varied where it was adapted says nothing of the range.
    varied = np.broadcast_to(
        keras.ops.convert_to_numpy(layer.variance)[0] > 0, result.shape[1:]
    )
    if not varied.any():
        return True
    if np.median(np.abs(result).mean(axis=0)[varied]) > _FARTHEST:
        return False
    deviations = result.std(axis=0)[varied]
    deviations = deviations[deviations > 0]
    if not len(deviations):
        return True
    typical = max(np.median(deviations), np.sqrt(np.mean(deviations**2)))
    return bool(typical >= _CLOSEST)


def _gain_of(node: _compat.CallNode, given: Tensor, result: Tensor) -> float:
    """Returns what an operation multiplies by, 0 of what is no scaling.

    Args:
        node: The call of the operation.
        given: Examples for it.
        result: What it gives for them.
    """
    step = _spread(keras.ops.convert_to_numpy(given))
    results = [
        keras.ops.convert_to_numpy(each).astype("float64")
        for each in (
            result,
            *(_compute(node, [given + n * step]) for n in (1, 2)),
        )
    ]
    moves = np.abs(np.diff(results, axis=0))
    if (
        not step
        or not moves.size
        or np.ptp(moves, axis=0).max() > (moves.max() / 4)
    ):
        return 0.0
    gain = float(np.median(moves)) / step
    return gain if gain > _SMALLEST_GAIN else 0.0


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
        is_joining = type(node.operation).__name__.lower() in _JOINING
        is_scaling = not is_joining and _is_scaling(node.operation)
        if (
            not (node.inputs and all(id(x) in values for x in node.inputs))
            or (len(node.inputs) > 1 and not is_joining)
            or not (is_scaling or _hands_on(node.operation))
        ):
            continue
        given = [values[id(x)] for x in node.inputs]
        try:
            result = _compute(node, given)
            gain = _gain_of(node, given[0], result) if is_scaling else 0.0
        # Whatever a function of the user says to examples on their own.
        except Exception:  # noqa: S112
            continue
        values[id(node.outputs[0])] = result
        if is_scaling:
            before, after = map(keras.ops.convert_to_numpy, (given[0], result))
            name = f"{path}{node.name}"
            yield _Scaling(name, node.operation, before, after, gain)


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


def _compute(node: _compat.CallNode, given: Sequence[Tensor]) -> Tensor:
    """Returns what the operation of a node makes of examples."""
    values = dict(zip(map(id, node.inputs), given, strict=True))
    args, kwargs = keras.tree.map_structure(
        lambda x: values.get(id(x), x), (node.args, node.kwargs)
    )
    if isinstance(node.operation, keras.layers.Layer):
        kwargs["training"] = False
    return node.operation(*args, **kwargs)
