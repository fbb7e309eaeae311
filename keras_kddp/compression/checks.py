"""What is known of a compression before anything is trained, checked once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import keras

from keras_kddp.arguments import LARGEST_SEED, check_share, require_count
from keras_kddp.compression.choices import CONTROLS
from keras_kddp.compression.training import Recipe, default_loss
from keras_kddp.data.class_coverage import warn_of_missing_classes
from keras_kddp.data.input_range import input_range, warn_of_other_range
from keras_kddp.data.input_scaling import warn_of_scaling
from keras_kddp.data.splits import Split, as_split, check_split
from keras_kddp.distillation.checks import (
    Teacher,
    check_models,
    check_soft_targets,
    check_teacher_name,
)
from keras_kddp.distillation.fit_checks import (
    check_learning_rate,
    check_models_finite,
)
from keras_kddp.distillation.output_kinds import check_class_scores
from keras_kddp.distillation.soft_targets import SoftTargets
from keras_kddp.export.tflite.to_tflite import check_conversion
from keras_kddp.layers.penalized_models import prepared_layers
from keras_kddp.layers.preparation import prepare
from keras_kddp.pruning.budget.accuracy_guard import check_judgeable
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.callback import DynamicPruning
from keras_kddp.pruning.preflight import PruningPreflight, check_pruning
from keras_kddp.surgery.graph import ChannelGraph

_OWN_DISTILLER = (
    "Train with a keras_kddp.Distiller of your own and `distillation_losses` "
    "that fit them, or set student_loss_weight=1."
)


@dataclass(frozen=True, eq=False)
class Preflight:
    """A compression whose models, data and arguments fit together.

    Attributes:
        student: The student as it starts; no run changes it.
        splits: The data by split: "train", "validation" and perhaps "test".
        prepared: Copy of the student with its penalties, which a run trains in
            place: a preflight is for one run.
        layers: The layers that pruning is for.
        pruning: With its budget; only read.
        recipe: How every student is trained.
        l1: Charge for a mean activity of 1.
        controls: Names of the students to compare with.
        pruned: What was checked of `prepared` with these weights, for which
            its int8 file was measured; None for the starts of other seeds.
        is_first: Whether no other seed was before it, under this teacher.
    """

    student: keras.Model
    splits: Mapping[str, Split]
    prepared: keras.Model
    layers: Sequence[str]
    pruning: DynamicPruning
    recipe: Recipe
    l1: float
    controls: Sequence[str]
    pruned: PruningPreflight | None
    is_first: bool = True

    @property
    def judged(self) -> Split:
        """What accuracies are reported on."""
        return self.splits.get("test", self.splits["validation"])

    def of_seed(self, seed: int, student: keras.Model) -> "Preflight":
        """Returns the checked compression of a further seed.

        Args:
            seed: Of shuffling, Dropout and new weights.
            student: The same layers, with the weights of that seed.
        """
        return replace(
            self,
            student=student,
            prepared=prepare(student, l1=self.l1),
            recipe=replace(self.recipe, seed=seed),
            pruned=None,
            is_first=False,
        )


def preflight(
    teacher: Teacher,
    student: keras.Model,
    data: Mapping[str, Any],
    recipe: Recipe,
    *,
    pruning: DynamicPruning,
    budget: Budget | None,
    l1: float,
    controls: Sequence[str],
    is_exported: bool,
) -> Preflight:
    """Checks a compression before anything is trained.

    Args:
        teacher: Trained or not yet; see `compress`.
        student: Only read; with penalties or without.
        data: By split, as `compress` takes them.
        recipe: How every student is trained; without a loss it gets
            cross-entropy.
        pruning: Only read.
        budget: Put into the pruning, which must have none then.
        l1: Charge for a mean activity of 1.
        controls: Names of the students to compare with.
        is_exported: Whether the result will be written as .tflite files.

    Returns:
        What was checked, with what it took to check it.

    Raises:
        ValueError: If models, data and arguments do not fit together.
        ExportError: If an int8 file cannot be made of the student.
        ImportError: If a limit needs tflite-micro, and it is not installed.
    """
    check_options(pruning, controls, recipe)
    pruning = with_budget(pruning, budget)
    check_teacher_name(teacher)
    if teacher is None:
        check_labels_alone(recipe, pruning.budget, controls)
    if isinstance(teacher, str) and recipe.student_loss_weight == 1:
        raise ValueError(
            "`student_loss_weight` must be below 1 where teacher='self': at 1 "
            "nothing is learned from it. Received: student_loss_weight=1. Set "
            "it to 0.1, say, or teacher=None."
        )
    given = None if isinstance(teacher, str) else teacher
    splits = checked_splits(given, student, data)
    prepared = prepare(student, l1=l1)
    if recipe.loss is None:
        recipe = replace(recipe, loss=default_loss(student))
    if recipe.student_loss_weight < 1:
        check_class_scores(recipe.loss, student, _OWN_DISTILLER)
    optimizer = recipe.fresh_optimizer()  # says if there is none of this name
    check_learning_rate(optimizer)
    if pruning.budget is not None:
        check_judgeable(pruning.budget, student, optimizer)
    if is_exported:
        check_conversion(student, *(split.x for split in splits.values()))
    graph = ChannelGraph(prepared)
    inputs = splits["train"].x
    return Preflight(
        student=student,
        splits=splits,
        prepared=prepared,
        layers=prepared_layers(graph),
        pruning=pruning,
        recipe=recipe,
        l1=l1,
        controls=controls,
        pruned=check_pruning(pruning.settings(), graph, inputs),
    )


def checked_splits(
    teacher: keras.Model | None,
    student: keras.Model,
    data: Mapping[str, Any],
) -> dict[str, Split]:
    """Returns the data as arrays, by split, after all checks.

    Args:
        teacher: Trained or not yet; None where the student is known to be it,
            or there is none.
        student: The student.
        data: "train", "validation" and "test" as `compress` takes them.

    Raises:
        ValueError: If models and data do not fit together.
    """
    ChannelGraph(student)  # says if the student has no graph of layers
    check_models(teacher, student)
    check_models_finite(teacher=teacher, student=student)
    taker = "Comparisons of accuracy" if teacher is None else "Soft targets"
    check_soft_targets(teacher, student, taker)
    splits = {
        name: as_split(name, given)
        for name, given in data.items()
        if given is not None or name != "test"
    }
    for name, split in splits.items():
        check_split(name, split, student, every_class=name == "train")
    seen = input_range(splits["train"].x)
    for name, split in splits.items():
        warn_of_other_range(seen, split.x, name)
        warn_of_missing_classes(name, split, student)
    for name, model in (("teacher", teacher), ("student", student)):
        if model is not None:
            warn_of_scaling(model, splits["train"].x, name)
    return splits


def check_options(pruning: Any, controls: Any, recipe: Recipe) -> None:
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
    for name in ("epochs", "batch_size"):
        require_count(name, getattr(recipe, name), smallest=1)
    require_count("seed", recipe.seed, smallest=0, largest=LARGEST_SEED)
    pruning.phases(recipe.epochs)
    check_share(recipe.student_loss_weight)
    SoftTargets(recipe.temperature)  # says if it is out of range


def check_labels_alone(
    recipe: Recipe, budget: Budget | None, controls: Sequence[str]
) -> None:
    """Checks what stands beside a teacher that is not there.

    Args:
        recipe: How every student is trained.
        budget: Of the student.
        controls: Names of the students to compare with.

    Raises:
        ValueError: If a teacher would be needed, or two controls be one.
    """
    if recipe.student_loss_weight < 1:
        raise ValueError(
            "`student_loss_weight` must be 1 where teacher=None: the labels "
            "alone teach. Received: student_loss_weight="
            f"{recipe.student_loss_weight}. Give 1; or a teacher; or 'self', "
            "the student itself, trained without a penalty."
        )
    if budget is not None and budget.reference == "teacher":
        raise ValueError(
            "`reference` must be 'student' or an accuracy where teacher=None. "
            "Received: reference='teacher'. Leave it out, or give a teacher."
        )
    if {"same_size", "same_size_labels"} <= {*controls}:
        raise ValueError(
            "`controls` must have one of 'same_size' and 'same_size_labels' "
            "where teacher=None: without a teacher they are the same. "
            f"Received: {list(controls)}. Leave one out."
        )


def with_budget(pruning: DynamicPruning, budget: Any) -> DynamicPruning:
    """Returns the callback with a budget; the given one is left as it is.

    Raises:
        ValueError: If it is no budget, or the callback has one already.
    """
    if budget is None:
        return pruning
    if pruning.budget is not None:
        raise ValueError(
            "`budget` must be given once. Received it and "
            "pruning=DynamicPruning(budget=...). Leave one out."
        )
    return pruning.for_another_run(budget)


def is_relative_to_student(budget: Budget | None) -> TypeGuard[Budget]:
    """Says whether a budget counts from what the unpruned student reaches."""
    return (
        budget is not None
        and budget.max_accuracy_drop is not None
        and budget.reference == "student"
    )
