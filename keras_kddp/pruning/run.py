"""One run of dynamic pruning: all that lives from its first epoch on."""

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from keras_kddp.distillation.distiller import Distiller
from keras_kddp.distillation.loss_guard import is_lost, lost
from keras_kddp.distillation.student_state import Snapshot
from keras_kddp.layers.penalized_models import (
    prepared_layers,
    set_penalty_strength,
)
from keras_kddp.profiling import count_parameters
from keras_kddp.pruning.activity import UnitActivity, activity_on
from keras_kddp.pruning.budget.accuracy_guard import AccuracyGuard
from keras_kddp.pruning.budget.round_widths import round_widths
from keras_kddp.pruning.certificates import (
    Certificate,
    Removal,
    certify,
)
from keras_kddp.pruning.collapse_guard import CollapseGuard
from keras_kddp.pruning.inactive_units import find_inactive, live_units
from keras_kddp.pruning.notices import RunWarnings
from keras_kddp.pruning.planned_removal import PlannedRemoval
from keras_kddp.pruning.preflight import PruningPreflight, check_pruning
from keras_kddp.pruning.ranking import group_scores
from keras_kddp.pruning.removal_size import RemovalSize
from keras_kddp.pruning.schedule import Phases
from keras_kddp.pruning.settings import PruningSettings
from keras_kddp.pruning.taken_back import put_averages_in_place
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.plan import RemovalPlan

Activity = dict[str, UnitActivity]
"""Layer name -> statistics of its units."""


