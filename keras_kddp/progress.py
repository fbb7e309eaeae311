"""What long work shows on a terminal while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)


@contextmanager
def epoch_bars(console: Console) -> Iterator[Progress]:
    """Shows one bar per training run, with its last numbers beside it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    is_live = console.is_terminal
    with Progress(*columns, console=console, disable=not is_live) as progress:
        yield progress


class EpochProgress(keras.callbacks.Callback):
    """Moves a bar at the end of every epoch.

    Args:
        progress: From `epoch_bars`.
        description: What is trained.
        epochs: Length of the run.
    """

    def __init__(
        self, progress: Progress, description: str, epochs: int
    ) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task(description, total=epochs, note="")

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Shows the validation accuracy and, while pruning, the units."""
        logs = logs or {}
        notes = []
        if "val_accuracy" in logs:
            notes.append(f"validation {logs['val_accuracy']:.1%}")
        if "units" in logs:
            notes.append(f"{logs['units']} units")
        self._progress.update(
            self._task, completed=epoch + 1, note=", ".join(notes)
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Prints a line where bars cannot move, as in a log file."""
        (task,) = (t for t in self._progress.tasks if t.id == self._task)
        self._print(f"{task.elapsed or 0:.0f} s", task.fields["note"])

    def show_kept(self) -> None:
        """Shows that all epochs were trained by a former start."""
        (task,) = (t for t in self._progress.tasks if t.id == self._task)
        self._progress.update(self._task, completed=task.total, note="kept")
        self._print("kept")

    def _print(self, *parts: str) -> None:
        console = self._progress.console
        if not console.is_terminal:
            (task,) = (t for t in self._progress.tasks if t.id == self._task)
            console.print(
                f"{task.description}: {', '.join(filter(None, parts))}"
            )
