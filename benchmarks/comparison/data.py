"""The data sets of the comparison, each with three splits kept apart."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

FASHION = "/usr/share/datasets/fashion-mnist"
"""Where Debian's package dataset-fashion-mnist puts the four files."""

WATCH_TEST, WATCH_VALIDATION = (8, 9, 10), (6, 7)
"""Subjects of these splits, told before anything was trained."""

_WINDOW, _STEP = 100, 50
_HELD_OUT = 6_000  # diamonds of validation, and as many of test


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of one split.

    Attributes:
        x: uint8 images (rows, height, width, channels), or float32.
        y: int64 classes, (rows,).
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Data:
    """One data set.

    Attributes:
        name: What `load` knows it by.
        train: What weights are learned from.
        validation: What everything is chosen on.
        test: What nothing is chosen on.
        classes: Number of classes.
        note: Source, split and sizes, in one sentence.
    """

    name: str
    train: Examples
    validation: Examples
    test: Examples
    classes: int
    note: str


@cache
def load(name: str) -> Data:
    """Returns a data set, the same each time.

    Args:
        name: `"digits"`, `"fashion"`, `"watch"` or `"diamonds"`.

    Raises:
        ValueError: If there is none of that name.
        ImportError: If the package that carries it is not installed.
        OSError: If its files are not there.
    """
    if name not in _LOADERS:
        raise ValueError(
            f"`name` must be one of {', '.join(_LOADERS)}. Received: {name!r}."
        )
    return _LOADERS[name]()


def _digits() -> Data:
    from sklearn.model_selection import train_test_split

    from keras_kddp.data.datasets import load_digits

    splits = load_digits()
    x = np.concatenate([splits.train.x, splits.validation.x])
    y = np.concatenate([splits.train.y, splits.validation.y])
    x, x_validation, y, y_validation = train_test_split(
        x, y, test_size=300, stratify=y, random_state=0
    )
    return _data(
        "digits",
        {
            "train": Examples(x, y),
            "validation": Examples(x_validation, y_validation),
            "test": Examples(splits.test.x, splits.test.y),
        },
        "scikit-learn's handwritten digits (8x8 pixels in [0, 1]), split "
        "stratified by class",
    )


def _fashion() -> Data:
    from keras_kddp.data.datasets import load_dataset

    read = load_dataset(f"idx:{FASHION}")
    splits = {
        name: Examples(
            np.rint(255 * split.x).astype("uint8"), split.y.astype("int64")
        )
        for name in ("train", "validation", "test")
        for split in [getattr(read, name)]
    }
    return _data(
        "fashion",
        splits,
        "Fashion-MNIST (28x28 greys), validation the last 5,000 of its "
        "training images",
    )


def _watch() -> Data:
    from seglearn.datasets import load_watch

    read = load_watch()
    windows = [windows_of(recording) for recording in read["X"]]
    x = np.concatenate(windows)
    counts = [len(found) for found in windows]
    y = np.repeat(read["y"], counts).astype("int64")
    subjects = np.repeat(read["subject"], counts)
    is_part = {
        "test": np.isin(subjects, WATCH_TEST),
        "validation": np.isin(subjects, WATCH_VALIDATION),
    }
    is_part["train"] = ~(is_part["test"] | is_part["validation"])
    learned = x[is_part["train"]]
    x = (x - learned.mean((0, 1))) / learned.std((0, 1))
    people = {
        name: ", ".join(map(str, np.unique(subjects[part])))
        for name, part in is_part.items()
    }
    return _data(
        "watch",
        {
            name: Examples(x[part].astype("float32"), y[part])
            for name, part in is_part.items()
        },
        "seglearn's smartwatch recordings of shoulder exercises (6 channels, "
        f"windows of {_WINDOW} by {_STEP} at 50 Hz, standardized by the "
        f"training subjects), split by subject: train {people['train']}, "
        f"validation {people['validation']}, test {people['test']}",
    )


def windows_of(recording: np.ndarray) -> np.ndarray:
    """Returns windows of 100 steps, one every 50.

    Args:
        recording: (steps, channels).

    Returns:
        (windows, 100, channels); what is left over at the end is dropped.
    """
    found = np.lib.stride_tricks.sliding_window_view(recording, _WINDOW, axis=0)
    return found[::_STEP].swapaxes(1, 2)


def _diamonds() -> Data:
    import pandas as pd
    from plotnine.data import diamonds
    from sklearn.model_selection import train_test_split

    inputs = diamonds.drop(columns="cut")
    # A stone that is listed twice must not be learned from and tested on,
    # whatever cut it was given; sides of 0 and 58 mm are slips of a pen.
    sides = inputs[["x", "y", "z"]]
    is_sound = sides.gt(0).all(axis=1) & sides.lt(20).all(axis=1)
    is_kept = (is_sound & ~inputs.duplicated()).to_numpy()
    x = pd.get_dummies(inputs[is_kept]).to_numpy("float64")
    y = diamonds["cut"].cat.codes.to_numpy("int64")[is_kept]
    rows, held = train_test_split(
        np.arange(len(y)), test_size=2 * _HELD_OUT, stratify=y, random_state=0
    )
    validation, test = train_test_split(
        held, test_size=_HELD_OUT, stratify=y[held], random_state=0
    )
    x = (x - x[rows].mean(0)) / x[rows].std(0)
    shares = np.bincount(y) / len(y)
    classes = ", ".join(
        f"{name} {share:.0%}"
        for name, share in zip(
            diamonds["cut"].cat.categories, shares, strict=True
        )
    )
    return _data(
        "diamonds",
        {
            name: Examples(x[part].astype("float32"), y[part])
            for name, part in (
                ("train", rows),
                ("validation", validation),
                ("test", test),
            )
        },
        "plotnine's diamonds (the cut, from weight, colour, clarity, "
        "measures and price; categories one-hot, standardized by the training "
        f"rows), stones listed twice kept once, without those of "
        f"impossible measures, split stratified: {classes}",
    )


def _data(name: str, splits: Mapping[str, Examples], source: str) -> Data:
    """Returns a data set, with its sizes behind its source."""
    names = ("train", "validation", "test")
    sizes = ", ".join(f"{len(splits[key]):,} {key}" for key in names)
    classes = len(np.unique(splits["train"].y))
    return Data(name, **splits, classes=classes, note=f"{source}; {sizes}.")


_LOADERS: dict[str, Callable[[], Data]] = {
    "digits": _digits,
    "fashion": _fashion,
    "watch": _watch,
    "diamonds": _diamonds,
}
