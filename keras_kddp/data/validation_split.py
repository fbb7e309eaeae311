"""Which training examples are for validation, where none are given."""

import warnings
from typing import NamedTuple

import numpy as np

from keras_kddp.data.class_coverage import naming
from keras_kddp.model_io import Array

_SHARE = 12  # one in twelve: Fashion-MNIST's last 5,000
_LARGEST_SHARE = 3  # one in three, where every class is to be there
_SEED = 0


class Cut(NamedTuple):
    """Examples that are cut from the training data for validation.

    Attributes:
        rows: Their indices, rising, (validation examples,).
        notes: What was done, a sentence each.
    """

    rows: Array
    notes: tuple[str, ...]


def last_rows(y: Array) -> Cut:
    """Returns the last twelfth.

    Args:
        y: Class numbers, (examples,).

    Raises:
        ValueError: If there are fewer than twelve examples, or each is of a
            class of its own.
    """
    _check_count(y)
    count = len(y) // _SHARE
    note = f"validation: the last {count:,} of {len(y):,} training examples"
    return Cut(np.arange(len(y) - count, len(y)), (note,))


def stratified_rows(y: Array) -> Cut:
    """Returns a twelfth with every class, the same each time.

    A class of one example stays in the training data. Where a twelfth has
    fewer examples than there are classes, it is as many as the classes, unless
    that is more than a third.

    Args:
        y: Class numbers, (examples,).

    Raises:
        ValueError: If there are fewer than twelve examples, or each is of a
            class of its own.
    """
    from sklearn.model_selection import train_test_split

    _check_count(y)
    classes, numbers, counts = np.unique(
        y, return_inverse=True, return_counts=True
    )
    rows = np.flatnonzero(counts[numbers] > 1)
    count = max(len(rows) // _SHARE, 1)
    several = int(np.count_nonzero(counts > 1))
    how = "stratified by class"
    if several <= len(rows) // _LARGEST_SHARE:
        _, chosen = train_test_split(
            rows,
            test_size=max(count, several),
            stratify=y[rows],
            random_state=_SEED,
        )
        chosen = np.concatenate([chosen, _one_each(y, rows, chosen)])
    else:
        candidates = _one_each(y, rows, rows[:0])
        chosen = np.random.default_rng(_SEED).permutation(candidates)[:count]
        how = f"of as many of the {len(classes):,} classes"
    note = (
        f"validation: {len(chosen):,} of {len(y):,} training examples, {how}, "
        f"seed {_SEED}"
    )
    notes = (note, *_note_of_single_classes(classes[counts == 1]))
    return Cut(np.sort(chosen), notes)


def grouped_rows(y: Array, groups: Array, key: str) -> Cut:
    """Returns about a twelfth, such that no group is cut in two.

    Up to a third where that takes more classes, and more than that only of
    fewer than three groups or of groups that are as large.

    Args:
        y: Class numbers, (examples,).
        groups: The group of each example, (examples,), of any dtype that can
            be sorted.
        key: Name of the groups.

    Raises:
        ValueError: If there are fewer than twelve examples or two groups, or
            a class cannot stay in the training data.
    """
    _check_count(y)
    names, numbers = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"`group={key}` must name at least two groups in `train`, of which "
            f"one is for validation. Received: {names.tolist()}. Leave it out, "
            "or give a validation split."
        )
    wanted = len(y) / _SHARE

    def badness(rows: Array) -> tuple[int, bool, int, float]:
        return (
            _lacking(y, np.delete(y, rows)),
            len(rows) > len(y) // _LARGEST_SHARE,
            _lacking(y, y[rows]),
            abs(len(rows) - wanted),
        )

    folds: list[Array] = []
    for share in (_SHARE, _SHARE // 2, _LARGEST_SHARE):
        folds += _folds(y, numbers, min(share, len(names)))
        chosen = min(folds, key=badness)
        if not any(badness(chosen)[:3]):
            break
    lost = np.setdiff1d(y, np.delete(y, chosen))
    if len(lost):
        raise ValueError(
            f"`group={key}` must leave every class in `train`. Received groups "
            f"of which none can go: with any of them all of {naming(lost)}, or "
            "of others, would. Give a validation split."
        )
    count = len(np.unique(numbers[chosen]))
    note = (
        f"validation: {len(chosen):,} of {len(y):,} training examples, "
        f"{count:,} of {len(names):,} groups of '{key}', stratified as far as "
        f"groups allow, seed {_SEED}"
    )
    return Cut(np.sort(chosen), (note,))


def _check_count(y: Array) -> None:
    if len(y) < _SHARE:
        raise ValueError(
            f"`train` must hold at least {_SHARE} examples, of which one is "
            f"for validation. Received: {len(y)}. Give a validation "
            "split: x_validation and y_validation, or validation=SPLIT."
        )
    if len(np.unique(y)) == len(y):
        raise ValueError(
            "`train` must have a class with two examples, of which one is for "
            f"validation. Received {len(y)} classes of one. Give a validation "
            "split: x_validation and y_validation, or validation=SPLIT."
        )


def _one_each(y: Array, rows: Array, chosen: Array) -> Array:
    """Returns a row of each class of some rows that is not chosen yet."""
    order = np.random.default_rng(_SEED).permutation(rows)
    order = order[np.isin(y[order], y[chosen], invert=True)]
    return order[np.unique(y[order], return_index=True)[1]]


def _folds(y: Array, groups: Array, count: int) -> list[Array]:
    """Returns ways to take some of the groups out, each as rows."""
    from sklearn.model_selection import StratifiedGroupKFold

    largest = int(np.unique(y, return_counts=True)[1].max())
    folds = StratifiedGroupKFold(
        min(count, largest), shuffle=True, random_state=_SEED
    )
    with warnings.catch_warnings():
        # Of rare classes, which are counted here.
        warnings.simplefilter("ignore", UserWarning)
        found = [rows for _, rows in folds.split(y, y, groups)]
    return [rows for rows in found if len(rows)]


def _lacking(y: Array, part: Array) -> int:
    """Returns how many of all classes a part lacks."""
    return len(np.setdiff1d(y, part))


def _note_of_single_classes(classes: Array) -> list[str]:
    if not len(classes):
        return []
    return [f"{naming(classes)}: of one example, which stays in `train`"]
