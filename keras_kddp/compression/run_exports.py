"""What else is made of the student of a run: for reuse, and tuned for int8."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_kddp.compression.choices import LABELS, SELF
from keras_kddp.compression.run_directory import Run, RunDirectory
from keras_kddp.compression.run_summary import RunSummary
from keras_kddp.compression.run_teacher import run_teacher
from keras_kddp.data.datasets import Dataset
from keras_kddp.export import (
    TFMOTResult,
    finetune_with_tfmot,
    to_saved_model,
)
from keras_kddp.export.keras2.tfmot_process import TFMOT_SECONDS
from keras_kddp.export.runtimes.description import write_description

_SCORES = {
    "kddp_accuracy": "student",
    "int8_accuracy": "int8 file",
    "teacher_accuracy": "teacher",
    "kd_accuracy": "unpruned student",
    "kd_same_size_accuracy": "same size from scratch",
}
_DESCRIPTIONS = {
    None: "A compact student of a larger teacher, by knowledge distillation "
    "with dynamic pruning",
    LABELS: "A compact student of labels alone, by dynamic pruning",
    SELF: "A compact student of itself as it was before pruning, by knowledge "
    "distillation with dynamic pruning",
}
_SOURCE = "(Şener & Akbaş 2022, doi 10.29109/gujsc.1141648)."
_TAUGHT = ("batch_size", "temperature", "student_loss_weight")


def write_saved_model(
    run: Run,
    directory: RunDirectory,
    *,
    features: str | None = None,
    license_name: str | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Writes the SavedModel of a run's student, with its card.

    Args:
        run: With the student and what the run found.
        directory: Of the run; the SavedModel is in "saved_model" or, without
            head, in "features".
        features: See `to_saved_model`.
        license_name: For the card.
        labels: Names of the classes, for the card.

    Returns:
        The folder of the SavedModel.

    Raises:
        ValueError: If `features` names no layer.
        OSError: If it cannot be written.
        ExportError: If the student cannot be traced.
    """
    scored = "accuracy" if features is None else "accuracy_of_the_whole"
    taught_by = run.summary.taught_by
    if run.summary.of_job("student_loss_weight") == 1:
        taught_by = LABELS  # whoever was there to listen to
    said = _DESCRIPTIONS.get(taught_by, _DESCRIPTIONS[None])
    card: dict[str, Any] = {
        "description": f"{said} {_SOURCE}",
        "data": {"name": run.summary.of_job("data", "unknown")}
        | dict(run.summary.split_sizes or {}),
        scored: _scores(run.summary),
        "pruning": _sizes(run.summary),
    }
    if run.summary.data_notes is not None:
        card["data"]["notes"] = list(run.summary.data_notes)
    if run.summary.input_range is not None:
        lowest, highest = run.summary.input_range
        card["input_range"] = {"lowest": lowest, "highest": highest}
    if labels is not None and features is None:
        card["labels"] = labels
    if license_name is not None:
        card["license"] = license_name
    with directory.changing(run) as copy:
        target = copy.saved_model(features)
        to_saved_model(run.student, target, features=features, card=card)
    return directory.saved_model(features)


def _scores(summary: RunSummary) -> dict[str, str]:
    """Returns the accuracies that there are, by who reached them."""
    found = {name: getattr(summary, key) for key, name in _SCORES.items()}
    if summary.taught_by == SELF:
        found["teacher, the student itself"] = found.pop("teacher")
    return {
        name: f"{accuracy:.2%}"
        for name, accuracy in found.items()
        if accuracy is not None
    }


def _sizes(summary: RunSummary) -> dict[str, dict[str, int]]:
    """Returns the sizes that there are, before and after."""
    found = {
        measure: {
            when: getattr(summary, f"{measure}_{when}")
            for when in ("before", "after")
        }
        for measure in ("units", "parameters", "macs")
    }
    return {
        m: sizes for m, sizes in found.items() if None not in sizes.values()
    }


def write_quantization_aware(
    run: Run,
    directory: RunDirectory,
    data: Dataset,
    *,
    epochs: int,
    metadata: Mapping[str, Any],
    time_limit: float = TFMOT_SECONDS,
) -> TFMOTResult:
    """Fine-tunes a run's student for int8, into a run directory of its own.

    The teacher is the run's, see `run_teacher`; without one the labels alone
    teach.

    Args:
        run: With the student, which stays as it is, and what the run found.
        directory: Of the run; the result is in "qat".
        data: What the student was trained on.
        epochs: Of quantization-aware training.
        metadata: Entries for the file.
        time_limit: Seconds, see `finetune_with_tfmot`; fewer than usual are
            as many as usual.

    Returns:
        The student with its new weights, and the file.

    Raises:
        ImportError: If TFMOT is not installed.
        ValueError: If TFMOT does not take the student, or what stands for the
            teacher is another one.
        TFMOTError: If TFMOT fails.
    """
    summary, job = run.summary, dict(run.summary.job or {})
    teacher = run_teacher(directory, summary)
    with directory.changing(run) as copy:
        tuned = copy.quantization_aware
        with tuned.writing(overwrite=True) as unfinished:
            target = unfinished.directory
            found = finetune_with_tfmot(
                run.student,
                data.train,
                target.tflite_file("int8"),
                teacher=teacher,
                epochs=epochs,
                seed=0 if summary.seed is None else summary.seed,
                metadata=metadata,
                time_limit=max(time_limit, TFMOT_SECONDS),
                **{name: job[name] for name in _TAUGHT if name in job},
            )
            target.write_student(found.model)
            write_description(found.tflite.path)
            target.write_summary(
                RunSummary(
                    version=summary.version,  # its data keep their meaning
                    history=found.history,
                    job=job,
                    input_range=summary.input_range,
                    teacher_sha256=summary.teacher_sha256,
                    taught_by=summary.taught_by,
                )
            )
    path = directory.quantization_aware.tflite_file("int8")
    return replace(found, tflite=replace(found.tflite, path=path))
