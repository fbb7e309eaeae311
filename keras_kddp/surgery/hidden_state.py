"""What layers of one's own would lose when they are made anew."""

import contextlib
import warnings
from typing import Any

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp._compat import CallNode
from keras_kddp.surgery.calls import flat_calls
from keras_kddp.surgery.checks import SurgeryError
from keras_kddp.surgery.layer_state import has_own_state, is_from_here

UNKNOWN_SIZE = 4  # what stands for an axis of unknown size in a probe


def check_hidden_state(model: keras.Model) -> None:
    """Checks that no layer knows what neither config nor weights tell.

    A layer of one's own may keep, say, statistics in a plain attribute that
    is set after it was made. A layer made anew from the config does not have
    them: where that changes what it computes, it is refused.

    Args:
        model: A built Sequential or Functional model; only read.

    Raises:
        SurgeryError: If there is such a layer, by name.
    """
    for node in flat_calls(model).nodes:
        layer = node.operation
        if not isinstance(layer, keras.layers.Layer) or is_from_here(layer):
            continue
        with _compat.untouched_seeds():
            fresh = _made_anew(layer)
            lost = [] if fresh is None else _lost_attributes(layer, fresh)
            changes = bool(lost) and _computes_otherwise(node, layer, fresh)
        if changes:
            raise SurgeryError(
                f"Layer '{node.name}' ({type(layer).__name__}) must be what "
                "its config and its weights say, or a copy computes something "
                f"else. Received other values of {lost}. Make them weights, "
                "return them from `get_config`, or write "
                "`save_own_variables` and `load_own_variables`."
            )


def _made_anew(layer: Any) -> Any:
    """Returns a layer from the config of another, built alike if it can be.

    None where that does not work: rebuilding the model then says why.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inner layers not yet built
        try:
            fresh = type(layer).from_config(layer.get_config())
        except Exception:
            return None
        if layer.built and not fresh.built:
            with contextlib.suppress(Exception):
                fresh.build_from_config(layer.get_build_config() or {})
    return fresh


def _lost_attributes(layer: Any, fresh: Any) -> list[str]:
    """Returns the names of plain attributes that a fresh layer has otherwise.

    Those of layers inside it are among them; not what is saved by itself.
    """
    pairs = zip(
        [layer, *_compat.all_layers(layer)],
        [fresh, *_compat.all_layers(fresh)],
        strict=False,
    )
    known = vars(keras.layers.Layer()).keys()
    return sorted(
        name
        for old, new in pairs
        if not is_from_here(old) and not has_own_state(old)
        for name, value in vars(old).items()
        if name not in known
        and not name.startswith("_self_")  # of TensorFlow's checkpoints
        and not _same(value, vars(new).get(name))
    )


def _same(first: Any, second: Any) -> bool:
    """Says whether two plain values are equal; what is not plain is."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            _same(value, second[key]) for key, value in first.items()
        )
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    if not (_is_plain(first) and _is_plain(second)):
        return True
    if first is None or second is None:
        return first is second
    with contextlib.suppress(Exception):
        return np.array_equal(np.asarray(first), np.asarray(second))
    return True


def _is_plain(value: Any) -> bool:
    """Says whether a value is of numbers and text, and no weight or layer."""
    if isinstance(value, keras.Variable):
        return False
    return (
        value is None
        or isinstance(value, (int, float, complex, str, bytes, np.generic))
        or isinstance(value, (list, tuple, dict, set, frozenset, np.ndarray))
        or keras.ops.is_tensor(value)
    )


def _computes_otherwise(node: CallNode, layer: Any, fresh: Any) -> bool:
    """Says whether a layer and its copy differ on a probe.

    True where they cannot be tried.
    """
    generator = np.random.default_rng(0)
    args, kwargs = keras.tree.map_structure(
        lambda x: _probe(x, generator), (node.args, node.kwargs)
    )
    weights = zip(fresh.variables, layer.variables, strict=False)
    try:
        with keras.StatelessScope([(new, old.value) for new, old in weights]):
            results = [call(*args, **kwargs) for call in (layer, fresh)]
        first, second = map(keras.tree.flatten, results)
        return not all(map(_same, first, second))
    except Exception:
        return True


def _probe(argument: Any, generator: np.random.Generator) -> Any:
    """Returns numbers or text in place of a symbolic tensor."""
    if not isinstance(argument, keras.KerasTensor):
        return argument
    shape = [UNKNOWN_SIZE if size is None else size for size in argument.shape]
    if argument.dtype == "string":
        return keras.ops.convert_to_tensor(np.full(shape, "a"), "string")
    is_float = "float" in argument.dtype
    value = generator.normal(size=shape) if is_float else np.ones(shape)
    return keras.ops.convert_to_tensor(value, argument.dtype)
