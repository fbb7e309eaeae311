"""The trainings of a run, each kept as it finishes and where it stands."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_kddp.atomic_files import write_text
from keras_kddp.progress import EpochProgress

Callbacks = Sequence[keras.callbacks.Callback]
Logs = dict[str, list[float]]
"""Name -> one number per epoch."""


@dataclass(frozen=True)
class Phase:
    """One training of a run: the teacher's, the student's, a control's.

    Attributes:
        folder: Of its checkpoints; None: nothing is kept.
        clock: Goes on while it trains; None: nobody counts.
    """

    folder: Path | None = None
    clock: "Clock | None" = None

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
        """
        if self.clock is not None:
            callbacks = [*callbacks, _Ticks(self.clock)]
        if self.folder is None:
            return fit(callbacks)
        finished = restore_finished(model, self.folder)
        if finished is None:
            checkpoint = ResumableCheckpoint(self.folder, keep=True)
            history = fit([*callbacks, checkpoint])
            checkpoint.finish()
            return history
        return finished


NOT_KEPT = Phase()
"""The training of a run that leaves nothing."""


class Clock:
    """Seconds that were spent on a run over all its starts.

    Args:
        file: Where they are kept; None: nowhere.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Goes on from what is kept."""
        self._file = file
        self._before = 0.0
        if file is not None and file.is_file():
            self._before = _seconds_in(file)
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Those of this start and of all before."""
        return self._before + time.monotonic() - self._started

    def note(self) -> None:
        """Keeps the seconds for a later start."""
        if self._file is not None:
            write_text(self._file, f"{self.seconds:.3f}\n")


def _seconds_in(file: Path) -> float:
    """Returns the seconds in a file; 0 for one that holds none."""
    try:
        found = float(file.read_text("utf-8"))
    except ValueError:
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
