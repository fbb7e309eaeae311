"""The callback that removes inactive units of the student inside `fit`."""

from dataclasses import fields, replace
from typing import Any

import keras

from keras_kddp._compat.memory import free_old_graphs
from keras_kddp.arguments import checked_range
from keras_kddp.data.batches import Batches
from keras_kddp.distillation.distiller import Distiller
from keras_kddp.layers.penalized_models import check_penalties, prepared_layers
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.certificates import Removal
from keras_kddp.pruning.criteria import Criterion, resolved_criterion
from keras_kddp.pruning.notices import listed
from keras_kddp.pruning.preflight import PruningPreflight
from keras_kddp.pruning.refused_callbacks import check_callbacks
from keras_kddp.pruning.run import PruningRun
from keras_kddp.pruning.schedule import Phases
from keras_kddp.pruning.settings import PruningSettings
from keras_kddp.pruning.vain_charges import find_vain_charges
from keras_kddp.surgery.graph import ChannelGraph

_SETTINGS = fields(PruningSettings)


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
    was in the last epoch: 0 where that was one of fine-tuning. A removal that
    the student does not survive is taken back, with a warning, and fewer units
    leave at once from then on; not the last one of a size that was asked for.

    Warns, once each, of layers that are charged for units which can never
    leave, of a run that may end before its first removal, of layers that fall
    to `minimum_units`, lose nine in ten units at once or fire no more, of
    inactive units that have to stay, and of a run in which nothing left.

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
            batches as `keras_kddp.collect_activity` takes, packed by
            `keras_kddp.TeacherCache` or not. None: the arrays given to `fit`;
            a `tf.data.Dataset`, `PyDataset` or generator given to `fit` cannot
            be read twice, so `data` is required then.
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
        verbose: 1 prints one line per removal.

    Attributes:
        removals: What was removed in the last run, as `Removal` tuples;
            without what was taken back.
        preflight: What `keras_kddp.pruning.preflight.check_pruning` found
            before, for students of these widths; None: each run checks anew.
        runs_first: `Distiller.fit` calls it before the other callbacks, so
            that loggers behind it see its columns.
        guards_loss: It stops the run when the loss is lost, no other does.

    Raises:
        ValueError: At construction and at the start of training, if an
            argument is out of range or does not fit the run.
        ExportError: At the start of training, if the int8 file of a budget or
            of `unit_multiple` cannot be made.
        ImportError: At the start of training, if a `max_arena_bytes` needs
            tflite-micro.

    Example:
        ```python
        student = keras_kddp.prepare(student)
        distiller = keras_kddp.Distiller(teacher, student)
        distiller.compile(loss=loss, metrics=["accuracy"])
        distiller.fit(x, y, epochs=24, callbacks=[keras_kddp.DynamicPruning()])
        ```
    """

    runs_first = True
    guards_loss = True

    def __init__(
        self,
        criterion: str | Criterion = "contribution",
        threshold: float | None = None,
        *,
        warmup_epochs: int | None = None,
        ramp_epochs: int | None = None,
        finetune_epochs: int | None = None,
        data: Batches | None = None,
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
        self.budget = budget
        self.unit_multiple = unit_multiple
        self.input_range = checked_range(input_range)
        self.verbose = verbose
        self.removals: list[Removal] = []
        self.preflight: PruningPreflight | None = None
        self._run: PruningRun | None = None
        self.settings()  # says now what is out of range

    def settings(self) -> PruningSettings:
        """Returns the arguments as they are now.

        Raises:
            ValueError: If one is out of range.
        """
        return PruningSettings(
            **{field.name: getattr(self, field.name) for field in _SETTINGS}
        )

    def for_another_run(self, budget: Budget | None = None) -> "DynamicPruning":
        """Returns a callback with these arguments that no run has used.

        Args:
            budget: Stands in the place of the callback's own; None: that.

        Raises:
            ValueError: If it is no budget.
        """
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)  # those of a subclass too
        other.budget = self.budget if budget is None else budget
        other.removals, other.preflight, other._run = [], None, None
        other.settings()  # says now what is out of range
        return other

    def checkpoint_settings(self) -> PruningSettings:
        """Returns what another run must have to go on where one was."""
        return replace(self.settings(), verbose=0)

    def checkpoint_state(self) -> dict[str, Any]:
        """Returns what it knows of the run; after it, what was removed."""
        if self._run is not None:
            return self._run.checkpoint_state()
        return {"removals": [removal.as_dict() for removal in self.removals]}

    def restore_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Goes on where another run was, whose student is in place by now."""
        if self._run is not None:
            self._run.restore_checkpoint_state(state)

    @property
    def is_good(self) -> bool:
        """Inside `fit`, whether the last epoch's student may be the result.

        It is finite, and keeps within a `max_accuracy_drop`.
        """
        return self._run is None or self._run.is_good

    def phases(self, epochs: int) -> Phases:
        """Returns the phases of a run of so many epochs.

        Raises:
            ValueError: If they do not fit into it.
        """
        return self.settings().phases(epochs)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks that the run can be pruned, before anything is changed."""
        self._run = None
        distiller = self.model
        if not isinstance(distiller, Distiller):
            raise ValueError(
                "`DynamicPruning` must be a callback of "
                "`keras_kddp.Distiller.fit`. Received: the fit of a "
                f"{type(distiller).__name__}. Wrap teacher and student in a "
                "Distiller."
            )
        check_penalties(distiller.student)
        _check_prepared(distiller)
        check_callbacks(distiller.fit_callbacks, DynamicPruning)
        distiller.check_trainable()
        self._run = PruningRun(
            self.settings(),
            self.phases(_epochs(self.params)),
            distiller,
            self.preflight,
        )
        self.removals = self._run.removals
        distiller.build_optimizer()
        distiller.note_pruning(self)

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Removes what was planned and sets the strength of the epoch."""
        if self._run is not None:
            count = len(self.removals)
            self._run.begin_epoch(epoch)
            if len(self.removals) != count:
                free_old_graphs()

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Observes the student, writes its size and plans a removal."""
        if self._run is not None:
            self._run.settings = self.settings()  # others may have moved them
            self._run.end_epoch(epoch, {} if logs is None else logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Goes back where accuracy was lost; lets go of the run."""
        if self._run is not None:
            self._run.finish()
            self.model.note_pruning(None)
        self._run = None


def _epochs(params: Any) -> int:
    """Returns the length of a run, as the callbacks of `fit` know it."""
    epochs = (params or {}).get("epochs")
    if epochs is None:
        raise ValueError(
            "`callbacks` must say how many epochs there are. Received a "
            f"CallbackList of a class of its own whose params are {params}, "
            "without 'epochs'. Pass a list, or make it with epochs=..., as "
            "given to `fit`."
        )
    return int(epochs)


def _check_prepared(distiller: Distiller) -> None:
    graph = ChannelGraph(distiller.student, distiller.pinned_layers)
    if not prepared_layers(graph):
        vain = find_vain_charges(graph)
        raise ValueError(
            "The student must have a penalized layer whose units can be "
            f"removed. Received '{graph.model.name}' without any"
            + (f": {listed(vain)}" if vain else "")
            + ". Call `student = keras_kddp.prepare(student)` first."
        )
