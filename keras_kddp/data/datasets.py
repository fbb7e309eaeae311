"""The data a student is distilled on, with its splits kept apart."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from keras_kddp.data.dataset_files import (
    SplitArrays,
    read_idx,
    read_npz,
    read_tfds,
)
from keras_kddp.data.splits import Split

_REAL = (np.integer, np.floating)
_VALIDATION_SHARE = 12  # one in twelve: Fashion-MNIST's last 5,000


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of one data set.

    Attributes:
        name: What it was asked for by.
        train: What the weights are learned from.
        validation: What choices are made on.
        test: What accuracies are reported on; it chooses nothing.
    """

    name: str
    train: Split
    validation: Split
    test: Split

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of examples by split."""
        return {
            name: len(getattr(self, name))
            for name in ("train", "validation", "test")
        }


def load_dataset(spec: str) -> Dataset:
    """Returns the data set that a text names.

    Args:
        spec: `digits`; `idx:DIR`, a folder of MNIST's four files, gzipped or
            not; `npz:FILE` with arrays x_train, y_train, x_test, y_test and,
            if there are any, x_validation, y_validation; or
            `tfds:NAME,train=SPLIT,validation=SPLIT,test=SPLIT`, of
            tensorflow-datasets, every split optional.

    Returns:
        uint8 images as float32 in [0, 1] with a channel axis, other inputs as
        float32, as they are. Where the source has no validation split it is
        the last twelfth of the training data.

    Raises:
        ValueError: If the text names nothing, or what it names is damaged.
        OSError: If a file cannot be read.
        ImportError: If what reads it is not installed.
    """
    kind, _, name = spec.partition(":")
    if spec == "digits":
        return load_digits()
    if kind not in _READERS or not name:
        raise ValueError(
            "The data must be digits, idx:DIR, npz:FILE or "
            f"tfds:NAME. Received: {spec!r}."
        )
    splits = {
        split: _make_split(spec, split, x, y)
        for split, (x, y) in _READERS[kind](name).items()
    }
    if "validation" not in splits:
        splits |= _cut_validation(spec, splits["train"])
    return Dataset(spec, **splits)


_READERS: dict[str, Callable[[str], SplitArrays]] = {
    "idx": read_idx,
    "npz": read_npz,
    "tfds": read_tfds,
}


def _make_split(spec: str, split: str, x: np.ndarray, y: np.ndarray) -> Split:
    """Returns inputs and labels as a model takes them."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    counts = [array.shape[0] if array.ndim else 0 for array in (x, y)]
    if counts[0] == 0 or counts[0] != counts[1]:
        raise ValueError(
            f"{spec}: `{split}` must hold examples, each with a label. "
            f"Received: {counts[0]} inputs and {counts[1]} labels."
        )
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"{spec}: the labels of `{split}` must be class numbers, "
            f"(examples,) integers. Received: {y.dtype} of shape {y.shape}."
        )
    if not any(np.issubdtype(x.dtype, kind) for kind in _REAL):
        raise ValueError(
            f"{spec}: the inputs of `{split}` must be real numbers. Received: "
            f"{x.dtype}."
        )
    if x.dtype == np.uint8 and x.ndim > 2:  # images, not a table
        x = x.astype("float32") / 255
        if x.ndim == 3:  # without channels
            x = x[..., np.newaxis]
    return Split(x.astype("float32", copy=False), y.astype("int64"))


def _cut_validation(spec: str, train: Split) -> dict[str, Split]:
    """Returns the training data cut in two: the end is for validation."""
    count = len(train.y) // _VALIDATION_SHARE
    if count == 0:
        raise ValueError(
            f"{spec}: `train` must hold at least {_VALIDATION_SHARE} examples, "
            f"of which one is for validation. Received: {len(train.y)}."
        )
    return {
        "train": replace(train, x=train.x[:-count], y=train.y[:-count]),
        "validation": replace(train, x=train.x[-count:], y=train.y[-count:]),
    }


def load_digits() -> Dataset:
    """Returns scikit-learn's handwritten digits, which need no download.

    1,797 images of 8x8 pixels (Alpaydin & Kaynak 1998) as (examples, 64)
    float32 in [0, 1]: 1,197 to train on, 150 for validation, 450 for tests,
    each with the same share of every class, the same split every time.
    """
    from sklearn.datasets import load_digits as bundled_digits
    from sklearn.model_selection import train_test_split

    digits = bundled_digits()
    x = (digits.data / 16).astype("float32")
    y = digits.target.astype("int64")
    x, x_test, y, y_test = train_test_split(
        x, y, test_size=450, stratify=y, random_state=0
    )
    x, x_validation, y, y_validation = train_test_split(
        x, y, test_size=150, stratify=y, random_state=0
    )
    return Dataset(
        "digits",
        Split(x, y),
        Split(x_validation, y_validation),
        Split(x_test, y_test),
    )
