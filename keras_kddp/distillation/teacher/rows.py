"""Rows."""

import hashlib
import zlib
from typing import Any

import keras
import numpy as np

from keras_kddp.data.batches import (
    row_count,
)
from keras_kddp.distillation.teacher.views import (
    Views,
    _all_views,
)


def _one_a_row(name: str, values: Any, rows: int) -> Any:
    """Returns labels or weights as arrays, None as it is."""
    if values is None:
        return None
    is_numbers = isinstance(values, (list, tuple)) and not any(
        np.ndim(leaf) for leaf in values
    )
    if is_numbers:
        values = np.asarray(values)
    arrays = keras.tree.map_structure(keras.ops.convert_to_numpy, values)
    lengths = [len(array) for array in keras.tree.flatten(arrays)]
    if any(length != rows for length in lengths):
        raise ValueError(
            f"`{name}` must have one entry a row of `x`, {rows}. Received: "
            f"{lengths}."
        )
    return arrays


def _data_key(checksums: np.ndarray, x: Any, views: Views | None) -> str:
    """Returns a hash of the rows and of their views."""
    digest = hashlib.sha256(checksums.astype("uint32").tobytes())
    if views is not None:
        for batch in _all_views(x, views, 1024):
            digest.update(np.ascontiguousarray(batch).tobytes())
    return digest.hexdigest()


def _checksums(x: Any) -> list[int]:
    """Returns a number for each row, that tells it from other rows."""
    leaves = [
        np.ascontiguousarray(keras.ops.convert_to_numpy(leaf))
        for leaf in keras.tree.flatten(x)
    ]
    sums = [0] * row_count(x)
    for leaf in leaves:
        sums = [
            zlib.crc32(row.tobytes(), total)
            for row, total in zip(leaf, sums, strict=True)
        ]
    return sums
