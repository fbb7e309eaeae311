"""A dataset whose inputs come with the teacher's outputs for them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_kddp.data.batches import finite_batches, row_count
from keras_kddp.data.packing import TeacherOutput, packed
from keras_kddp.distillation.teacher.rows import checksums_of


def checked_dataset(dataset: Any) -> Any:
    """Returns a finite `tf.data.Dataset`.

    Raises:
        ValueError: If it is something else, or endless.
    """
    import tensorflow as tf  # here: the other backends do without it

    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "`dataset` must be a tf.data.Dataset. Received: "
            f"{type(dataset).__name__}. For arrays there is `pack`."
        )
    finite_batches("dataset", dataset)
    return dataset


def zip_outputs(
    dataset: Any, outputs: Sequence[TeacherOutput], checksums: np.ndarray
) -> Any:
    """Returns a dataset of the same batches, each `x` packed.

    Args:
        dataset: A `tf.data.Dataset` of batches `x`, `(x, y)` or `(x, y, w)`.
        outputs: The teacher's, (rows, ...).
        checksums: (rows,), of the inputs that the outputs are for.

    Returns:
        A `tf.data.Dataset`; a pass over other rows raises
        `tf.errors.InvalidArgumentError`.
    """
    import tensorflow as tf

    batches = tf.data.Dataset.from_generator(
        lambda: _packed_batches(dataset, outputs, checksums),
        output_signature=_packed_spec(dataset.element_spec, outputs),
    )
    length = dataset.cardinality()
    is_known = length != tf.data.UNKNOWN_CARDINALITY
    assert_length = tf.data.experimental.assert_cardinality(length)
    return batches.apply(assert_length) if is_known else batches


def _packed_batches(
    dataset: Any, outputs: Sequence[TeacherOutput], checksums: np.ndarray
) -> Iterator[Any]:
    start = 0
    for batch in dataset.as_numpy_iterator():
        x, *others = batch if isinstance(batch, tuple) else (batch,)
        rows = slice(start, start + row_count(x))
        if not np.array_equal(checksums_of(x), checksums[rows]):
            raise ValueError(
                "The dataset must give the rows that were cached, in the "
                f"same order. Received others from row {start} on. Cache "
                "and zip before `shuffle`."
            )
        part = [
            output._replace(values=output.values[rows]) for output in outputs
        ]
        x = packed(x, part)
        yield (x, *others) if others else x
        start = rows.stop


def _packed_spec(spec: Any, outputs: Sequence[TeacherOutput]) -> Any:
    import tensorflow as tf

    x, *others = spec if isinstance(spec, tuple) else (spec,)
    specs = [
        output._replace(
            values=tf.TensorSpec(
                (None, *output.values.shape[1:]), output.values.dtype
            )
        )
        for output in outputs
    ]
    x = packed(x, specs)
    return (x, *others) if others else x
