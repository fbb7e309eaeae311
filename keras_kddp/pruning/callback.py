"""Callbacks that cannot stand beside one that removes units."""

import math
import sys
import warnings
from itertools import takewhile
from typing import Any

import keras
import numpy as np

from keras_kddp.arguments import checked_range, require_count, require_share
from keras_kddp.distillation.distiller import Distiller
from keras_kddp.layers.penalized_models import (
    check_penalties,
    prepared_layers,
    set_penalty_strength,
)
from keras_kddp.model_io import to_numpy
from keras_kddp.profiling import count_parameters
from keras_kddp.pruning.activity import UnitActivity, activity_on, sampled
from keras_kddp.pruning.budget.accuracy_guard import AccuracyGuard
from keras_kddp.pruning.budget.budget import Budget, checked_budget
from keras_kddp.pruning.budget.quota import FallingQuota
from keras_kddp.pruning.budget.round_widths import check_measurable, rounded
from keras_kddp.pruning.certificates import (
    Certificate,
    Removal,
    certify,
    constant_units,
)
from keras_kddp.pruning.criteria import Criterion, resolved_criterion
from keras_kddp.pruning.ranking import group_scores, removal_order, units_of
from keras_kddp.pruning.schedule import Phases, planned_phases
from keras_kddp.surgery.folding import Constants, of_leaving_units
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.plan import RemovalPlan, plan_on


def check_callbacks(callbacks: Any, pruning: type) -> None:
    """Refuses callbacks that bring weights of another size back.

    Args:
        callbacks: Of a run that removes units.
        pruning: The kind that removes them; one of it may stand there.

    Raises:
        ValueError: If there is another, or one that keeps weights.
    """
    listed = getattr(callbacks, "callbacks", callbacks) or []
    listed = listed if isinstance(listed, (list, tuple)) else [listed]
    if sum(isinstance(x, pruning) for x in listed) > 1:
        raise ValueError(
            "One DynamicPruning must be in `callbacks`. Received several: they "
            "would remove the same units. Leave one."
        )
    for callback in listed:
        name, mend = type(callback).__name__, ""
        if isinstance(callback, keras.callbacks.EarlyStopping):
            if callback.restore_best_weights:
                mend = "Set restore_best_weights=False"
        elif isinstance(callback, keras.callbacks.BackupAndRestore):
            mend = "Leave it out"
        elif isinstance(callback, keras.callbacks.ModelCheckpoint):
            if callback.save_weights_only:
                mend = "Set save_weights_only=False"
        if mend:
            raise ValueError(
                f"`{name}` keeps weights of the student as it is now and "
                "cannot put them into a smaller one after a removal. Received "
                f"it beside DynamicPruning. {mend}."
            )