class PruningRun:
    """The state of dynamic pruning from `on_train_begin` to `on_train_end`.

    Args:
        settings: What `DynamicPruning` was told.
        phases: Of the run.
        distiller: Inside its `fit`.
        preflight: What was checked before; None, or one of another student:
            it is checked here.

    Attributes:
        settings: What `DynamicPruning` is told, as it is now.
        removals: What was removed so far.
        is_good: The student of the last epoch is finite and accurate enough.

    Raises:
        ValueError: If the run cannot be pruned as it is asked for.
        ExportError: If an int8 file that is needed cannot be made.
        ImportError: If tflite-micro is needed and not installed.
    """

    def __init__(
        self,
        settings: PruningSettings,
        phases: Phases,
        distiller: Distiller,
        preflight: PruningPreflight | None = None,
    ) -> None:
        """Checks the run, before anything is changed."""
        self.removals: list[Removal] = []
        self.is_good = True
        self.settings = settings
        self._distiller = distiller
        self._phases = phases
        graph = self._graph()
        if preflight is None or not preflight.is_for(settings, graph):
            preflight = check_pruning(settings, graph, distiller.fit_inputs)
        self._observed = preflight.observed
        # Says now, not in the middle, if the criterion or the data are bad.
        group_scores(graph, self._activity(graph), settings.criterion)
        self._guard = None
        budget = settings.budget
        self._collapse = CollapseGuard(distiller)
        if budget is not None and budget.max_accuracy_drop is not None:
            self._guard = AccuracyGuard(budget, distiller)
        self._warnings = RunWarnings(phases, distiller)
        self._warnings.warn_of_vain_charges(graph)
        quota = preflight.quota
        if quota is not None and quota.warn_if_nothing_leaves():
            self._warnings.is_moot = True
        self._size = RemovalSize(phases, quota, self._guard, self._collapse)
        self._planned: PlannedRemoval | None = None
        self._last_good: Snapshot | None = None
        self._goes_back = False

    def checkpoint_state(self) -> dict[str, Any]:
        """Returns all that the rest of the run depends on."""
        return {
            "removals": [removal.as_dict() for removal in self.removals],
            "planned": self._planned and self._planned.as_dict(),
            "goes_back": self._goes_back,
            "size": self._size.checkpoint_state(),
            "guard": self._guard and self._guard.checkpoint_state(),
            "collapse": self._collapse.checkpoint_state(),
            "warnings": self._warnings.checkpoint_state(),
        }

    def restore_checkpoint_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where another run was, whose student is in place by now."""
        self.removals += map(Removal.from_dict, state["removals"])
        if state["planned"] is not None:
            self._planned = PlannedRemoval.from_dict(
                state["planned"], self._graph()
            )
        self._goes_back = state["goes_back"]
        self._size.restore_checkpoint_state(state["size"])
        if self._guard is not None:
            self._guard.restore_checkpoint_state(state["guard"])
        self._collapse.restore_checkpoint_state(state["collapse"])
        self._warnings.restore_checkpoint_state(
            state["warnings"], self.settings
        )

    def begin_epoch(self, epoch: int) -> None:
        """Removes what was planned and sets the strength of the epoch.

        Args:
            epoch: From 0.
        """
        self._warnings.begin_epoch(epoch)
        if self._goes_back:
            self._take_back(epoch)
        if self._planned is not None:
            self._remove(epoch, *self._planned)
            self._planned = None
        strength = self._phases.strength(epoch)
        set_penalty_strength(self._distiller.student, strength)
        # With the optimizer: a moving average would bring a NaN back.
        self._last_good = self._distiller.snapshot()

    def end_epoch(self, epoch: int, logs: dict[str, Any]) -> None:
        """Observes the student, writes its size and plans a removal.

        Args:
            epoch: From 0.
            logs: Of the epoch; `units`, `live_units`, `parameters` and
                `penalty_strength` are added.
        """
        self._warnings.end_epoch(epoch)
        is_good = not is_lost(logs, self._distiller.student)
        if not is_good:
            self._stop(epoch)
        graph = self._graph()
        activity = self._activity(graph)
        if is_good:
            self._warnings.note_activity(epoch, activity)
        logs["units"] = sum(len(graph.units[name]) for name in activity)
        logs["live_units"] = live_units(activity)
        logs["parameters"] = count_parameters(graph.model)
        logs["penalty_strength"] = self._phases.strength(epoch)
        if self._guard is not None and is_good:
            is_kept = self._guard.keeps(self._distiller, logs)
            may_go_back = self._phases.checks_after(epoch)
            self._goes_back = is_kept is False and may_go_back
            is_good = bool(is_kept)
        elif is_good:
            # A size that was asked for has to be reached by later removals.
            is_due = self._size.quota and not self._phases.removes_after(
                epoch + 1
            )
            is_good = not self._collapse.goes_back(epoch, logs, not is_due)
            self._goes_back = not is_good
        self.is_good = is_good
        if is_good and self._phases.removes_after(epoch):
            self._planned = self._plan_removal(epoch, graph, activity)

    def finish(self) -> None:
        """Goes back where accuracy was lost; warns where a limit was missed."""
        if self._goes_back and self._guard is None:
            self._take_back(self._phases.epochs)
            put_averages_in_place(self._distiller)
        is_explained = self._warnings.was_taken_back and self._guard is None
        if self._guard is not None:
            if self._guard.finish(self._distiller):
                self._note_taken_back(self._phases.epochs)
            is_explained |= self._guard.warn_if_never_good()
        if self._size.quota is not None:
            is_explained |= self._size.quota.warn_if_missed(self._graph())
        self._warnings.finish(
            is_empty=not self.removals, is_explained=is_explained
        )

    def _plan_removal(
        self, epoch: int, graph: ChannelGraph, activity: Activity
    ) -> PlannedRemoval | None:
        """Returns what leaves after an epoch; None for too little."""
        found = find_inactive(graph, activity, self.settings)
        ranking = found.ranking
        count = self._size.groups_to_remove(epoch, ranking, found.inactive)
        is_last = self._phases.is_last_removal(epoch)
        multiple = self.settings.unit_multiple
        if multiple > 1 and is_last and (count or self.removals):
            leaving = round_widths(
                ranking, count, multiple=multiple, data=self._observed
            )
            ranking, count = ranking.led_by(leaving), len(leaving)
        units = ranking.units(count)
        least = self.settings.minimum_change * live_units(activity)
        is_enough = sum(map(len, units.values())) >= least
        is_planned = bool(units) and (is_enough or is_last)
        self._warnings.note_found(found, self.settings, is_planned=is_planned)
        if not is_planned:
            return None
        plan = ranking.plan(count)
        evidence = certify(
            graph, units, activity, plan.constants, self.settings.input_range
        )
        return PlannedRemoval(plan, evidence)

    def _graph(self) -> ChannelGraph:
        return ChannelGraph(
            self._distiller.student, self._distiller.pinned_layers
        )

    def _activity(self, graph: ChannelGraph) -> Activity:
        layers = prepared_layers(graph)
        return activity_on(graph, self._observed, layers=layers)

    def _remove(
        self,
        epoch: int,
        plan: RemovalPlan,
        certificates: tuple[Certificate, ...],
    ) -> None:
        before = count_parameters(self._distiller.student)
        graph = self._graph()
        units = {n: len(graph.units[n]) for n in prepared_layers(graph)}
        if self._guard is None:
            self._collapse.note_removal(self._distiller)
        with self._warnings.each_once():
            self._distiller.replace_student(plan)
        if self._guard is not None:
            self._show(self._guard.note_removal())
        removal = Removal(
            epoch=epoch,
            units_before=units,
            units_after={
                name: count - len(plan.removed.get(name, ()))
                for name, count in units.items()
            },
            parameters_before=before,
            parameters_after=count_parameters(self._distiller.student),
            certificates=certificates,
        )
        self.removals.append(removal)
        self._show(str(removal))
        self._warnings.note_removal(removal)

    def _take_back(self, epoch: int) -> None:
        self._goes_back = False
        guard = self._guard or self._collapse
        if guard.take_removal_back(self._distiller):
            self._note_taken_back(epoch)

    def _note_taken_back(self, epoch: int) -> None:
        self._warnings.was_taken_back = True
        count = count_parameters(self._distiller.student)
        while self.removals and self.removals[-1].parameters_after < count:
            self.removals.pop()
        self._show(
            f"Epoch {epoch + 1}: took a removal back, parameters {count:,}: "
            "the accuracy fell too far"
        )

    def _show(self, line: str) -> None:
        if line and self.settings.verbose:
            sys.stdout.write(f"\n{line}\n")

    def _stop(self, epoch: int) -> None:
        """Stops with the student as it was when the epoch began."""
        if self._last_good is not None:
            self._distiller.restore(self._last_good)
        self._distiller.stop_training = True
        self._warnings.is_moot = True
        outcome = (
            "training stops, and the student is as it was when that epoch began"
        )
        warnings.warn(lost(f"{epoch + 1}", outcome), stacklevel=3)
