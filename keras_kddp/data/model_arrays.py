"""Inputs and labels as models take them, out of what a source has."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_kddp.data.sources import SplitArrays
from keras_kddp.data.splits import Split
from keras_kddp.model_io import Array

_REAL = (np.integer, np.floating, np.bool_)


class Prepared(NamedTuple):
    """An array as a model takes it.

    Attributes:
        values: The array.
        notes: What was done, a sentence each.
    """

    values: Array
    notes: tuple[str, ...]


Preparation = Callable[[Array], Prepared]
"""What is done to inputs, (examples, ...), which makes float32 of them."""


def make_split(
    spec: str, split: str, arrays: SplitArrays, prepare: Preparation
) -> tuple[Split, tuple[str, ...]]:
    """Returns inputs and labels as a model takes them, and what was done.

    Args:
        spec: What errors call the data set.
        split: What they call the split.
        arrays: As the source has them.
        prepare: For the inputs.

    Raises:
        ValueError: If they are not numbers, or no class numbers.
    """
    y = _class_numbers(spec, split, arrays.y)
    counts = [len(part) if part.ndim else 0 for part in (arrays.x, y.values)]
    if counts[0] == 0 or counts[0] != counts[1]:
        raise ValueError(
            f"{spec}: `{split}` must hold examples, each with a label. "
            f"Received: {counts[0]} inputs and {counts[1]} labels. Give "
            "as many labels as inputs, at least one."
        )
    if not any(np.issubdtype(arrays.x.dtype, kind) for kind in _REAL):
        raise ValueError(
            f"{spec}: the inputs of `{split}` must be real numbers. Received: "
            f"{arrays.x.dtype}. Cast them: x.astype('float32')."
        )
    x = prepare(arrays.x)
    return Split(x.values, y.values), (*x.notes, *y.notes)


def as_images(x: Array) -> Prepared:
    """Returns uint8 images in [0, 1] with a channel axis, others as they are.

    Args:
        x: (examples, height, width) or (examples, height, width, channels);
            uint8 tables, (examples, features), are no images.
    """
    if x.dtype != np.uint8 or x.ndim < 3:
        return as_numbers(x)
    notes = ["uint8 images are divided by 255"]
    x = x.astype("float32") / 255
    if x.ndim == 3:
        x = x[..., np.newaxis]
        notes.append("a channel axis is added, (height, width, 1)")
    return Prepared(x, tuple(notes))


def as_numbers(x: Array) -> Prepared:
    """Returns numbers as they are, in float32.

    Args:
        x: Inputs of any real dtype.
    """
    notes: tuple[str, ...] = ()
    if x.dtype == np.uint8:
        notes = (
            "uint8 inputs are taken as they are: 0 to 255 where they are "
            "pixels, which npz:FILE,scale=255 divides by 255",
        )
    elif x.dtype != np.float32:
        notes = (f"{x.dtype} inputs are taken as float32, as they are",)
    with np.errstate(over="ignore"):  # infinity is found where it is checked
        return Prepared(x.astype("float32", copy=False), notes)


def divider(text: str) -> Preparation:
    """Returns what divides inputs by a number.

    Args:
        text: The number.

    Raises:
        ValueError: If it is not a finite number above 0.
    """
    try:
        with np.errstate(over="ignore"):
            number = float(np.float32(text))
    except ValueError:
        number = 0.0
    if not 0 < number < np.inf:
        raise ValueError(
            "`scale=` must be a finite number > 0, which inputs are divided "
            f"by, such as 255. Received: {text!r}."
        )

    def divide(x: Array) -> Prepared:
        note = f"{x.dtype} inputs are divided by {number:g}"
        return Prepared(as_numbers(x).values / np.float32(number), (note,))

    return divide


def _class_numbers(spec: str, split: str, y: Array) -> Prepared:
    """Returns labels as (examples,) int64."""
    notes: tuple[str, ...] = ()
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
        notes = ("labels in a column, (examples, 1), are taken out of it",)
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"{spec}: the labels of `{split}` must be class numbers, "
            f"(examples,) integers. Received: {y.dtype} of shape {y.shape}. "
            "Take the argmax of one-hot labels, y.astype('int64') of whole "
            "numbers, np.unique(y, return_inverse=True)[1] of names; there is "
            "no regression here."
        )
    return Prepared(y.astype("int64"), notes)
