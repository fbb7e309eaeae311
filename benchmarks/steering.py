"""Two other ways to reach a size, for the ablations."""

import math
from typing import Any

import keras

from keras_kddp.layers.penalized_models import set_penalty_strength
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.callback import DynamicPruning
from keras_kddp.pruning.schedule import Phases


class OneRemoval(Phases):
    """Phases of which the last removal is the only one."""

    def removes_after(self, epoch: int) -> bool:
        """Says whether a removal may be planned at the end of an epoch."""
        is_early = super().removes_after(epoch + 1)
        return super().removes_after(epoch) and not is_early


class PruningAtTheEnd(DynamicPruning):
    """Removes everything at once, with the last removal."""

    def phases(self, epochs: int) -> Phases:
        """Returns the phases of a run of so many epochs."""
        return OneRemoval(*super().phases(epochs))


class PenaltySteering(keras.callbacks.Callback):
    """Moves the penalty until the threshold alone reaches a size.

    After each epoch the strength is multiplied by the square root of how many
    times too large the student is for the size it should have by then. It
    stands behind `DynamicPruning`, whose logs it reads.

    Args:
        goal: Its `max_parameters` is aimed at.
        phases: Of the run.
    """

    def __init__(self, goal: Budget, phases: Phases) -> None:
        super().__init__()
        self._goal = goal.max_parameters or 0
        self._phases = phases
        self._factor = 1.0
        self._first_size = 0.0

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Sets the steered strength."""
        strength = self._phases.strength(epoch) * self._factor
        set_penalty_strength(self.model.student, strength)

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Compares the student with the size it should have."""
        logs = logs or {}
        if not self._phases.removes_after(epoch):
            return
        if not math.isfinite(logs["loss"]):
            return
        size = logs["parameters"]
        self._first_size = self._first_size or size
        share = self._phases.removal_share(epoch)
        wanted = self._first_size + share * (self._goal - self._first_size)
        self._factor *= min(max((size / wanted) ** 0.5, 0.5), 2.0)
