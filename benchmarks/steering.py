"""Two other ways to reach a size, for the ablations."""

from typing import Any

from keras_kddp.layers.penalized_models import set_penalty_strength
from keras_kddp.pruning.activity import UnitActivity
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.budget.planned_sizes import PlannedSizes
from keras_kddp.pruning.callback import DynamicPruning
from keras_kddp.surgery.graph import ChannelGraph


class PruningAtTheEnd(DynamicPruning):
    """Removes everything at once, with the last removal."""

    def _plan_removal(
        self,
        epoch: int,
        graph: ChannelGraph,
        activity: dict[str, UnitActivity],
    ) -> None:
        if self._phases.is_last_removal(epoch):
            super()._plan_removal(epoch, graph, activity)


class PenaltySteering(DynamicPruning):
    """Moves the penalty until the threshold alone reaches a size.

    After each epoch the strength is multiplied by the square root of how many
    times too large the student is for the size it should have by then.

    Args:
        goal: Its `max_parameters` is aimed at.
        **arguments: Of `DynamicPruning`.
    """

    def __init__(self, goal: Budget, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._goal = goal.max_parameters or 0
        self._factor = 1.0
        self._first_size = 0.0

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Sets the steered strength."""
        super().on_epoch_begin(epoch, logs)
        strength = self._phases.strength(epoch) * self._factor
        set_penalty_strength(self.model.student, strength)

    def _plan_removal(
        self,
        epoch: int,
        graph: ChannelGraph,
        activity: dict[str, UnitActivity],
    ) -> None:
        super()._plan_removal(epoch, graph, activity)
        gone = graph.roots < 0
        size = PlannedSizes(graph).without(gone)["parameters"]
        self._first_size = self._first_size or size
        share = self._phases.removal_share(epoch)
        wanted = self._first_size + share * (self._goal - self._first_size)
        self._factor *= min(max((size / wanted) ** 0.5, 0.5), 2.0)
