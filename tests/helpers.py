"""What the tests share: an oracle for surgery, random weights, float64.

The oracle never rebuilds anything. It runs the calls of the original model one
by one and writes the constants over the removed units where they are observed,
which is what a removal has to equal.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.src.backend import get_keras_mask, set_keras_mask

from keras_kddp import _compat
from keras_kddp.surgery import ChannelGraph, remove_units

Units = Mapping[str, Sequence[int]]
Constants = Mapping[str, Mapping[int, float]]


SUMMARY_FIELDS = {
    "teacher_accuracy",
    "kd_accuracy",
    "kd_same_size_accuracy",
    "kddp_accuracy",
    "int8_accuracy",
    "units_before",
    "units_after",
    "parameters_before",
    "parameters_after",
    "tflite_float32_bytes",
    "tflite_int8_bytes",
    "int8_agreement",
    "split_sizes",
    "seed",
    "seconds",
}
"""What `summary.json` of a run has at least."""


def held_outputs(
    model: keras.Model,
    units: Units,
    x: Any,
    constants: Constants | None = None,
    training: bool = False,
) -> list[np.ndarray]:
    """Returns the outputs with the activity of some units held at constants.

    Args:
        model: A built Sequential or Functional model; left as it is.
        units: Layer name -> the units that are held.
        x: One array per input of the model, or the array of the only one.
        constants: Layer name -> unit -> the value held; 0 by default.
        training: The mode that layers run in.
    """
    graph = ChannelGraph(model)
    held = _held_entries(graph, units, constants or {})
    arrays = x if isinstance(x, (list, tuple)) else [x]
    values = {
        id(symbol): keras.ops.convert_to_tensor(array, dtype=symbol.dtype)
        for symbol, array in zip(model.inputs, arrays, strict=True)
    }
    with unchanged_variables(model):
        for node in graph.nodes:
            if not node.inputs:
                continue
            outputs = keras.tree.flatten(_run(node, values, training))
            for symbol, output in zip(node.outputs, outputs, strict=True):
                values[id(symbol)] = _overwritten(
                    output,
                    held.get(id(symbol), {}),
                    graph.channels[id(symbol)].axis,
                )
    return [to_numpy(values[id(symbol)]) for symbol in graph.outputs]


def _held_entries(
    graph: ChannelGraph, units: Units, constants: Constants
) -> dict[int, dict[int, float]]:
    """Returns `id(observed tensor) -> channel -> value`."""
    held: dict[int, dict[int, float]] = {}
    for name, indices in units.items():
        for tensor in graph.observation_points(name):
            entries = held.setdefault(id(tensor), {})
            for unit in indices:
                entries.setdefault(unit, 0.0)
                if unit in constants.get(name, {}):
                    entries[unit] = constants[name][unit]
    return held


def _run(
    node: _compat.CallNode, values: Mapping[int, Any], training: bool
) -> Any:
    args, kwargs = keras.tree.map_structure(
        lambda leaf: values.get(id(leaf), leaf), (node.args, node.kwargs)
    )
    if isinstance(node.operation, keras.layers.InputLayer):
        return _with_mask(args[0], kwargs.get("mask"))  # of a nested model
    parameters = inspect.signature(node.operation.call).parameters
    if "training" in parameters:
        kwargs["training"] = training  # as a Keras model does
    return node.operation(*args, **kwargs)


def _overwritten(
    output: Any, entries: Mapping[int, float], axis: int | None
) -> Any:
    if not entries:
        return output
    array = np.array(to_numpy(output))
    mask = get_keras_mask(output)
    channels = np.moveaxis(array, axis, -1)  # a view
    for channel, value in entries.items():
        channels[..., channel] = value
    return _with_mask(keras.ops.convert_to_tensor(array), mask)


def _with_mask(tensor: Any, mask: Any) -> Any:
    """Returns a tensor with the mask that layers find on it."""
    if mask is None:
        return tensor
    tensor = keras.ops.copy(tensor)
    set_keras_mask(tensor, mask)
    return tensor


def outputs_of(
    model: keras.Model, x: Any, training: bool = False
) -> list[np.ndarray]:
    """Returns a model's flat outputs; its variables stay as they are."""
    is_single = isinstance(x, list) and len(x) == 1
    if isinstance(x, list) and any(array.dtype.kind == "U" for array in x):
        x = [  # Keras mixes no arrays with tensors, and takes words as such
            keras.ops.convert_to_tensor(array, dtype=symbol.dtype)
            for array, symbol in zip(x, model.inputs, strict=True)
        ]
    with unchanged_variables(model):
        outputs = model(x[0] if is_single else x, training=training)
    return [to_numpy(y) for y in keras.tree.flatten(outputs)]


