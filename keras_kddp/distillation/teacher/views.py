"""Augmented views that a teacher and its student see alike."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_kddp.arguments import LARGEST_SEED, require_count
from keras_kddp.data.batches import are_arrays
from keras_kddp.data.packing import TeacherOutput, packed
from keras_kddp.model_io import Arrays

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Views:
    """Views of the rows of an array; each follows from (seed, row, view).

    Args:
        augment: Returns a view of a row; what is random in it must come from
            the generator.
        count: Number of views of each row.
        seed: Of all views.
    """

    def __init__(self, augment: Augment, count: int, seed: int) -> None:
        self.count = count
        self._augment = augment
        self._seed = seed

    def of(self, x: np.ndarray, rows: Iterable[int], view: int) -> np.ndarray:
        """Returns one view of some rows, in the dtype of `x`.

        Args:
            x: All rows, (rows, ...).
            rows: Which of them.
            view: Number of the view.

        Raises:
            ValueError: If a view has another shape than its row.
        """
        found = []
        for row in rows:
            generator = np.random.default_rng((self._seed, int(row), view))
            image = np.asarray(self._augment(x[row].copy(), generator))
            if image.shape != x.shape[1:]:
                raise ValueError(
                    "`augment` must return a row of the same shape, "
                    f"{x.shape[1:]}. Received: {image.shape}. Pad or crop it."
                )
            _check_range(image, x.dtype)
            found.append(image.astype(x.dtype, copy=False))
        return np.stack(found)

    def batches(self, x: Arrays, batch_size: int) -> Iterator[np.ndarray]:
        """Yields all rows of the first view, then of the second, ...

        Args:
            x: The rows, one array.
            batch_size: Rows per batch.
        """
        array = np.asarray(x)
        for view in range(self.count):
            for start in range(0, len(array), batch_size):
                rows = range(start, min(start + batch_size, len(array)))
                yield self.of(array, rows, view)


def _check_range(image: np.ndarray, dtype: np.dtype) -> None:
    """Raises for integers that would wrap around."""
    if not np.issubdtype(dtype, np.integer):
        return
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if image.min() < low or image.max() > high:
        raise ValueError(
            f"`augment` must return numbers that {dtype} can hold, {low} to "
            f"{high}. Received: {image.min()} to {image.max()}. Clip them, or "
            "pass `x` as float32."
        )


class ViewBatches(keras.utils.PyDataset):
    """Shuffled batches of views for `fit`; the next view in every epoch.

    Args:
        x: Inputs, one array.
        y: Labels, one per row.
        sample_weight: None, or one factor per row.
        views: Of the rows.
        outputs: The teacher's, (views, rows, ...).
        batch_size: Rows per step.
        seed: Of the order.
        **kwargs: Of `keras.utils.PyDataset`.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: Any,
        sample_weight: Any,
        *,
        views: Views,
        outputs: Sequence[TeacherOutput],
        batch_size: int,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._x, self._y, self._sample_weight = x, y, sample_weight
        self._views = views
        self._outputs = outputs
        self._batch_size = batch_size
        self._generator = np.random.default_rng(seed)
        self._epoch = -1
        self._order = self._generator.permutation(len(x))

    def __len__(self) -> int:
        return -(-len(self._x) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        start = index * self._batch_size
        rows = self._order[start : start + self._batch_size]
        view = max(self._epoch, 0) % self._views.count
        outputs = [
            output._replace(values=output.values[view, rows])
            for output in self._outputs
        ]
        x = packed(self._views.of(self._x, rows, view), outputs)
        y, weights = keras.tree.map_structure(
            lambda leaf: None if leaf is None else leaf[rows],
            (self._y, self._sample_weight),
        )
        return (x, y) if weights is None else (x, y, weights)

    def on_epoch_begin(self) -> None:
        """Goes on to the next view, in a new order.

        Keras calls it once per epoch, `on_epoch_end` more often.
        """
        self._epoch += 1
        self._order = self._generator.permutation(len(self._x))


def checked_views(augment: Any, views: Any, seed: Any, x: Any) -> Views | None:
    """Returns the views that a cache is for, None for the inputs as they are.

    Args:
        augment: Makes a view of a row, or None.
        views: Number of views of each row.
        seed: Of the views.
        x: The inputs.

    Raises:
        ValueError: If one does not fit the others.
    """
    require_count("views", views, smallest=1)
    require_count("seed", seed, smallest=0, largest=LARGEST_SEED)
    if augment is None:
        if views > 1:
            raise ValueError(
                "`augment` must be given for several views. Received: None and "
                f"views={views}. Pass augment=lambda row, generator: ..."
            )
        return None
    if not callable(augment):
        raise ValueError(
            "`augment` must be a function (row, generator) -> row. Received: "
            f"{augment!r}. Pass augment=lambda row, generator: ..."
        )
    if len(keras.tree.flatten(x)) != 1 or not are_arrays(x):
        raise ValueError(
            "`x` must be one array to be augmented. Received: "
            f"{type(x).__name__}."
        )
    return Views(augment, int(views), int(seed))
