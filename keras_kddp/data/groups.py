"""The groups of examples, such as subjects, that no split may share."""

import itertools
import warnings
from typing import Any

import numpy as np

from keras_kddp.data.sources import Source
from keras_kddp.model_io import Array

_SHOWN = 5


def checked_groups(spec: str, source: Source) -> Array | None:
    """Returns the group of each training example, None where none is told.

    Warns of groups that stand in two splits.

    Args:
        spec: What errors call the data set.
        source: With the groups of those splits that have some.

    Raises:
        ValueError: If a split has not one group for each example.
    """
    groups = {
        split: _checked(
            f"{spec}: the groups of `{split}`", arrays.groups, len(arrays.x)
        )
        for split, arrays in source.splits.items()
        if arrays.groups is not None
    }
    for (one, its), (split, others) in itertools.combinations(
        groups.items(), 2
    ):
        shared = np.intersect1d(its, others)
        if len(shared):
            warnings.warn(
                f"{spec}: no group must stand in `{one}` and in `{split}`. "
                f"Received {len(shared):,} that do, such as "
                f"{shared[:_SHOWN].tolist()}: what is measured on `{split}` is "
                "not measured on new groups. Split the data by group.",
                stacklevel=3,
            )
    return groups.get("train")


def _checked(name: str, groups: Array, count: int) -> Array:
    if groups.ndim == 2 and groups.shape[1] == 1:
        groups = groups[:, 0]
    if groups.shape != (count,):
        raise ValueError(
            f"{name} must be one for each example, ({count},). Received an "
            f"array of shape {groups.shape}. Name another array by `group=`."
        )
    return np.array([_text(name) for name in groups.tolist()])


def _text(name: Any) -> Any:
    """Returns a text where a name is one in bytes."""
    is_bytes = isinstance(name, bytes)
    return name.decode(errors="backslashreplace") if is_bytes else name
