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
    """Shows a bar a training run, with its last numbers beside it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
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
