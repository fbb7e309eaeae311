"""The trainings of a run, each kept as it finishes and where it stands."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import keras

from keras_kddp.atomic_files import write_text
from keras_kddp.distillation.checkpoints.files import reading_values
from keras_kddp.distillation.checkpoints.finished import restore_finished
from keras_kddp.distillation.checkpoints.resumable import ResumableCheckpoint
from keras_kddp.progress import EpochProgress
from keras_kddp.pruning.callback import DynamicPruning
from keras_kddp.pruning.certificates import Removal

Callbacks = Sequence[keras.callbacks.Callback]
Logs = dict[str, list[float]]
"""Name -> one number per epoch."""


@dataclass(frozen=True)
class Stage:
    """One training of a run: the teacher's, the student's, a control's.

    Attributes:
        folder: Of its checkpoints; None: nothing is kept.
        clock: Goes on while it trains; None: nobody counts.
        is_finished: It is only read.
    """

    folder: Path | None = None
    clock: "Clock | None" = None
    is_finished: bool = False

    def trained(
        self,
        model: keras.Model,
        fit: Callable[[Callbacks], Logs],
        callbacks: Callbacks,
    ) -> Logs:
        """Trains a model, in place, from where a former start has left it.

        Args:
            model: Compiled, as it is before its first epoch.
            fit: Calls the model's `fit` with callbacks.
            callbacks: Those of the training.

        Returns:
            The logs of all epochs.

        Raises:
            ValueError: If it is only read, and damaged.
        """
        if self.clock is not None:
            callbacks = [*callbacks, _Ticks(self.clock)]
        if self.folder is None:
            return fit(callbacks)
        finished = restore_finished(model, self.folder)
        if finished is None and self.is_finished:
            raise ValueError(
                f"'{self.folder}' must hold a training that is finished. "
                "Received a run directory that was changed. Give "
                "overwrite=True to make the run anew."
            )
        if finished is None:
            checkpoint = ResumableCheckpoint(self.folder, keep=True)
            history = fit([*callbacks, checkpoint])
            checkpoint.finish()
            return history
        for callback in callbacks:
            if isinstance(callback, DynamicPruning):
                with reading_values(self.folder):
                    known = finished.callbacks[type(callback).__name__]
                    removals = [*map(Removal.from_dict, known["removals"])]
                callback.removals = removals
            elif isinstance(callback, EpochProgress):
                callback.show_kept()
        return finished.history


NOT_KEPT = Stage()
"""The training of a run that leaves nothing."""


class Clock:
    """Seconds that were spent on a run over all its starts.

    It goes as long as it is entered, and keeps what it counted.

    Args:
        file: Where they are kept; None: nowhere.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Goes on from what is kept."""
        self._file = file
        self._counted = 0.0 if file is None else _seconds_in(file)
        self._noted = self._counted
        self._since: float | None = None

    def __enter__(self) -> Self:
        """Begins to count."""
        self._since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """Counts no more."""
        self._counted, self._since = self.seconds, None

    @property
    def seconds(self) -> float:
        """Those of this start and of all before."""
        if self._since is None:
            return self._counted
        return self._counted + time.monotonic() - self._since

    def note(self) -> None:
        """Keeps the seconds for a later start, once a second at most."""
        if self._file is not None and self.seconds >= self._noted + 1:
            self._noted = self.seconds
            write_text(self._file, f"{self._noted:.3f}\n")


@dataclass(frozen=True)
class Stages:
    """The trainings of one run, in their order.

    Attributes:
        folder: Has one of each; None: nothing is kept.
        clock: Counts the seconds of all of them.
        is_finished: They are only read.
    """

    folder: Path | None = None
    clock: Clock = field(default_factory=Clock)
    is_finished: bool = False

    def stage(self, name: str) -> Stage:
        """Returns one training.

        Args:
            name: Of its folder.
        """
        folder = None if self.folder is None else self.folder / name
        return Stage(folder, self.clock, self.is_finished)


def _seconds_in(file: Path) -> float:
    """Returns the seconds in a file; 0 where it is not there or damaged."""
    try:
        found = float(file.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return 0.0
    return found if 0 <= found < float("inf") else 0.0


class _Ticks(keras.callbacks.Callback):
    """Keeps the seconds at the end of every epoch.

    Args:
        clock: Counts them.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._clock.note()
