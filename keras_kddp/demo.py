"""The whole walk on data that needs no download, with both controls."""

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_kddp.activity import collect_activity
from keras_kddp.callbacks import DynamicPruning
from keras_kddp.controls import (
    Recipe,
    accuracy,
    fresh,
    train_distilled,
    train_supervised,
)
from keras_kddp.datasets import Dataset, load_digits
from keras_kddp.export import Agreement, TFLiteArtifact, to_tflite, verify
from keras_kddp.models import digits_student, digits_teacher
from keras_kddp.preparation import prepare
from keras_kddp.profiling import count_parameters
from keras_kddp.progress import EpochProgress, epoch_bars

TEACHER = Recipe(epochs=40, batch_size=64, learning_rate=2e-3)
STUDENT = Recipe(epochs=80, batch_size=64, learning_rate=5e-3)
# Chosen on splits of the training data alone: a strong penalty, and more than
# half of the run to recover from it.
L1 = 2.0
FINETUNE_SHARE = 0.6


class Students(NamedTuple):
    """The models of one comparison, all plain Keras.

    Attributes:
        teacher: What they learn from.
        start: The student as it starts, untrained.
        kd: The start student, distilled without penalty.
        kddp: The start student, distilled with dynamic pruning.
        same_size: A new student of kddp's widths, distilled from scratch.
    """

    teacher: keras.Model
    start: keras.Model
    kd: keras.Model
    kddp: keras.Model
    same_size: keras.Model


def run_demo(
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    console: Console | None = None,
) -> dict[str, Any]:
    """Distils, prunes, exports and compares a student on handwritten digits.

    Leaves `teacher.keras`, `student.keras`, `student_float32.tflite` and
    `summary.json` in the directory.

    Args:
        directory: Made if it does not exist.
        seed: Of weights, shuffling and Dropout.
        console: Where progress and tables go; None: standard output.

    Returns:
        What `summary.json` holds. Accuracies are shares in [0, 1] on the test
        split, which chooses nothing.

    Raises:
        OSError: If the directory cannot be written to.
        RuntimeError: If the exported file disagrees with Keras.
    """
    started = time.monotonic()
    directory = writable_directory(directory)
    console = console or Console()
    data = load_digits()
    students = train_students(data, seed=seed, console=console)
    students.teacher.save(directory / "teacher.keras")
    students.kddp.save(directory / "student.keras")
    artifact = to_tflite(students.kddp, directory / "student_float32.tflite")
    agreement = verify(students.kddp, artifact, data.test.x, data.test.y)
    summary = {
        **_summary(students, data, artifact),
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
    }
    _write_json(directory / "summary.json", summary)
    console.print(_table(students, data, artifact, agreement))
    console.print(str(agreement), highlight=False)
    console.print(
        f"{summary['seconds']:.0f} seconds. The run is in {directory}."
    )
    if not agreement.passed:
        raise RuntimeError(
            "The exported file must compute what Keras computes. Received "
            f"outputs that differ:\n{agreement}"
        )
    return summary


def train_students(data: Dataset, *, seed: int, console: Console) -> Students:
    """Trains the teacher, the student and both controls.

    Args:
        data: Handwritten digits.
        seed: Of weights, shuffling and Dropout.
        console: Where progress goes.
    """
    with epoch_bars(console) as bars:

        def bar(description: str, recipe: Recipe) -> EpochProgress:
            return EpochProgress(bars, description, recipe.epochs)

        teacher = train_supervised(
            fresh(digits_teacher, seed),
            data,
            TEACHER,
            seed=seed,
            callbacks=[bar("teacher", TEACHER)],
        )
        distil = partial(
            train_distilled, teacher, data=data, recipe=STUDENT, seed=seed
        )
        kd, _ = distil(
            fresh(digits_student, seed),
            callbacks=[bar("student, no penalty", STUDENT)],
        )
        kddp, _ = distil(
            prepare(fresh(digits_student, seed), l1=L1),
            callbacks=[
                DynamicPruning(
                    finetune_epochs=round(FINETUNE_SHARE * STUDENT.epochs)
                ),
                bar("student, dynamic pruning", STUDENT),
            ],
        )
        units = kddp.get_layer("hidden").units
        same_size, _ = distil(
            fresh(partial(digits_student, units), seed),
            callbacks=[bar("same size from scratch", STUDENT)],
        )
    start = fresh(digits_student, seed)
    return Students(teacher, start, kd, kddp, same_size)


def writable_directory(directory: str | os.PathLike[str]) -> Path:
    """Returns a directory that was made and written to.

    Raises:
        OSError: If that fails.
    """
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f".writable-{os.getpid()}"
    probe.touch()
    probe.unlink()
    return path


def _summary(
    students: Students, data: Dataset, artifact: TFLiteArtifact
) -> dict[str, Any]:
    test = data.test
    return {
        "teacher_accuracy": accuracy(students.teacher, test),
        "kd_accuracy": accuracy(students.kd, test),
        "kd_same_size_accuracy": accuracy(students.same_size, test),
        "kddp_accuracy": accuracy(students.kddp, test),
        "units_before": students.start.get_layer("hidden").units,
        "units_after": students.kddp.get_layer("hidden").units,
        "parameters_before": count_parameters(students.start),
        "parameters_after": count_parameters(students.kddp),
        "tflite_float32_bytes": artifact.num_bytes,
        "split_sizes": data.split_sizes,
    }


def _table(
    students: Students,
    data: Dataset,
    artifact: TFLiteArtifact,
    agreement: Agreement,
) -> Table:
    table = Table(title=f"{data.name}: accuracy on {len(data.test.y)} images")
    table.add_column("model")
    for heading in ("units", "live", "parameters", "accuracy"):
        table.add_column(heading, justify="right")
    rows = {
        "teacher": students.teacher,
        "student, no penalty": students.kd,
        "same size from scratch": students.same_size,
        "student, dynamic pruning": students.kddp,
    }
    for name, model in rows.items():
        activity = collect_activity(model, data.train.x)
        table.add_row(
            name,
            f"{sum(len(unit.mean) for unit in activity.values()):,}",
            f"{sum(np.sum(unit.live) for unit in activity.values()):,}",
            f"{count_parameters(model):,}",
            f"{accuracy(model, data.test):.2%}",
        )
    table.add_row(
        f"  as .tflite, {artifact.num_bytes:,} bytes",
        *("", "", ""),
        f"{agreement.rows[0].accuracy:.2%}",
    )
    return table


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file that is complete or not there."""
    partial_file = path.with_suffix(".partial")
    partial_file.write_text(json.dumps(content, indent=2) + "\n")
    partial_file.replace(path)
