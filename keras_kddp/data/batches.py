"""Arrays and iterables of batches, read alike."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_kddp.data.packing import plain_inputs
from keras_kddp.model_io import Arrays

Batches: TypeAlias = Arrays | Iterable[Any]
"""Arrays with one row per example, or an iterable of batches of them."""


def are_arrays(data: Batches) -> bool:
    """Says whether data is an array, or a dict or list of arrays."""
    leaves = keras.tree.flatten(data)
    return bool(leaves) and all(
        hasattr(leaf, "shape") and hasattr(leaf, "__getitem__")
        for leaf in leaves
    )


def row_count(data: Arrays) -> int:
    """Returns the length that all arrays share."""
    shapes = [tuple(leaf.shape) for leaf in keras.tree.flatten(data)]
    counts = {shape[0] if shape else -1 for shape in shapes}
    if len(counts) > 1 or -1 in counts:
        raise ValueError(
            "`data` must be arrays with one row per example, all of the same "
            f"length. Received shapes: {shapes}."
        )
    return counts.pop()


def evenly_spaced(count: int, samples: int) -> np.ndarray:
    """Returns which rows stand for all, from the first to the last.

    Args:
        count: How many rows there are, at least 1.
        samples: At most so many are chosen, at least 1.

    Returns:
        (rows,) rising integers, `min(count, samples)` of them.
    """
    return np.unique(np.linspace(0, count - 1, min(count, samples)).astype(int))


def batches_of(data: Batches, batch_size: int) -> Iterator[Arrays]:
    """Yields the inputs in data, batch by batch.

    Args:
        data: Arrays, or an iterable, as for `collect_activity`; what
            `keras_kddp.TeacherCache` packed is yielded without the outputs.
        batch_size: Rows per step, for arrays.
    """
    data = plain_inputs(data)
    if are_arrays(data):
        rows = row_count(data)
        for start in range(0, rows, batch_size):
            part = slice(start, start + batch_size)
            yield keras.tree.map_structure(lambda leaf, s=part: leaf[s], data)
        return
    for batch in finite_batches("data", data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        yield plain_inputs(x)


def finite_batches(name: str, data: Batches) -> Iterable[Any]:
    """Returns an iterable of batches that ends.

    Args:
        name: What errors call the data.
        data: A `PyDataset`, whose iterator is endless, a `tf.data.Dataset` or
            another iterable.

    Raises:
        ValueError: If it is no iterable, or endless.
    """
    if not isinstance(data, Iterable):
        raise ValueError(
            f"`{name}` must be arrays, or an iterable of batches. Received: "
            f"{type(data).__name__}."
        )
    cardinality = getattr(data, "cardinality", lambda: 0)
    if int(cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError(
            f"`{name}` must be finite. Received an endless dataset. Leave out "
            "`repeat()`, or `take` a number of batches."
        )
    if isinstance(data, keras.utils.PyDataset):
        return (data[index] for index in range(len(data)))
    return data
