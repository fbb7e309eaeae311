"""What else is made of the student of a run: for reuse, and tuned for int8."""

import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_kddp.atomic_files import write_json
from keras_kddp.compression.model_sources import load_model
from keras_kddp.compression.run_directory import STUDENT, SUMMARY
from keras_kddp.data.datasets import Dataset
from keras_kddp.export import (
    TFMOTResult,
    finetune_with_tfmot,
    to_saved_model,
)
from keras_kddp.export.runtimes.description import write_description

_SCORES = {
    "kddp_accuracy": "student",
    "int8_accuracy": "int8 file",
    "teacher_accuracy": "teacher",
    "kd_accuracy": "unpruned student",
    "kd_same_size_accuracy": "same size from scratch",
}


_TAUGHT = ("batch_size", "temperature", "student_loss_weight")


def write_saved_model(
    student: keras.Model,
    directory: Path,
    summary: Mapping[str, Any],
    *,
    features: str | None = None,
    license_name: str | None = None,
    labels: list[str] | None = None,
) -> Path:
    """Writes the SavedModel of a run's student, with its card.

    Args:
        student: The student.
        directory: Of the run; the SavedModel is in "saved_model" or, without
            head, in "features".
        summary: What the run found.
        features: See `to_saved_model`.
        license_name: For the card.
        labels: Names of the classes, likewise.

    Returns:
        The folder of the SavedModel.

    Raises:
        ValueError: If `features` names no layer.
        OSError: If it cannot be written.
        ExportError: If the student cannot be traced.
    """
    job = summary.get("job", {})
    card: dict[str, Any] = {
        "description": "A compact student of a larger teacher, by knowledge "
        "distillation with dynamic pruning (Şener & Akbaş 2022, doi "
        "10.29109/gujsc.1141648).",
        "data": {"name": job.get("data", "unknown")}
        | dict(summary.get("split_sizes", {})),
        "accuracy" if features is None else "accuracy_of_the_whole": {
            name: f"{summary[key]:.2%}"
            for key, name in _SCORES.items()
            if key in summary
        },
        "pruning": {
            measure: {
                when: summary[f"{measure}_{when}"]
                for when in ("before", "after")
            }
            for measure in ("units", "parameters", "macs")
            if f"{measure}_before" in summary
        },
    }
    if "input_range" in summary:
        lowest, highest = summary["input_range"]
        card["input_range"] = {"lowest": lowest, "highest": highest}
    if labels is not None and features is None:
        card["labels"] = labels
    if license_name is not None:
        card["license"] = license_name
    target = directory / ("saved_model" if features is None else "features")
    return to_saved_model(student, target, features=features, card=card)


def write_quantized(
    student: keras.Model,
    directory: Path,
    summary: Mapping[str, Any],
    data: Dataset,
    *,
    epochs: int,
    metadata: Mapping[str, Any],
) -> TFMOTResult:
    """Fine-tunes a run's student for int8, into a run directory of its own.

    The teacher is the run's; without one the labels alone teach.

    Args:
        student: The student; it stays as it is.
        directory: Of the run; the result is in "qat".
        summary: What the run found.
        data: What the student was trained on.
        epochs: Of quantization-aware training.
        metadata: Entries for the file.

    Returns:
        The student with its new weights, and the file.

    Raises:
        ImportError: If TFMOT is not installed.
        ValueError: If TFMOT does not take the student.
        TFMOTError: If TFMOT fails.
    """
    job = dict(summary.get("job", {}))
    target = directory / "qat"
    options = {name: job[name] for name in _TAUGHT if name in job}
    teacher = _teacher(directory, job)
    target.mkdir(exist_ok=True)
    try:
        found = finetune_with_tfmot(
            student,
            data.train,
            target / "student_int8.tflite",
            teacher=teacher,
            epochs=epochs,
            seed=summary.get("seed", 0),
            metadata=metadata,
            **options,
        )
    except BaseException:
        with contextlib.suppress(OSError):  # it holds a former result
            target.rmdir()
        raise
    found.model.save(target / STUDENT)
    write_description(found.tflite.path)
    kept = {key: summary[key] for key in ("input_range",) if key in summary}
    content = {"history": found.history, "job": job, **kept}
    write_json(target / SUMMARY, content)
    return found


def _teacher(directory: Path, job: Mapping[str, Any]) -> keras.Model | None:
    for path in (directory / "teacher.keras", Path(job.get("teacher", ""))):
        if path.suffix == ".keras" and path.is_file():
            return load_model(str(path))
    warnings.warn(
        f"'{directory}' has no teacher, neither as teacher.keras nor as the "
        "file that it names: the labels alone teach.",
        stacklevel=3,
    )
    return None
