"""A teacher's outputs, computed once and handed out beside the inputs."""

import math
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_kddp.arguments import LARGEST_SEED, require_count
from keras_kddp.atomic_files import recovered, writing_folder
from keras_kddp.data.batches import (
    Batches,
    are_arrays,
    batches_of,
    finite_batches,
    row_count,
)
from keras_kddp.data.packing import TeacherOutput, packed
from keras_kddp.distillation.teacher.files import (
    holds_something,
    read_outputs,
    write_outputs,
)
from keras_kddp.distillation.teacher.outputs import (
    checked_teachers,
    fingerprint,
    teacher_outputs,
)
from keras_kddp.distillation.teacher.rows import (
    checksums_of,
    data_key,
    one_per_row,
)
from keras_kddp.distillation.teacher.views import (
    Augment,
    ViewBatches,
    checked_views,
)
from keras_kddp.distillation.teacher.zipped import checked_dataset, zip_outputs
from keras_kddp.model_io import Arrays

_KIND = "teacher_cache"


class TeacherCache:
    """The outputs of a teacher for some inputs, computed once.

    A training step then costs no teacher pass: with a teacher much larger
    than the student, most of each epoch is saved. Rows are recognized by a
    checksum, so outputs never meet inputs that they do not belong to.

    Args:
        teacher: Trained model; it runs in inference mode. Or a list of them,
            an ensemble: the mean of their log probabilities is what is taught.
        x: Its inputs: arrays (a dict or list of them for several inputs), or
            a finite, unshuffled iterable of batches `x`, `(x, y)` or
            `(x, y, w)`, such as a `tf.data.Dataset`.
        path: Folder to keep the outputs in, as float16 logits, and to read
            them from in the next run; refused when it was made for other
            weights of the teacher or other data. None: in memory only.
        batch_size: Rows per step, for arrays.
        augment: `(row, numpy.random.Generator) -> row`: how a view of an
            input is made. The teacher's outputs are those for the views that
            `batches` hands to the student. None: the inputs as they are.
        views: Number of views of each row.
        seed: Of the views.
        verbose: 1 shows a progress bar while the teacher runs.

    Raises:
        ValueError: If an argument does not fit, `x` is empty or endless, the
            teacher puts out NaN, or the folder at `path` is stale.
        OSError: If `path` cannot be written.

    Example:
        ```python
        cache = keras_kddp.TeacherCache(teacher, x, path="runs/teacher_cache")
        distiller = keras_kddp.Distiller(None, student)
        distiller.compile(loss=loss, metrics=["accuracy"])
        distiller.fit(cache.pack(x), y, epochs=24)
        ```
    """

    def __init__(
        self,
        teacher: Any,
        x: Batches,
        *,
        path: str | os.PathLike[str] | None = None,
        batch_size: int = 256,
        augment: Augment | None = None,
        views: int = 1,
        seed: int = 0,
        verbose: int = 0,
    ) -> None:
        teachers = checked_teachers(teacher)
        require_count("batch_size", batch_size, smallest=1)
        self._views = checked_views(augment, views, seed, x)
        if not are_arrays(x):
            x = finite_batches("x", x)
        folder = _checked_folder(path)
        self._checksums: np.ndarray
        found: list[TeacherOutput]
        if folder is not None and holds_something(folder):
            sums = [checksums_of(batch) for batch in batches_of(x, batch_size)]
            self._checksums = np.array([*chain(*sums)])
            found = read_outputs(folder, self._key(teachers, x))
        elif folder is not None:
            with writing_folder(
                folder,
                _KIND,
                overwrite=False,
                bytes_needed=_bytes_of(teachers[0], x, views),
            ) as unfinished:
                found = self._computed(teachers, x, batch_size, True, verbose)
                key = self._key(teachers, x)
                found = write_outputs(unfinished.new, key, found)
        else:
            found = self._computed(teachers, x, batch_size, False, verbose)
        self._all_outputs: list[TeacherOutput] = found
        self._outputs = [o._replace(values=o.values[0]) for o in found]

    def _computed(
        self,
        teachers: list[keras.Model],
        x: Batches,
        batch_size: int,
        as_logits: bool,
        verbose: int,
    ) -> list[TeacherOutput]:
        """Returns outputs of (views, rows, ...); notes the rows' checksums."""
        sums: list[int] = []
        views = 1 if self._views is None else self._views.count

        def read() -> Iterator[Any]:
            for batch in batches_of(x, batch_size):
                sums.extend(checksums_of(batch))
                if self._views is None:
                    yield batch
            if self._views is not None:
                yield from self._views.batches(x, batch_size)

        progress = None
        if verbose:
            progress = keras.utils.Progbar(None, unit_name="row").add
        found = teacher_outputs(
            teachers, read(), as_logits=as_logits, progress=progress
        )
        self._checksums = np.array(sums)
        shape = (views, len(sums))
        return [
            o._replace(values=o.values.reshape(*shape, *o.values.shape[1:]))
            for o in found
        ]

    def _key(self, teachers: list[keras.Model], x: Batches) -> dict[str, Any]:
        """Returns what the outputs follow from."""
        return {
            "teacher": fingerprint(teachers),
            "data": data_key(self._checksums, x, self._views),
        }

    def batches(
        self,
        x: Arrays,
        y: Any,
        sample_weight: Any = None,
        *,
        batch_size: int = 128,
        seed: int = 0,
    ) -> keras.utils.PyDataset:
        """Returns shuffled batches for `fit`, another view in each epoch.

        Teacher and student see the same pixels: a view follows from the seed
        of the cache, the row and the number of the view alone.

        Args:
            x: The array that the cache was made for.
            y: Labels, one per row.
            sample_weight: None, or one factor per row.
            batch_size: Rows per step.
            seed: Of the order.

        Returns:
            A `keras.utils.PyDataset` of `(x, y)` or `(x, y, sample_weight)`;
            `DynamicPruning` needs `data=x[:4096]` beside it.

        Raises:
            ValueError: If the cache has no views, or `x` holds other rows.
        """
        if self._views is None:
            raise ValueError(
                "`batches` needs a cache with `augment`. Received one without. "
                "Use `pack`, or TeacherCache(teacher, x, augment=..., views=4)."
            )
        self._check_rows(x)
        require_count("batch_size", batch_size, smallest=1)
        require_count("seed", seed, smallest=0, largest=LARGEST_SEED)
        return ViewBatches(
            np.asarray(x),
            one_per_row("y", y, len(x)),
            one_per_row("sample_weight", sample_weight, len(x)),
            views=self._views,
            outputs=self._all_outputs,
            batch_size=batch_size,
            seed=seed,
        )

    def pack(self, x: Arrays) -> dict[str, Any]:
        """Returns inputs with their teacher outputs, as `fit` takes them.

        Args:
            x: The arrays that the cache was made for.

        Returns:
            A dict of arrays that `fit` shuffles and batches together; give it
            instead of `x`, to `keras_kddp.Distiller` only.

        Raises:
            ValueError: If `x` holds other rows, or is no array.
        """
        if not are_arrays(x):
            raise ValueError(
                "`x` must be arrays. Received: "
                f"{type(x).__name__}. For batches there is `zip`."
            )
        self._check_rows(x)
        self._check_no_views("pack")
        return packed(x, self._outputs)

    def _check_no_views(self, method: str) -> None:
        if self._views is not None:
            raise ValueError(
                f"`{method}` needs a cache of the inputs as they are. Received "
                "one of augmented views. Use `batches`."
            )

    def _check_rows(self, x: Arrays) -> None:
        rows = row_count(x)
        received = np.array(checksums_of(x))
        if not np.array_equal(received, self._checksums):
            raise ValueError(
                "`x` must hold the rows that the cache was made for, in their "
                f"order and dtype: {len(self._checksums)}. Received {rows} "
                "rows, some of them others. Make a TeacherCache for them."
            )

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
        dataset = checked_dataset(dataset)
        self._check_no_views("zip")
        return zip_outputs(dataset, self._outputs, self._checksums)


def _bytes_of(teacher: keras.Model, x: Batches, views: int) -> int:
    """Returns about how many bytes outputs take in float16; 0: unknown."""
    if not are_arrays(x):
        return 0
    numbers = [
        math.prod(size or 1 for size in output.shape[1:])
        for output in keras.tree.flatten(teacher.outputs)
    ]
    return 2 * row_count(x) * views * sum(numbers)


def _checked_folder(path: Any) -> Path | None:
    if path is None:
        return None
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ValueError(
            "`path` must name a folder, or be None. Received: "
            f"path={path!r}. Try path='runs/teacher_cache'."
        )
    return recovered(path)
