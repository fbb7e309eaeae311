"""Checks."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeGuard

import keras

from keras_kddp.compression.controls import CONTROLS
from keras_kddp.data.input_range import input_range, warn_of_other_range
from keras_kddp.data.splits import Split, as_split, check_split
from keras_kddp.distillation.checks import check_models, check_soft_targets
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.callback import DynamicPruning
from keras_kddp.pruning.preflight import PruningPreflight, check_pruning
from keras_kddp.surgery.graph import ChannelGraph


def checked_splits(
    teacher: keras.Model,
    student: keras.Model,
    train: Any,
    validation: Any,
    test: Any = None,
) -> dict[str, Split]:
    """Returns the data as arrays, by split, after all checks.

    Args:
        teacher: Trained or not yet.
        student: The student.
        train: See `compress`.
        validation: See `compress`.
        test: See `compress`.

    Raises:
        ValueError: If models and data do not fit together.
    """
    ChannelGraph(student)  # says if the student has no graph of layers
    check_models(teacher, student)
    check_soft_targets(teacher, student)
    given = {"train": train, "validation": validation, "test": test}
    splits = {
        name: as_split(name, data)
        for name, data in given.items()
        if data is not None or name != "test"
    }
    for name, split in splits.items():
        check_split(name, split, student, every_class=name == "train")
    seen = input_range(splits["train"].x)
    for name, split in splits.items():
        warn_of_other_range(seen, split.x, name)
    return splits


def check_options(
    pruning: Any, controls: Any, epochs: Any, batch_size: Any
) -> None:
    """Checks the arguments of `compress` that need no model.

    Raises:
        ValueError: If one is no such thing, or out of range.
    """
    if not isinstance(pruning, DynamicPruning):
        raise ValueError(
            "`pruning` must be a DynamicPruning, or None. Received: "
            f"{pruning!r}. Try DynamicPruning(criterion='never_active')."
        )
    is_list = not isinstance(controls, str) and isinstance(controls, Sequence)
    if (
        not is_list
        or any(name not in list(CONTROLS) for name in controls)
        or len(set(controls)) < len(controls)
    ):
        raise ValueError(
            "`controls` must be a list of different names out of "
            f"{list(CONTROLS)}. Received: {controls!r}."
        )
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        if not is_integer or value < 1:
            raise ValueError(
                f"`{name}` must be an integer >= 1. Received: {name}={value!r}."
            )
    pruning.phases(epochs)


def with_budget(pruning: DynamicPruning, budget: Any) -> DynamicPruning:
    """Returns the callback with a budget; the given one is left as it is.

    Raises:
        ValueError: If it is no budget.
    """
    if budget is None:
        return pruning
    return pruning.replaced(budget=budget)


def check_budget(
    pruning: DynamicPruning, prepared: keras.Model, train: Split
) -> PruningPreflight:
    """Checks that budget and widths can be kept, before anything is trained.

    Args:
        pruning: With a budget or without.
        prepared: The student with its penalties.
        train: What it will be trained on, as it is.

    Raises:
        ValueError: If the smallest student that pruning may leave is larger.
    """
    return check_pruning(pruning.settings(), ChannelGraph(prepared), train.x)


def _is_relative_to_student(budget: Any) -> TypeGuard[Budget]:
    return (
        budget is not None
        and budget.max_accuracy_drop is not None
        and budget.reference == "student"
    )
