"""Augmented views that teachers and all students of a data set see alike.

A view follows from (seed, number of the view, row), an order from (seed,
epoch): whoever trains, in Keras or in PyTorch, gets the same examples.
"""

from collections.abc import Callable, Iterator

import numpy as np

VIEWS = 8
"""So many views are there of each example; epoch e shows view e % VIEWS."""

_SHIFT = 2
_ERASED = (6, 12)

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def flip(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns images of which every second is mirrored, left to right.

    Args:
        images: (rows, height, width, channels).
        generator: What is random comes from it.
    """
    is_flipped = generator.random(len(images)) < 0.5
    return np.where(is_flipped[:, None, None, None], images[:, :, ::-1], images)


def shift(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns images moved by at most two pixels each way, filled with 0.

    Args:
        images: (rows, height, width, channels).
        generator: What is random comes from it.
    """
    rows, height, width = images.shape[:3]
    edges = ((0, 0), (_SHIFT, _SHIFT), (_SHIFT, _SHIFT), (0, 0))
    padded = np.pad(images, edges)
    found = np.empty_like(images)
    starts = generator.integers(0, 2 * _SHIFT + 1, (rows, 2))
    for top in range(2 * _SHIFT + 1):
        for left in range(2 * _SHIFT + 1):
            those = np.flatnonzero((starts == (top, left)).all(axis=1))
            found[those] = padded[
                those, top : top + height, left : left + width
            ]
    return found


def erase(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns images of which every second has a rectangle of one grey.

    Random erasing (Zhong et al. 2017, arXiv 1708.04896), its sides drawn
    apart.

    Args:
        images: (rows, height, width, channels), in 0 to 255.
        generator: What is random comes from it.
    """
    rows, height, width = images.shape[:3]
    low, high = _ERASED
    sides = generator.integers(low, high + 1, (rows, 2))
    starts = generator.integers(0, (height, width), (rows, 2)) - sides // 2
    ends = starts + sides
    down, across = np.arange(height), np.arange(width)
    is_row = (down >= starts[:, :1]) & (down < ends[:, :1])
    is_column = (across >= starts[:, 1:]) & (across < ends[:, 1:])
    is_erased = is_row[:, :, None] & is_column[:, None, :]
    is_erased &= (generator.random(rows) < 0.5)[:, None, None]
    grey = generator.integers(0, 256, (rows, 1, 1, 1)).astype(images.dtype)
    return np.where(is_erased[..., None], grey, images)


def jitter(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns values with noise of a twentieth of their deviation.

    Args:
        values: (rows, ...), standardized.
        generator: What is random comes from it.
    """
    noise = generator.standard_normal(values.shape, dtype=np.float32)
    return values + np.float32(0.05) * noise


def rescale(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns recordings in which every channel is louder or softer by 10 %.

    Args:
        values: (rows, steps, channels), standardized.
        generator: What is random comes from it.
    """
    shape = (len(values), 1, values.shape[-1])
    factors = generator.standard_normal(shape, dtype=np.float32)
    return values * (1 + np.float32(0.1) * factors)


KINDS: dict[str, tuple[Augmentation, ...]] = {
    "none": (),
    "flip": (flip,),
    "flip_shift": (flip, shift),
    "flip_shift_erase": (flip, shift, erase),
    "shift": (shift,),
    "jitter": (jitter,),
    "rescale_jitter": (rescale, jitter),
}
"""Name of an augmentation -> what is done, in this order."""


class Views:
    """The views of the training examples, each computed when it is asked for.

    Args:
        x: (rows, ...), all training examples.
        kind: A key of `KINDS`.
        seed: Of all views.
    """

    def __init__(self, x: np.ndarray, kind: str, seed: int = 0) -> None:
        self._x = x
        self._steps = KINDS[kind]
        self._seed = seed
        self._known: dict[int, np.ndarray] = {}
        self.count = VIEWS if self._steps else 1

    def fresh(self, number: int) -> np.ndarray:
        """Returns a view in the dtype of the examples, and forgets it.

        Args:
            number: Of the view, without a limit.
        """
        generator = np.random.default_rng((self._seed, number))
        found = self._x
        for step in self._steps:
            found = step(found, generator)
        return found

    def __getitem__(self, number: int) -> np.ndarray:
        """Returns one of the `count` views, (rows, ...), and keeps it."""
        if number not in self._known:
            self._known[number] = self.fresh(number)
        return self._known[number]


def order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of the examples in an epoch, another in each.

    Args:
        rows: Number of examples.
        seed: Of the run.
        epoch: From 0 on.
    """
    return np.random.default_rng((seed, epoch)).permutation(rows)


def batches_of(
    rows: int, batch_size: int, seed: int, epoch: int
) -> Iterator[np.ndarray]:
    """Yields the examples of each step of an epoch, all steps alike.

    The examples that are left over when all steps have `batch_size` wait for
    the next epoch.

    Args:
        rows: Number of examples.
        batch_size: Examples per step.
        seed: Of the run.
        epoch: From 0 on.
    """
    those = order(rows, seed, epoch)
    for start in range(0, rows - batch_size + 1, batch_size):
        yield those[start : start + batch_size]


def as_floats(values: np.ndarray) -> np.ndarray:
    """Returns float32, greys of 0 to 255 scaled to [0, 1]."""
    if values.dtype == np.uint8:
        return np.multiply(values, np.float32(1 / 255), dtype=np.float32)
    return values.astype(np.float32, copy=False)
