"""The rows that outputs belong to: recognized, counted, labelled."""

import hashlib
import zlib
from typing import Any

import keras
import numpy as np

from keras_kddp.data.batches import row_count
from keras_kddp.distillation.teacher.views import Views
from keras_kddp.model_io import Arrays


def one_per_row(name: str, values: Any, rows: int) -> Any:
    """Returns labels or weights as arrays, None as it is.

    Args:
        name: What errors call them.
        values: Numbers in a list, an array, or a structure of arrays.
        rows: How many there must be.

    Raises:
        ValueError: If there are more or fewer.
    """
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
            f"`{name}` must have one entry per row of `x`, {rows}. Received: "
            f"{lengths}."
        )
    return arrays


def data_key(checksums: np.ndarray, x: Arrays, views: Views | None) -> str:
    """Returns a hash of the rows and of their views.

    Args:
        checksums: (rows,), of `checksums_of`.
        x: The rows; read only where there are views.
        views: None: the inputs as they are.
    """
    digest = hashlib.sha256(checksums.astype("uint32").tobytes())
    if views is not None:
        for batch in views.batches(x, 1024):
            digest.update(_bytes_of(np.ascontiguousarray(batch)))
    return digest.hexdigest()


def checksums_of(x: Arrays) -> list[int]:
    """Returns a number for each row, that tells it from other rows.

    Args:
        x: Arrays of one length.
    """
    leaves = [
        np.ascontiguousarray(keras.ops.convert_to_numpy(leaf))
        for leaf in keras.tree.flatten(x)
    ]
    sums = [0] * row_count(x)
    for leaf in leaves:
        sums = [
            zlib.crc32(_bytes_of(row), total)
            for row, total in zip(leaf, sums, strict=True)
        ]
    return sums


def _bytes_of(values: Any) -> bytes:
    """Returns the bytes of numbers, or of texts, alike in every process.

    The bytes of an array of objects are addresses, and those of texts depend
    on the longest one in the array.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "OSU":
        return array.tobytes()
    texts = [
        text if isinstance(text, bytes) else str(text).encode()
        for text in array.ravel().tolist()
    ]
    return b"".join(b"%d:%b" % (len(text), text) for text in texts)