def relative_error(
    received: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> float:
    """Returns max|a - b| / max|b|, the worst over the outputs; NaN if any."""
    errors = [0.0]
    for a, b in zip(received, expected, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
        scale = np.abs(b).max(initial=0) or 1.0
        errors.append(float(np.abs(a - b).max(initial=0) / scale))
    return float(np.max(errors))  # unlike max(), keeps a NaN


def randomize(model: keras.Model, seed: int) -> keras.Model:
    """Gives every weight a random value, so that nothing hides behind zeros.

    Variances are drawn from [0.5, 2], everything else from a normal
    distribution; kernels are scaled by their fan-in, which keeps deep models
    from overflowing.
    """
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" in weight.name:
            value = random.uniform(0.5, 2.0, weight.shape)
        else:
            fan_in = np.prod(weight.shape[:-1]) if weight.shape else 1.0
            value = random.normal(size=weight.shape) / np.sqrt(fan_in)
        weight.assign(value.astype(weight.dtype))
    return model


def random_inputs(
    model: keras.Model, seed: int, batch_size: int = 3
) -> list[np.ndarray]:
    """Returns one array per input of a model.

    Standard normal float64 numbers; whole numbers from 0 to 5, or words, of
    which 0 and "" are padding, for inputs of such a dtype. Inputs named
    "padded..." are 0 at some steps. The first step never is padding.
    """
    random = np.random.default_rng(seed)
    arrays = []
    for symbol in model.inputs:
        shape = (batch_size, *symbol.shape[1:])
        if symbol.dtype == "string" or "int" in symbol.dtype:
            array = random.integers(0, 6, shape)
            array[:, 0] = 3
            if symbol.dtype == "string":
                array = np.array(["", "a", "b", "c", "d", "e"])[array]
        else:
            array = random.normal(size=shape)
        if symbol.name.startswith("padded"):
            array[:, 1:][random.random((batch_size, shape[1] - 1)) < 0.4] = 0
        arrays.append(array)
    return arrays


def to_numpy(tensor: Any) -> np.ndarray:
    """Returns a tensor or variable as an array of its own dtype."""
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def variable_values(model: keras.Model) -> list[np.ndarray]:
    """Returns a copy of every variable, seed states among them."""
    return [np.array(to_numpy(variable.value)) for variable in model.variables]


@contextmanager
def unchanged_variables(model: keras.Model) -> Iterator[None]:
    """Restores moving statistics and seed states afterwards."""
    before = variable_values(model)
    try:
        yield
    finally:
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)


@contextmanager
def float64() -> Iterator[None]:
    """Makes float64 the dtype of new layers, then restores the old one."""
    floatx = keras.config.floatx()
    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def error_of_removal(model, units, constants=None) -> float:
    """Returns how far a removal is from the oracle."""
    x = random_inputs(model, seed=2)
    smaller = remove_units(model, units, constants=constants)
    expected = held_outputs(model, units, x, constants)
    return relative_error(outputs_of(smaller, x), expected)


def reason_of(model, layer_name) -> str:
    """Returns why the units of a layer must stay."""
    graph = ChannelGraph(model)
    groups = set(graph.group_numbers[graph.units[layer_name]].tolist())
    return "; ".join(
        dict.fromkeys(graph.reasons.get(group, "") for group in groups)
    )


def observed_names(model, layer_name) -> list[str]:
    """Returns the operations behind which a layer's activity is observed."""
    points = ChannelGraph(model).observation_points(layer_name)
    return [_compat.producing_node(t).operation.name for t in points]
