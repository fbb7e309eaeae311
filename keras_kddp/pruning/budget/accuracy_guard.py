"""Keeps the accuracy of a shrinking student, and goes back where it fell."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.data.batches import Batches
from keras_kddp.distillation.distiller import Distiller
from keras_kddp.distillation.student_state import Snapshot
from keras_kddp.model_io import output_structure
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.budget.teacher_accuracy import teacher_accuracy
from keras_kddp.pruning.taken_back import take_back
from keras_kddp.surgery.optimizer_successors import optimizer_parts

_FIRST_SHARE = 1 / 3


class AccuracyGuard:
    """Says after each epoch how much may leave, and keeps the last good one.

    While the validation accuracy keeps within `max_accuracy_drop` of the
    reference, a third of the units may leave per epoch. A removal that broke it
    is taken back, and the next ones are half as large.

    Args:
        budget: With a `max_accuracy_drop`.
        distiller: Inside its `fit`.

    Attributes:
        share: At most this share of the live units leaves at once.

    Raises:
        ValueError: If `fit` has no validation data or no accuracy among its
            metrics, or the teacher's accuracy is asked for and cannot be
            computed.
    """

    def __init__(self, budget: Budget, distiller: Distiller) -> None:
        self.share = _FIRST_SHARE
        self._drop = float(budget.max_accuracy_drop or 0.0)
        self._reference = -math.inf
        self._is_given = budget.reference != "student"
        self._good: Snapshot | None = None
        self._good_accuracy = -math.inf
        self._has_removed = False
        self._is_good = False
        self._was_judged = False
        if distiller.fit_validation is None:
            raise ValueError(
                "`max_accuracy_drop` needs validation data. Received: none. "
                "Pass fit(..., validation_data=(x_val, y_val))."
            )
        check_judgeable(budget, distiller.student, distiller.optimizer)
        _accuracy_column(f"val_{name}" for name in _metric_names(distiller))
        if budget.reference == "teacher":
            _check_repeatable(distiller.fit_validation)
            self._reference = teacher_accuracy(distiller)
        elif self._is_given:
            self._reference = float(budget.reference)

    def keeps(self, distiller: Distiller, logs: dict[str, Any]) -> bool | None:
        """Says whether the student of an epoch is accurate enough.

        One that is becomes the one to go back to, unless that has the same
        size and was better.

        Args:
            distiller: With the student, at the end of the epoch.
            logs: Of the epoch.

        Returns:
            None for an epoch without validation.

        Raises:
            ValueError: If it has no accuracy.
        """
        if not any(name.startswith("val_") for name in logs):
            return None
        self._was_judged = True
        accuracy = float(logs[_accuracy_column(logs)])
        if not (self._is_given or self._has_removed):
            self._reference = max(self._reference, accuracy)
        self._is_good = accuracy >= self._reference - self._drop
        if not self._is_good:
            return False
        is_same = self._good and self._good.student is distiller.student
        if not is_same or accuracy >= self._good_accuracy:
            self._good = distiller.snapshot()
            self._good_accuracy = accuracy
        return True

    def checkpoint_state(self) -> dict[str, Any]:
        """Returns the reference, what was judged, and the last good student."""
        return {
            "share": self.share,
            "reference": self._reference,
            "good": self._good,
            "good_accuracy": self._good_accuracy,
            "has_removed": self._has_removed,
            "is_good": self._is_good,
            "was_judged": self._was_judged,
        }

    def restore_checkpoint_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where another guard was."""
        self.share = state["share"]
        self._reference = state["reference"]
        self._good = state["good"]
        self._good_accuracy = state["good_accuracy"]
        self._has_removed = state["has_removed"]
        self._is_good = state["is_good"]
        self._was_judged = state["was_judged"]

    def note_removal(self) -> str:
        """Notes that units left: the reference is known from here on.

        Returns:
            A line that tells of it, "" where it was known before.
        """
        is_new = not (self._is_given or self._has_removed)
        self._has_removed = True
        self._is_good = False  # until it was judged
        if not is_new:
            return ""
        return (
            f"max_accuracy_drop={self._drop} counts from {self._reference:.4f},"
            " the best validation accuracy before the first removal; a longer "
            "unpruned run may be better: Budget(reference=its accuracy)"
        )

    def take_removal_back(self, distiller: Distiller) -> bool:
        """Puts the last good student back if units have left since.

        The clock of its optimizer, and with it the learning rate, goes on.

        Returns:
            Whether there was something to take back.
        """
        if self._good is None or self._good.student is distiller.student:
            return False
        take_back(distiller, self._good)
        self.share /= 2
        return True

    def finish(self, distiller: Distiller) -> bool:
        """Puts the last good student back if the last one is not good.

        Returns:
            Whether a removal was taken back.
        """
        if self._good is None or self._is_good or not self._has_removed:
            return False
        is_other = self.take_removal_back(distiller)
        if not is_other:  # it was better before
            distiller.restore(self._good)
        return is_other

    def warn_if_never_good(self) -> bool:
        """Warns if no student kept the accuracy; says whether."""
        if self._good is not None or not self._was_judged:
            return False
        warnings.warn(
            "No student of this run kept the validation accuracy within "
            f"max_accuracy_drop={self._drop} of {self._reference:.4f}, not "
            "even the unpruned one. Train longer or allow a larger drop.",
            stacklevel=4,
        )
        return True


