"""State of custom layers that neither config nor weights hold."""

import contextlib
import warnings
from types import FunctionType
from typing import Any

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp._compat import CallNode
from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.calls import flat_calls
from keras_kddp.surgery.checks import SurgeryError
from keras_kddp.surgery.layer_state import carry_state, is_custom

_SIZES = (4, 28)  # what stands for axes of unknown size in a probe
_INNER = ["the layers inside it"]


def check_hidden_state(model: keras.Model) -> None:
    """Checks that no layer knows what neither config nor weights tell.

    A custom layer may keep, say, statistics in a plain attribute that is set
    after it was made. A layer made anew from the config does not have them:
    where that may change what it computes, it is refused. What every call
    writes anew, a counter or the last output, does not count.

    Args:
        model: A built Sequential or Functional model; only read.

    Raises:
        SurgeryError: If there is such a layer, by name.
    """
    for node in flat_calls(model).nodes:
        layer = node.operation
        if not isinstance(layer, keras.layers.Layer) or not is_custom(layer):
            continue
        with _compat.untouched_seeds(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of inner layers not yet built
            lost = _lost_attributes(node, layer)
        if lost:
            raise SurgeryError(
                f"Layer '{node.name}' ({type(layer).__name__}) must be what "
                "its config and its weights say, or a copy computes something "
                f"else. Received other values of {lost}. Make them weights, "
                "return them from `get_config`, or write "
                "`save_own_variables` and `load_own_variables`."
            )


def _lost_attributes(node: CallNode, layer: Any) -> list[str]:
    """Returns the names of what a copy of a layer would lack.

    None of them where no copy can be made: rebuilding the model then says why.
    """
    try:
        fresh = type(layer).from_config(layer.get_config())
    except Exception:
        return []
    _complete(fresh, layer)
    inner = [len(_compat.all_layers(x)) for x in (fresh, layer)]
    if fresh.built and inner[0] != inner[1]:
        return _INNER
    before = _attributes(fresh)
    differing = _differing(_attributes(layer), before)
    if not differing:
        return []
    with keras.StatelessScope():
        results = _results_on_probes(node, (fresh, layer))
    written = _differing(_attributes(fresh), before)
    lost = [name for name in differing if name not in written]
    if not results or not all(_same(*pair) for pair in results):
        lost = differing
    return sorted({name for _, name in lost})


def _complete(fresh: Any, layer: Any) -> None:
    """Builds a fresh layer and gives it what any copy gets, as far as it can.

    Args:
        fresh: Made from the config of the layer; changed.
        layer: The layer; only read.
    """
    with contextlib.suppress(Exception):
        if layer.built and not fresh.built:
            fresh.build_from_config(layer.get_build_config() or {})
        for old, new in zip(layer.variables, fresh.variables, strict=True):
            new.assign(to_numpy(old))
        carry_state(layer, fresh)


def _attributes(layer: Any) -> dict[tuple[int, str], Any]:
    """Returns the plain attributes of a custom layer and of those inside it."""
    known = {*vars(keras.layers.Layer()), "activation"}  # which goes along
    return {
        (index, name): _frozen(value)
        for index, inner in enumerate([layer, *_compat.all_layers(layer)])
        if is_custom(inner)
        for name, value in vars(inner).items()
        if name not in known and not name.startswith(_private(inner))
    }


def _private(layer: Any) -> str:
    """Returns how the names begin that Keras and TensorFlow give a layer."""
    return "_" if isinstance(layer, keras.Model) else "_self_"


def _differing(
    first: dict[tuple[int, str], Any], second: dict[tuple[int, str], Any]
) -> list[tuple[int, str]]:
    return [
        key for key, value in first.items() if not _same(value, second.get(key))
    ]


def _frozen(value: Any) -> Any:
    """Returns a plain value that no later call changes; others as they are."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_frozen(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return frozenset(value)
    if isinstance(value, keras.Variable):
        return Ellipsis
    if isinstance(value, np.ndarray) or keras.ops.is_tensor(value):
        with contextlib.suppress(Exception):
            return np.array(keras.ops.convert_to_numpy(value))
    return value


def _same(first: Any, second: Any) -> bool:
    """Says whether two frozen values are equal; what is not plain is."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            _same(value, second[key]) for key, value in first.items()
        )
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, FunctionType) and isinstance(second, FunctionType):
        return first.__code__ is second.__code__
    if not (_is_plain(first) and _is_plain(second)):
        return True
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        is_float = first.dtype.kind == second.dtype.kind == "f"
        return np.array_equal(first, second, equal_nan=is_float)
    if first is None or second is None:
        return first is second
    with contextlib.suppress(Exception):
        return bool(np.all(first == second))
    return True


def _is_plain(value: Any) -> bool:
    """Says whether a frozen value is of numbers and text."""
    return value is None or isinstance(
        value,
        (bool, int, float, complex, str, bytes, np.generic, np.ndarray)
        + (list, dict, frozenset),
    )


def _results_on_probes(
    node: CallNode, layers: tuple[Any, Any]
) -> list[tuple[Any, Any]]:
    """Returns what two layers make of probes; none that they cannot take."""
    pairs = []
    for size in _SIZES:
        generator = np.random.default_rng(0)
        args, kwargs = keras.tree.map_structure(
            lambda x, size=size, draw=generator: _probe(x, size, draw),
            (node.args, node.kwargs),
        )
        with contextlib.suppress(Exception):
            results = [
                keras.tree.flatten(layer(*args, **kwargs)) for layer in layers
            ]
            pairs.append(tuple(_frozen(result) for result in results))
    return pairs


def _probe(argument: Any, size: int, generator: np.random.Generator) -> Any:
    """Returns numbers or text in place of a symbolic tensor.

    Args:
        argument: A tensor of the call, or a plain argument, which is kept.
        size: Of its axes of unknown size.
        generator: Of its numbers.
    """
    if not isinstance(argument, keras.KerasTensor):
        return argument
    shape = [size if axis is None else axis for axis in argument.shape]
    if argument.dtype == "string":
        return keras.ops.convert_to_tensor(np.full(shape, "a"), "string")
    is_float = "float" in argument.dtype
    value = generator.normal(size=shape) if is_float else np.ones(shape)
    return keras.ops.convert_to_tensor(value, argument.dtype)
