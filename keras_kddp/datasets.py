"""The data a student is distilled on, with its splits kept apart."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one purpose.

    Attributes:
        x: Inputs, (examples, ...) float32.
        y: Class numbers, (examples,) int64.
    """

    x: np.ndarray
    y: np.ndarray


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
            name: len(getattr(self, name).y)
            for name in ("train", "validation", "test")
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
