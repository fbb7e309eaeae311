"""Arrays for `fit`, in a new order in each epoch."""

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.data.shuffled_batches import EpochOrder, ShuffledBatches
from keras_kddp.model_io import Array, Arrays

DEFAULT_BATCH_SIZE = 32  # that of `keras.Model.fit`


def shuffle_each_epoch(given: MutableMapping[str, Any]) -> None:
    """Has `keras.Model.fit` shuffle arrays anew in each epoch.

    What is no array, need not be shuffled, or is not as `fit` takes it is left
    as it is: Keras then reads it, or says what is wrong. So are sparse and
    ragged tensors.

    Args:
        given: The arguments of `keras.Model.fit`, by name; changed in place.
    """
    arrays = _training_arrays(given)
    if arrays is None:
        return
    train, validation = _split(arrays, given)
    rows = len(keras.tree.flatten(train)[0])
    steps = given.get("steps_per_epoch")
    batch_size = given.get("batch_size") or (
        math.ceil(rows / steps) if steps else DEFAULT_BATCH_SIZE
    )
    seed = _compat.random_seed()
    batches = ShuffledBatches(
        train,
        batch_size,
        seed=np.random.randint(2**31) if seed is None else seed,
        epoch=given.get("initial_epoch", 0),
        steps=steps,
        within_batches=given.get("shuffle") == "batch",
    )
    if validation is not None:
        given["validation_data"] = validation
    if given.get("validation_batch_size") is None:
        given["validation_batch_size"] = given.get("batch_size")
    for name in ("y", "sample_weight", "batch_size", "steps_per_epoch"):
        given[name] = None
    is_fast = keras.backend.backend() == "tensorflow"
    is_weighted = given.get("class_weight") is not None
    given["x"] = (
        batches.as_dataset() if is_fast and not is_weighted else batches
    )
    given["shuffle"] = False
    given["validation_split"] = 0.0
    given["callbacks"] = _with(given.get("callbacks"), EpochOrder(batches))


def _training_arrays(given: Mapping[str, Any]) -> tuple[Arrays, ...] | None:
    """Returns the arrays to shuffle; None where Keras is to read them."""
    x, y = given.get("x"), given.get("y")
    weight = given.get("sample_weight")
    if not given.get("shuffle", True) or not _counts_are_valid(given):
        return None
    is_nested = keras.tree.is_nested(y)
    if given.get("class_weight") is not None and (
        weight is not None or is_nested
    ):
        return None
    parts = [part for part in (x, y, weight) if part is not None]
    if not parts or x is None or (weight is not None and y is None):
        return None
    if weight is not None and is_nested and not keras.tree.is_nested(weight):
        if math.prod(np.shape(weight)[1:]) != 1:
            return None
        parts[-1] = keras.tree.map_structure(lambda _: weight, y)
    parts = keras.tree.map_structure(_as_numpy, parts)
    leaves = keras.tree.flatten(parts)
    if any(leaf is None for leaf in leaves):
        return None
    rows = {len(leaf) for leaf in leaves}
    if len(rows) != 1 or not _rows_to_train(rows.pop(), given):
        return None
    return tuple(map(keras.tree.lists_to_tuples, parts))


def _counts_are_valid(given: Mapping[str, Any]) -> bool:
    """Says whether sizes are such as Keras takes."""
    counts = (given.get("batch_size"), given.get("steps_per_epoch"))
    return all(
        count is None or (isinstance(count, (int, np.integer)) and count > 0)
        for count in counts
    )


def _as_numpy(leaf: Any) -> Array | None:
    """Returns an array of numbers or text as Keras would read it.

    Floats come in the float of Keras; None for what Keras must read itself.
    """
    if not hasattr(leaf, "__array__"):
        return None
    is_foreign = isinstance(leaf, np.ndarray) or hasattr(leaf, "iloc")
    value = np.asarray(leaf) if is_foreign else keras.ops.convert_to_numpy(leaf)
    if not value.ndim:
        return None
    if hasattr(leaf, "iloc") and value.ndim == 1:  # a Series is a column
        value = value[:, None]
    if value.dtype == object:
        is_text = all(isinstance(x, (str, bytes)) for x in value.flat)
        is_read = is_text and keras.backend.backend() == "tensorflow"
        return value if is_read else None
    if value.dtype.kind == "f":
        return value.astype(keras.config.floatx(), copy=False)
    return value if value.dtype.kind in "biu" else None


def _rows_to_train(rows: int, given: Mapping[str, Any]) -> int:
    """Returns how many rows `validation_split` leaves; 0 if it is refused."""
    share = given.get("validation_split") or 0.0
    if not share or given.get("validation_data") is not None:
        return rows
    kept = math.floor(rows * (1 - share))
    return kept if 0 < kept < rows else 0


def _split(
    arrays: tuple[Arrays, ...], given: Mapping[str, Any]
) -> tuple[tuple[Arrays, ...], tuple[Arrays, ...] | None]:
    """Returns the rows to train on, and those that are set aside, or None."""
    rows = len(keras.tree.flatten(arrays)[0])
    kept = _rows_to_train(rows, given)
    if kept == rows:
        return arrays, None
    return (
        keras.tree.map_structure(lambda leaf: leaf[:kept], arrays),
        keras.tree.map_structure(lambda leaf: leaf[kept:], arrays),
    )


def _with(callbacks: Any, callback: keras.callbacks.Callback) -> Any:
    """Returns callbacks and one more, in the form that they were given in."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        others = callbacks.callbacks
        callbacks.callbacks = [
            *(x for x in others if not isinstance(x, EpochOrder)),
            callback,
        ]
        return callbacks
    return [callback, *keras.tree.flatten(callbacks or [])]