class DynamicPruning(keras.callbacks.Callback):
    """Moves the penalty's strength and removes the units that fall inactive.

    At the end of an epoch the activity of the student's penalized units is
    observed and scored; those at or below the threshold leave physically when
    the next epoch begins, so that the logs of an epoch describe the student
    that every other callback sees. From the first ramp epoch to the last hold
    epoch; never while fine-tuning (KDDP; Şener & Akbaş 2022,
    doi 10.29109/gujsc.1141648, with a warm-up and a ramp of our own).

    Writes `units`, `live_units` (those that ever fired), `parameters` and
    `penalty_strength` of the epoch's student into the epoch's `logs`. Keeps a
    copy of the student and of the optimizer's state as each epoch began, to go
    back to when the loss becomes NaN. After the run the strength stays what it
    was in the last epoch: 0 where that was one of fine-tuning.

    Args:
        criterion: `"contribution"`, `"never_active"` (the paper's),
            `"mean_activity"`, `"zero_fraction"` (1 - APoZ), or a function
            `(UnitActivity, outgoing_norm) -> scores` in [0, 1].
        threshold: Scores at or below it are inactive, in [0, 1). None: 0.02
            for contribution, 0.01 for mean_activity and zero_fraction, 0
            otherwise.
        warmup_epochs: Epochs without penalty, first. None: 1/8 of the run.
        ramp_epochs: Epochs in which the strength rises. None: 1/6.
        finetune_epochs: Epochs without penalty, last. None: 1/3.
        data: Inputs to observe the activity on: arrays, or an iterable of
            batches as `keras_kddp.collect_activity` takes. None: the arrays
            given to `fit`; a `tf.data.Dataset`, `PyDataset` or generator
            given to `fit` cannot be read twice, so `data` is required then.
        samples: At most so many evenly spaced rows of them are observed.
        minimum_units: So many units stay in every layer, at least 1.
        minimum_change: No removal of fewer than this share of the live units
            (each costs a retrace), except the last.
        budget: What the student must fit at the end. The lowest-scored units
            leave, by the same factor from the first removal to the last, until
            it does, and no more; units of several layers are ranked by their
            share of their layer's scores. None: the method finds its own size.
        unit_multiple: At the last removal the units of a layer beyond a
            multiple of it leave too, at most a tenth of them, where the int8
            file then is a twentieth smaller or, measured on LiteRT here,
            faster. Needs the TensorFlow backend; the same seed may then end
            otherwise.
        input_range: (smallest, largest) number that an input may have: units
            that no such input can fire are then certified as provably dead.
        verbose: 1 prints a line a removal.

    Attributes:
        removals: What was removed in the last run, as `Removal` tuples.
        runs_first: `Distiller.fit` calls it before the other callbacks, so
            that loggers behind it see its columns.

    Raises:
        ValueError: At construction and at the start of training, if an
            argument is out of range or does not fit the run.
        ExportError: At the start of training, if the int8 file of a budget or
            of `unit_multiple` cannot be made.
        ImportError: Likewise, if a `max_arena_bytes` needs tflite-micro.

    Example:
        ```python
        student = keras_kddp.prepare(student)
        distiller = keras_kddp.Distiller(teacher, student)
        distiller.compile(loss=loss, metrics=["accuracy"])
        distiller.fit(x, y, epochs=24, callbacks=[keras_kddp.DynamicPruning()])
        ```
    """

    runs_first = True

    def __init__(
        self,
        criterion: str | Criterion = "contribution",
        threshold: float | None = None,
        *,
        warmup_epochs: int | None = None,
        ramp_epochs: int | None = None,
        finetune_epochs: int | None = None,
        data: Any = None,
        samples: int = 4096,
        minimum_units: int = 1,
        minimum_change: float = 0.05,
        budget: Budget | None = None,
        unit_multiple: int = 1,
        input_range: tuple[float, float] | None = None,
        verbose: int = 0,
    ) -> None:
        """Checks and keeps the arguments."""
        super().__init__()
        self.criterion, default = resolved_criterion(criterion)
        self.threshold = default if threshold is None else threshold
        self.warmup_epochs = warmup_epochs
        self.ramp_epochs = ramp_epochs
        self.finetune_epochs = finetune_epochs
        self.data = data
        self.samples = samples
        self.minimum_units = minimum_units
        self.minimum_change = minimum_change
        self.budget = checked_budget(budget)
        self.unit_multiple = unit_multiple
        self.input_range = checked_range(input_range)
        self.verbose = verbose
        self.removals: list[Removal] = []
        self._observed: Any = None
        self._plan: RemovalPlan | None = None
        self._certificates: tuple[Certificate, ...] = ()
        self._last_good: Any = None
        self._quota: FallingQuota | None = None
        self._guard: AccuracyGuard | None = None
        self._goes_back = False
        for name in ("threshold", "minimum_change"):
            require_share(name, getattr(self, name))
        for name in ("samples", "minimum_units", "unit_multiple"):
            require_count(name, getattr(self, name), smallest=1)
        for name in ("warmup_epochs", "ramp_epochs", "finetune_epochs"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name), smallest=0)

    def phases(self, epochs: int) -> Phases:
        """Returns the phases of a run of so many epochs.

        Raises:
            ValueError: If they do not fit into it.
        """
        return planned_phases(
            epochs,
            self.warmup_epochs,
            self.ramp_epochs,
            self.finetune_epochs,
        )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks that the run can be pruned, before anything is changed."""
        if not isinstance(self.model, Distiller):
            raise ValueError(
                "`DynamicPruning` must be a callback of "
                "`keras_kddp.Distiller.fit`. Received: the fit of a "
                f"{type(self.model).__name__}. Wrap teacher and student in a "
                "Distiller."
            )
        check_penalties(self.model.student)
        graph = self._graph()
        if not prepared_layers(graph):
            raise ValueError(
                "The student must have a penalized layer whose units can be "
                f"removed. Received '{graph.model.name}' without any. Call "
                "`student = keras_kddp.prepare(student)` first."
            )
        check_callbacks(self.model.fit_callbacks, DynamicPruning)
        self._phases = self.phases(self.params["epochs"])
        self._observed = self._observed_data(graph)
        # Says now, not in the middle, if the criterion or the data are bad.
        scores = self._scores(graph, self._activity(graph), {})
        self._start_budget(graph, list(scores))
        if self.unit_multiple > 1:
            check_measurable(graph.model, self._observed)
        self._plan = None
        self._goes_back = False
        self.removals = []
        self.model.build_optimizer()

    def _start_budget(self, graph: ChannelGraph, roots: list[int]) -> None:
        self._quota = self._guard = None
        if self.budget is None:
            return
        if self.budget.max_accuracy_drop is not None:
            self._guard = AccuracyGuard(self.budget, self.model)
        if self.budget.sizes():
            self._quota = FallingQuota(
                self.budget, graph, roots, self.minimum_units, self._observed
            )

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Removes what was planned and sets the strength of the epoch."""
        if self._goes_back and self._guard is not None:
            if self._guard.take_removal_back(self.model):
                self._note_taken_back(epoch)
            self._goes_back = False
        if self._plan is not None:
            self._apply(epoch, self._plan)
            self._plan = None
        student = self.model.student
        set_penalty_strength(student, self._phases.strength(epoch))
        # With the optimizer: a moving average would bring a NaN back.
        self._last_good = self.model.snapshot()

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Observes the student, writes its size and plans a removal."""
        logs = {} if logs is None else logs
        is_good = self._is_finite(logs)
        if not is_good:
            self._stop(epoch)
        graph = self._graph()
        activity = self._activity(graph)
        logs["units"] = sum(len(graph.units[name]) for name in activity)
        logs["live_units"] = sum(int(x.live.sum()) for x in activity.values())
        logs["parameters"] = count_parameters(graph.model)
        logs["penalty_strength"] = self._phases.strength(epoch)
        if self._guard is not None and is_good:
            is_kept = self._guard.keeps(self.model, logs)
            may_go_back = self._phases.checks_after(epoch)
            self._goes_back = is_kept is False and may_go_back
            is_good = bool(is_kept)
        if is_good and self._phases.removes_after(epoch):
            self._plan_removal(epoch, graph, activity)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Goes back where accuracy was lost; lets go of the observed data."""
        if self._guard is not None:
            if self._guard.finish(self.model):
                self._note_taken_back(self._phases.epochs)
        if self._quota is not None:
            self._quota.warn_if_missed(self._graph())
        self._observed = self._last_good = self._guard = self._quota = None
        self._plan, self._certificates = None, ()

    def _plan_removal(
        self,
        epoch: int,
        graph: ChannelGraph,
        activity: dict[str, UnitActivity],
    ) -> None:
        constants = constant_units(activity)
        scores = self._scores(graph, activity, constants)
        ranking = scores
        if self.budget is not None:
            ranking = self._scores(graph, activity, constants, balanced=True)
        order = removal_order(
            graph,
            ranking,
            dict.fromkeys(graph.units, self.minimum_units),
            constants,
        )
        are_inactive = (scores[root] <= self.threshold for root in order)
        inactive = sum(takewhile(bool, are_inactive))
        count = self._removal_count(epoch, graph, order, inactive, constants)
        leaving = order[:count]
        is_last = self._phases.is_last_removal(epoch)
        if self.unit_multiple > 1 and is_last and (leaving or self.removals):
            leaving = rounded(
                graph,
                order,
                count,
                multiple=self.unit_multiple,
                data=self._observed,
                constants=constants,
            )
        units = units_of(graph, leaving)
        live = sum(int(x.live.sum()) for x in activity.values())
        is_enough = sum(map(len, units.values())) >= self.minimum_change * live
        if units and (is_enough or is_last):
            folded = of_leaving_units(constants, units)
            self._plan = plan_on(graph, units, constants=folded)
            self._certificates = certify(
                graph, units, activity, folded, self.input_range
            )

    def _removal_count(
        self,
        epoch: int,
        graph: ChannelGraph,
        order: list[int],
        inactive: int,
        constants: Constants,
    ) -> int:
        """Returns how many of the groups in the order leave."""
        if self._quota is not None:
            inactive = self._quota.count(
                graph,
                order,
                share=self._phases.removal_share(epoch),
                inactive=inactive,
                constants=constants,
            )
        if self._guard is None:
            return inactive
        most = math.ceil(self._guard.share * len(order))
        if self._quota is None:
            return most
        is_last = self._phases.is_last_removal(epoch)
        return inactive if is_last else min(inactive, most)

    def _graph(self) -> ChannelGraph:
        return ChannelGraph(self.model.student, self.model.pinned_layers)

    def _scores(
        self,
        graph: ChannelGraph,
        activity: dict[str, UnitActivity],
        constants: Constants,
        *,
        balanced: bool = False,
    ) -> dict[int, float]:
        return group_scores(
            graph, activity, self.criterion, constants, balanced=balanced
        )

    def _activity(self, graph: ChannelGraph) -> dict[str, UnitActivity]:
        layers = prepared_layers(graph)
        return activity_on(graph, self._observed, layers=layers)

    def _observed_data(self, graph: ChannelGraph) -> Any:
        data = self.model.fit_inputs if self.data is None else self.data
        if data is None:
            raise ValueError(
                "`data` must be given when `fit` gets a tf.data.Dataset, a "
                "PyDataset or a generator: it cannot be read a second time. "
                "Received: data=None. Pass some inputs, "
                "DynamicPruning(data=x[:4096])."
            )
        return sampled(graph, data, self.samples)

    def _apply(self, epoch: int, plan: RemovalPlan) -> None:
        before = count_parameters(self.model.student)
        graph = self._graph()
        units = {n: len(graph.units[n]) for n in prepared_layers(graph)}
        self.model.replace_student(plan)
        if self._guard is not None:
            self._guard.note_removal()
        removal = Removal(
            epoch=epoch,
            units_before=units,
            units_after={
                name: count - len(plan.removed.get(name, ()))
                for name, count in units.items()
            },
            parameters_before=before,
            parameters_after=count_parameters(self.model.student),
            certificates=self._certificates,
        )
        self.removals.append(removal)
        if self.verbose:
            sys.stdout.write(f"\n{removal}\n")

    def _is_finite(self, logs: dict[str, Any]) -> bool:
        if not math.isfinite(logs.get("loss", 0.0)):
            return False
        return all(
            np.isfinite(to_numpy(weight)).all()
            for weight in self.model.student.weights
        )

    def _note_taken_back(self, epoch: int) -> None:
        """Notes that the last removals were taken back."""
        count = count_parameters(self.model.student)
        while self.removals and self.removals[-1].parameters_after < count:
            self.removals.pop()
        if self.verbose:
            sys.stdout.write(
                f"\nEpoch {epoch + 1}: took a removal back, parameters "
                f"{count:,}: the accuracy fell too far\n"
            )

    def _stop(self, epoch: int) -> None:
        """Stops with the student as it was when the epoch began."""
        self.model.restore(self._last_good)
        self.model.stop_training = True
        warnings.warn(
            f"The loss or a weight became NaN or infinite in epoch {epoch + 1}:"
            " training stops, and the student is as it was when that epoch "
            "began. Lower the learning rate or `l1`, or look for NaN in the "
            "data and in the teacher's outputs.",
            stacklevel=2,
        )