def check_judgeable(
    budget: Budget, student: keras.Model, optimizer: Any
) -> None:
    """Checks that a `max_accuracy_drop` can be kept, before any training.

    Raises:
        ValueError: If the student has several outputs, or the optimizer puts
            other weights in place at the end.
    """
    if budget.max_accuracy_drop is None:
        return
    outputs = len(keras.tree.flatten(output_structure(student)))
    if outputs > 1:
        raise ValueError(
            "`max_accuracy_drop` needs models of one output. Received: "
            f"{outputs} outputs. Limit the size instead, or judge by an output "
            "of its own: keras.Model(inputs, one_output)."
        )
    parts = [] if optimizer is None else optimizer_parts(optimizer)
    if any(getattr(part, "use_ema", False) for part in parts):
        raise ValueError(
            "`max_accuracy_drop` needs the weights that are judged to be "
            "those of the result. Received an optimizer with use_ema=True, "
            "which puts averages in their place at the end. Leave it out."
        )


def _check_repeatable(validation: Batches) -> None:
    if isinstance(validation, Iterator):
        raise ValueError(
            "`validation_data` must be arrays, or batches that can be "
            "run through again, beside reference='teacher'. Received: "
            f"{type(validation).__name__}. Pass arrays, "
            "or the teacher's accuracy as a number."
        )


def _metric_names(distiller: Distiller) -> list[str]:
    """Returns the names that a Distiller's metrics will have in the logs."""
    names = [x.name for x in distiller.metrics if x.name != "compile_metrics"]
    for given in _compat.given_metrics(distiller):
        name = given if isinstance(given, str) else getattr(given, "name", "")
        names.append(name or getattr(given, "__name__", ""))
    return names


def _accuracy_column(names: Iterable[str]) -> str:
    """Returns which of the columns of the logs is the accuracy.

    Raises:
        ValueError: If there is none, or several.
    """
    logged = [name for name in dict.fromkeys(names) if name.startswith("val_")]
    found = [
        name for name in logged if name.lower().endswith(("accuracy", "_acc"))
    ]
    for usual in ("val_accuracy", "val_acc"):
        if usual in found:
            return usual
    if len(found) != 1:
        raise ValueError(
            "`max_accuracy_drop` needs one accuracy on validation data in the "
            f"logs. Received: {found or logged}. Compile with "
            "metrics=['accuracy']."
        )
    return found[0]
