"""The callback that ends a run with its best student, whatever its shape."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_kddp.data.batches import Batches
from keras_kddp.distillation.checkpoints.beside import RunsLast
from keras_kddp.distillation.distiller import Distiller
from keras_kddp.distillation.student_state import Snapshot
from keras_kddp.layers.penalized_models import (
    penalty_layers,
    set_penalty_strength,
)
from keras_kddp.model_io import to_numpy
from keras_kddp.pruning.activity import sampled
from keras_kddp.pruning.budget.budget import Budget, checked_budget
from keras_kddp.pruning.budget.forecast import MEASURED
from keras_kddp.pruning.budget.student_sizes import student_sizes
from keras_kddp.pruning.callback import DynamicPruning
from keras_kddp.surgery.graph import ChannelGraph

_RISING = ("acc", "accuracy", "auc", "precision", "recall", "f1_score")
_FALLING = ("loss", "error", "mse", "mae", "units", "parameters")
_NEAR = 1 / 50  # an int8 file of other weights differs by less


class BestStudent(RunsLast):
    """Puts the best student of a run in place when it ends.

    What `EarlyStopping(restore_best_weights=True)` does for models that keep
    their shape: student and optimizer are as they were at the end of the best
    epoch, with the widths of that epoch. The logs stay those of the run. Works
    in any order of callbacks, in `keras_kddp.Distiller.fit`.

    Beside a `DynamicPruning` only what is asked of its `budget` here counts:
    without `budget`, the best may be an unpruned student. Its
    `max_accuracy_drop` goes first: epochs that exceed it, or were not
    validated, do not count. `DynamicPruning.removals` are then those of the
    student that is put in place. With an optimizer of `use_ema=True` the
    weights are those that were validated: averages beside a SwapEMAWeights,
    else the weights of the last step.

    Args:
        monitor: Column of the logs.
        mode: `"min"`, `"max"`, or `"auto"`: by the end of the column's name.
        budget: The best that fits these limits of size counts. Sizes are
            measured as `DynamicPruning` measures them; a `max_accuracy_drop`
            in it is left to that.

    Attributes:
        best: The best value so far, or of the last run; None without one.
        best_epoch: Its epoch, from 0; None without one.

    Raises:
        ValueError: If an argument is out of range; when training begins, if
            it is not that of a Distiller, there is another BestStudent, or
            no inputs to measure an int8 file with.
        ExportError: When training begins, if the int8 file that `budget` limits
            cannot be made.

    Example:
        ```python
        best = keras_kddp.BestStudent(
            "val_accuracy", budget=keras_kddp.Budget(max_parameters=50_000)
        )
        distiller.fit(..., callbacks=[keras_kddp.DynamicPruning(), best])
        ```
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: str = "auto",
        budget: Budget | None = None,
    ) -> None:
        """Checks and keeps the arguments."""
        super().__init__()
        self.monitor = monitor
        self.mode = mode
        self.budget = checked_budget(budget)
        self._sign = _sign(monitor, mode)
        if budget is not None and not budget.sizes():
            raise ValueError(
                "`budget` must limit a size. Received a max_accuracy_drop "
                "alone. Give it to DynamicPruning, and a size here."
            )
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._snapshot: Snapshot | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks that sizes can be measured, and forgets the run before."""
        if not isinstance(self.model, Distiller):
            raise ValueError(
                "`BestStudent` must be a callback of `keras_kddp.Distiller."
                f"fit`. Received: the fit of a {type(self.model).__name__}. "
                "There, EarlyStopping(restore_best_weights=True) does it."
            )
        if sum(isinstance(x, BestStudent) for x in self.beside) > 1:
            raise ValueError(
                "One BestStudent must be in `callbacks`. Received several: "
                "each would put a student of its own in place. Leave one."
            )
        self.best = self.best_epoch = self._snapshot = None
        self._was_seen = False
        self._measured: tuple[Any, dict[str, float]] = (None, {})
        self._data = self._inputs()
        self._fits()  # says now if a file cannot be made

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Keeps the student if it is the best so far."""
        logs = logs or {}
        value = self._value(logs)
        if value is None or not math.isfinite(value + logs.get("loss", 0.0)):
            return
        self._was_seen = True
        is_better = self.best is None or (value - self.best) * self._sign > 0
        is_good = all(x.is_good for x in self._pruning())
        if is_better and is_good and self._fits():
            self.best, self.best_epoch = value, epoch
            self._snapshot = self.model.snapshot()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the best student in place."""
        snapshot, self._snapshot = self._snapshot, None
        self._measured = (None, {})
        if snapshot is None:
            self._warn()
            return
        strengths = [
            float(to_numpy(layer.strength))
            for layer in penalty_layers(self.model.student)
        ]
        self.model.restore(snapshot)
        if strengths:
            set_penalty_strength(self.model.student, strengths[0])
        if self._judges_averages:
            self.model.optimizer.finalize_variable_values(
                self.model.trainable_variables
            )
        for pruning in self._pruning():
            while _is_later(pruning.removals, self.best_epoch):
                pruning.removals.pop()

    def checkpoint_settings(self) -> dict[str, Any]:
        """Returns what another run must have to go on where one was."""
        return {
            "monitor": self.monitor,
            "mode": self.mode,
            "budget": self.budget,
        }

    def checkpoint_state(self) -> dict[str, Any]:
        """Returns the best student so far."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "snapshot": self._snapshot,
            "was_seen": self._was_seen,
        }

    def restore_checkpoint_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where another run was."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._snapshot = state["snapshot"]
        self._was_seen = state["was_seen"]

    def _pruning(self) -> list[DynamicPruning]:
        return [x for x in self.beside if isinstance(x, DynamicPruning)]

    @property
    def _judges_averages(self) -> bool:
        """Whether the epochs were validated with averages not yet in place."""
        return any(
            isinstance(x, keras.callbacks.SwapEMAWeights)
            and not x.swap_on_epoch
            for x in self.beside
        )

    def _value(self, logs: Mapping[str, Any]) -> float | None:
        """Returns the monitored value; None for an epoch without it.

        Raises:
            ValueError: If the run has no such column.
        """
        if self.monitor in logs:
            return float(logs[self.monitor])
        is_validated = any(name.startswith("val_") for name in logs)
        if not self.monitor.startswith("val_") or is_validated:
            raise ValueError(
                f"`monitor` must be a column of the logs: {sorted(logs)}. "
                f"Received: monitor={self.monitor!r}."
            )
        return None

    def _inputs(self) -> Batches | None:
        """Returns inputs to measure with; None where none are needed.

        Raises:
            ValueError: If there are none.
        """
        sizes = {} if self.budget is None else self.budget.sizes()
        if not MEASURED.keys() & sizes.keys():
            return None
        given = [x.data for x in self._pruning() if x.data is not None]
        data = given[0] if given else self.model.fit_inputs
        if data is None:
            raise ValueError(
                "`budget` limits an int8 file, which takes inputs to make. "
                "Received a fit without arrays. Pass some to "
                "DynamicPruning(data=x[:4096]), or limit max_parameters."
            )
        return sampled(ChannelGraph(self.model.student), data, 8)

    def _fits(self) -> bool:
        """Says whether the present student fits the budget."""
        if self.budget is None:
            return True
        limits = self.budget.sizes()
        student, sizes = self._measured
        is_near = any(
            measure in MEASURED and abs(sizes[measure] / limit - 1) < _NEAR
            for measure, limit in limits.items()
            if sizes
        )
        if student is not self.model.student or is_near:
            sizes = student_sizes(self.model.student, limits, self._data)
            self._measured = self.model.student, sizes
        return all(sizes[measure] <= x for measure, x in limits.items())

    def _warn(self) -> None:
        if not self._was_seen:
            reason = f"No epoch had a finite {self.monitor!r}"
            mend = "Pass validation_data, or monitor another column"
        elif self.budget is not None:
            reason = f"No student of this run fits {self.budget}"
            mend = "Train longer, or raise the limit"
        else:
            reason = "No student of this run kept the `max_accuracy_drop`"
            mend = "Train longer, or allow more"
        warnings.warn(
            f"{reason}: the last student stays. {mend}.", stacklevel=4
        )


def _sign(monitor: Any, mode: Any) -> int:
    """Returns 1 where larger values are better, -1 where smaller ones are.

    Raises:
        ValueError: If it cannot be told.
    """
    if mode not in ("auto", "min", "max"):
        raise ValueError(
            f"`mode` must be 'auto', 'min' or 'max'. Received: mode={mode!r}."
        )
    if not isinstance(monitor, str) or not monitor:
        raise ValueError(
            "`monitor` must be the name of a column of the logs, such as "
            f"'val_loss'. Received: monitor={monitor!r}."
        )
    if mode == "max" or (mode == "auto" and monitor.endswith(_RISING)):
        return 1
    if mode == "min" or monitor.endswith(_FALLING):
        return -1
    raise ValueError(
        "`mode` must be 'min' or 'max' for a column that does not say which "
        f"is better. Received: monitor={monitor!r}, mode='auto'."
    )


def _is_later(removals: list[Any], epoch: int | None) -> bool:
    """Says whether the last removal came after an epoch."""
    return bool(removals) and epoch is not None and removals[-1].epoch > epoch
