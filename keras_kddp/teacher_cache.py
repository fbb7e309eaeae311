"""A teacher's outputs, computed once and handed out beside the inputs."""

import zlib
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_kddp.activity import (
    are_arrays,
    batches_of,
    finite_batches,
    row_count,
)
from keras_kddp.losses import output_activations
from keras_kddp.packing import TeacherOutput, packed


class TeacherCache:
    """The outputs of a teacher for some inputs, computed once, in memory.

    A training step then costs no teacher pass: with a teacher much larger
    than the student, most of an epoch is saved. Rows are recognized by a
    checksum, so outputs never meet inputs that they do not belong to.

    Args:
        teacher: Trained model; it runs in inference mode.
        x: Its inputs: arrays (a dict or list of them for several inputs), or
            a finite, unshuffled iterable of batches `x`, `(x, y)` or
            `(x, y, w)`, such as a `tf.data.Dataset`.
        batch_size: Rows a step, for arrays.

    Raises:
        ValueError: If `teacher` is no model or puts out NaN, or `x` is empty
            or endless.

    Example:
        ```python
        cache = keras_kddp.TeacherCache(teacher, x)
        distiller = keras_kddp.Distiller(None, student)
        distiller.compile(loss=loss, metrics=["accuracy"])
        distiller.fit(cache.pack(x), y, epochs=24)
        ```
    """

    def __init__(
        self, teacher: keras.Model, x: Any, *, batch_size: int = 256
    ) -> None:
        if not isinstance(teacher, keras.Model):
            raise ValueError(
                "`teacher` must be a keras.Model. Received: "
                f"{type(teacher).__name__}."
            )
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise ValueError(
                "`batch_size` must be an integer >= 1. Received: "
                f"batch_size={batch_size!r}."
            )
        if not are_arrays(x):
            x = finite_batches("x", x)
        checksums: list[int] = []
        parts: list[list[np.ndarray]] = []
        for batch in batches_of(x, int(batch_size)):
            outputs = keras.tree.flatten(teacher(batch, training=False))
            parts.append([*map(keras.ops.convert_to_numpy, outputs)])
            checksums += _checksums(batch)
        if not parts:
            raise ValueError(
                "`x` must hold at least one example. Received none. Pass "
                "arrays, or an iterable that can be run through again."
            )
        if not all(np.isfinite(part).all() for each in parts for part in each):
            raise ValueError(
                "The outputs of `teacher` must be finite. Received NaN or "
                "infinity for some rows of `x`. Look for NaN in the data and "
                "in the teacher's weights."
            )
        flags = [name == "softmax" for name in output_activations(teacher)]
        self._checksums: np.ndarray = np.array(checksums)
        self._outputs: list[TeacherOutput] = [
            TeacherOutput(np.concatenate(values), is_softmax)
            for values, is_softmax in zip(
                zip(*parts, strict=True),
                flags or [False] * len(parts[0]),
                strict=True,
            )
        ]

    def pack(self, x: Any) -> dict[str, Any]:
        """Returns inputs with their teacher outputs, as `fit` takes them.

        Args:
            x: The arrays that the cache was made for.

        Returns:
            A dict of arrays that `fit` shuffles and batches together; give it
            in the place of `x`, to `keras_kddp.Distiller` only.

        Raises:
            ValueError: If `x` holds other rows, or is no array.
        """
        if not are_arrays(x):
            raise ValueError(
                "`x` must be arrays. Received: "
                f"{type(x).__name__}. For batches there is `zip`."
            )
        rows = row_count(x)
        received = np.array(_checksums(x))
        if not np.array_equal(received, self._checksums):
            raise ValueError(
                "`x` must hold the rows that the cache was made for, in their "
                f"order and dtype: {len(self._checksums)}. Received {rows} "
                "rows, some of them others. Make a TeacherCache for them."
            )
        return packed(x, self._outputs)

    def zip(self, dataset: Any) -> Any:
        """Returns a dataset with the teacher outputs packed in.

        Shuffle it afterwards, not before: each pass checks that the rows come
        in the order in which they were cached.

        Args:
            dataset: A `tf.data.Dataset` of batches `x`, `(x, y)` or
                `(x, y, w)`, with the cached rows in their order.

        Returns:
            A `tf.data.Dataset` of the same batches, `x` packed. A pass over
            rows in another order raises `tf.errors.InvalidArgumentError`.

        Raises:
            ValueError: If `dataset` is no `tf.data.Dataset`, or endless.
        """
        import tensorflow as tf  # here: the other backends do without it

        if not isinstance(dataset, tf.data.Dataset):
            raise ValueError(
                "`dataset` must be a tf.data.Dataset. Received: "
                f"{type(dataset).__name__}. For arrays there is `pack`."
            )
        finite_batches("dataset", dataset)
        batches = tf.data.Dataset.from_generator(
            lambda: self._packed_batches(dataset),
            output_signature=self._packed_spec(dataset.element_spec),
        )
        length = dataset.cardinality()
        is_known = length != tf.data.UNKNOWN_CARDINALITY
        assert_length = tf.data.experimental.assert_cardinality(length)
        return batches.apply(assert_length) if is_known else batches

    def _packed_batches(self, dataset: Any) -> Iterator[Any]:
        start = 0
        for batch in dataset.as_numpy_iterator():
            x, *others = batch if isinstance(batch, tuple) else (batch,)
            rows = slice(start, start + row_count(x))
            received = np.array(_checksums(x))
            if not np.array_equal(received, self._checksums[rows]):
                raise ValueError(
                    "The dataset must give the rows that were cached, in the "
                    f"same order. Received others from row {start} on. Cache "
                    "and zip before `shuffle`."
                )
            outputs = [
                output._replace(values=output.values[rows])
                for output in self._outputs
            ]
            x = packed(x, outputs)
            yield (x, *others) if others else x
            start = rows.stop

    def _packed_spec(self, spec: Any) -> Any:
        import tensorflow as tf

        x, *others = spec if isinstance(spec, tuple) else (spec,)
        outputs = [
            output._replace(
                values=tf.TensorSpec(
                    (None, *output.values.shape[1:]), output.values.dtype
                )
            )
            for output in self._outputs
        ]
        x = packed(x, outputs)
        return (x, *others) if others else x


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
