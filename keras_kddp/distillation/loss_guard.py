"""Ends a training whose loss is lost, with the model as it was before."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.distillation.fit_checks import spoilt_weight
from keras_kddp.distillation.student_state import (
    Snapshot,
    built_state,
    put_back,
)


class LossGuard(keras.callbacks.Callback):
    """Stops when a loss or weight is NaN or infinite, and warns.

    The model is then what it was when that epoch began: a copy of its values
    and of the optimizer's is kept for that. A validation loss alone that is
    NaN or infinite is warned of once, and the training goes on.

    Args:
        trained: What is trained, in words.
        is_fatal: Raise instead: nothing can be made of the model.
    """

    guards_loss = True

    def __init__(self, trained: str = "", *, is_fatal: bool = False) -> None:
        super().__init__()
        self._trained = trained
        self._is_fatal = is_fatal
        self._others: Sequence[Any] = ()
        self._snapshot: Snapshot | None = None
        self._has_told = False

    def leaving_to(self, callbacks: Sequence[Any]) -> "LossGuard":
        """Leaves the loss of training to another callback, if one guards it.

        Args:
            callbacks: The others of the run.
        """
        self._others = [x for x in callbacks if _guards(x)]
        return self

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets the run before."""
        self._snapshot, self._has_told = None, False

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Keeps what to go back to."""
        if not self._others:
            self._snapshot = _snapshot(self.model)

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Looks at the losses, and at the weights."""
        logs = logs or {}
        if not self._others:
            if is_lost(logs, _student_of(self.model)):
                self._stop(epoch)
                return
        if math.isfinite(logs.get("val_loss", 0.0)) or self._has_told:
            return
        if not math.isfinite(logs.get("loss", 0.0)):
            return
        self._has_told = True
        warnings.warn(
            f"The validation loss is NaN or infinite in epoch {epoch + 1}"
            f"{self._of()}, and that of the training is not: training goes on, "
            "and what watches val_loss sees nothing. Look for NaN or very "
            "large numbers in the validation data.",
            stacklevel=2,
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Lets go of the copy."""
        self._snapshot = None

    def _stop(self, epoch: int) -> None:
        state = "as the last step left it"
        if self._snapshot is not None:
            put_back(self.model, self._snapshot)
            state = "as it was when that epoch began"
        self.model.stop_training = True
        place = f"{epoch + 1}{self._of()}"
        if self._is_fatal:
            raise RuntimeError(lost(place, "nothing can be made of it"))
        warnings.warn(
            lost(place, f"training stops, and the model is {state}"),
            stacklevel=3,
        )

    def _of(self) -> str:
        return f" of {self._trained}" if self._trained else ""


def is_lost(logs: Mapping[str, Any], student: keras.Model) -> bool:
    """Says whether the loss of an epoch, or a weight, is NaN or infinite.

    Args:
        logs: Of the epoch.
        student: As the epoch left it.
    """
    is_finite = math.isfinite(logs.get("loss", 0.0))
    return not is_finite or bool(spoilt_weight(student))


def lost(epoch: str, outcome: str) -> str:
    """Returns what is said of a loss that is lost, and what helps.

    Args:
        epoch: Its number from 1, and of what.
        outcome: What comes of it.
    """
    return (
        f"The loss or a weight became NaN or infinite in epoch {epoch}: "
        f"{outcome}. Lower the learning rate or the penalties (`l1`), or look "
        "for NaN in the data and in the teacher's outputs."
    )


def with_loss_guard(callbacks: Any) -> Any:
    """Returns the callbacks of a run with a guard of its loss among them.

    It comes behind those that change the model when an epoch begins, and
    before those that want to be last.

    Args:
        callbacks: A list of them, or None; a `CallbackList` stays as it is.
    """
    if callbacks is None:
        return [LossGuard()]
    if not isinstance(callbacks, (list, tuple)):
        return callbacks
    if any(isinstance(x, LossGuard) for x in callbacks):
        return callbacks
    last = [x for x in callbacks if getattr(x, "runs_last", False)]
    others = [x for x in callbacks if not getattr(x, "runs_last", False)]
    return [*others, LossGuard().leaving_to(callbacks), *last]


def _guards(callback: Any) -> bool:
    is_other = not isinstance(callback, LossGuard)
    return is_other and bool(getattr(callback, "guards_loss", False))


def _student_of(model: Any) -> keras.Model:
    return getattr(model, "student", model)


def _snapshot(model: Any) -> Snapshot | None:
    """Returns what a model has now; None: it is not built yet."""
    student = _student_of(model)
    layers = [student, *_compat.all_layers(student)]
    if not all(layer.built for layer in layers):
        return None
    return Snapshot.of(built_state(model))
