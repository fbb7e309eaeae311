"""The state of a run as JSON and arrays."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_kddp.distillation.checkpoints.files import Stored
from keras_kddp.distillation.student_state import Snapshot, StudentState
from keras_kddp.model_io import Array
from keras_kddp.surgery.lineage import Lineage

_ARRAY = "__array__"
_SNAPSHOT = "__snapshot__"

StateOf = Callable[[Lineage], StudentState]
"""Returns the state of a lineage, one and the same each time."""


def as_stored(state: Mapping[str, Any]) -> Stored:
    """Returns a state as JSON values and arrays.

    Args:
        state: Dicts with text as keys, sequences, arrays, snapshots, numbers,
            text, booleans and None, in each other.

    Raises:
        ValueError: If it holds anything else.
    """
    arrays: list[Array] = []

    def pack(value: Any) -> Any:
        if isinstance(value, Snapshot):
            content = [
                value.state.lineage.as_dict(),
                [x for _, x in value.values],
            ]
            return {_SNAPSHOT: pack(content)}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            arrays.append(_plain(value))
            return {_ARRAY: len(arrays) - 1}
        if isinstance(value, Mapping):
            return {_text(key): pack(x) for key, x in value.items()}
        if isinstance(value, (list, tuple)):
            return [pack(x) for x in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if keras.ops.is_tensor(value):
            return pack(keras.ops.convert_to_numpy(value))
        raise ValueError(
            "What a checkpoint keeps must be numbers, text, arrays, and lists "
            f"and dicts of them. Received: {type(value).__name__}. Take it out "
            "of the callback's `checkpoint_state()` or of the `logs`."
        )

    return Stored(pack(state), arrays)


def from_stored(stored: Stored, state_of: StateOf) -> Any:
    """Returns a state from what `as_stored` made of it; tuples become lists."""

    def unpack(value: Any) -> Any:
        if isinstance(value, list):
            return [unpack(x) for x in value]
        if not isinstance(value, dict):
            return value
        if _ARRAY in value:
            return stored.arrays[value[_ARRAY]]
        if _SNAPSHOT in value:
            lineage, arrays = unpack(value[_SNAPSHOT])
            return snapshot(state_of(Lineage.from_dict(lineage)), arrays)
        return {key: unpack(x) for key, x in value.items()}

    return unpack(stored.meta)


def snapshot(state: StudentState, arrays: list[Array]) -> Snapshot:
    """Returns a state with stored values.

    Raises:
        ValueError: If they are not those of its variables.
    """
    variables = state.variables
    expected = [tuple(variable.shape) for variable in variables]
    if expected != [x.shape for x in arrays]:
        different = [
            f"{v.path} {tuple(v.shape)} instead of {x.shape}"
            for v, x in zip(variables, arrays, strict=False)
            if tuple(v.shape) != x.shape
        ] or [f"{len(variables)} variables instead of {len(arrays)}"]
        raise ValueError(
            "The model must have the variables that the checkpoint has. "
            f"Received: {different[:3]}. Make model and optimizer as for the "
            "run that it is of, or remove the checkpoints."
        )
    typed = [_typed(x, v) for x, v in zip(arrays, variables, strict=True)]
    return Snapshot(state, [*zip(variables, typed, strict=True)])


def _plain(array: Array) -> Array:
    """Returns an array of a dtype that an archive can hold, bit by bit."""
    array = np.ascontiguousarray(array) if array.ndim else array
    if array.dtype.kind in "biufcSU":
        return array
    return array.view(f"u{array.dtype.itemsize}")  # bfloat16, float8


def _typed(array: Array, variable: keras.Variable) -> Array:
    """Returns an array in the dtype that it had."""
    dtype = np.asarray(variable.numpy()).dtype
    if array.dtype == dtype:
        return array
    return array.view(dtype)


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(
            "The keys of what a checkpoint keeps must be text. Received: "
            f"{key!r}. Keep a list of pairs."
        )
    return key
