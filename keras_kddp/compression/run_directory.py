"""What a compression leaves on disk, and how it is found again."""

import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_kddp.atomic_files import write_json
from keras_kddp.compression.model_sources import model_file
from keras_kddp.compression.results import Compression, RunFiles
from keras_kddp.data.input_range import input_range
from keras_kddp.data.splits import Split
from keras_kddp.export import (
    ExportError,
    MicroArtifact,
    TFLMRuntime,
    to_microcontroller,
    to_tflite,
    verify,
)
from keras_kddp.export.micro.to_microcontroller import BUNDLE_FILES
from keras_kddp.export.runtimes.description import write_description
from keras_kddp.export.tflite.to_tflite import QUANTIZATIONS

SUMMARY = "summary.json"


STUDENT = "student.keras"


def write_run(
    compression: Compression,
    directory: Path,
    calibration: Any,
    test: Split,
) -> Compression:
    """Writes a run directory and returns the compression with it.

    `student.keras` (plain), `student_float32.tflite`, `student_int8.tflite`,
    each run on every runtime that is here over the whole test split, `micro`
    (a bundle for microcontrollers, where TFLM is here and runs the student),
    `removals.json` with the evidence for every unit that left, and
    `summary.json`.

    Args:
        compression: What was found.
        directory: Exists.
        calibration: Inputs of the training, for int8.
        test: What the files are compared with Keras on.

    Returns:
        The compression, with `files`.

    Raises:
        OSError: If a file cannot be written.
        ExportError: If the student cannot be converted.
    """
    student = compression.student
    _remove_files_of_another(directory)
    student.save(directory / STUDENT)
    float32 = to_tflite(student, directory / "student_float32.tflite")
    int8 = to_tflite(
        student,
        directory / "student_int8.tflite",
        quantization="int8",
        calibration=calibration,
    )
    labels = keras.tree.flatten(test.y)
    agreement = verify(
        student,
        [float32, int8],
        test.x,
        labels[0] if len(labels) == 1 else None,
    )
    for file in (float32, int8):
        write_description(file.path)
    micro = _bundle(student, directory / "micro", calibration)
    files = RunFiles(directory, float32, int8, agreement, micro)
    compression = replace(compression, files=files)
    summary = {
        **compression.summary(),
        "input_range": input_range(calibration),
    }
    write_json(directory / "removals.json", _removals(compression))
    write_json(directory / SUMMARY, summary)
    return compression


def _remove_files_of_another(directory: Path) -> None:
    """Removes what was exported from a student that was here before."""
    names = ("float32", *QUANTIZATIONS)
    files = [
        directory / f"student_{name}{suffix}"
        for name in names
        for suffix in (".tflite", ".json")
    ]
    for folder in ("micro", "micro_float32", "micro_int16x8"):
        files += [directory / folder / name for name in BUNDLE_FILES]
    for name in (STUDENT, SUMMARY, "student_int8.tflite", "student_int8.json"):
        files.append(directory / "qat" / name)
    for file in files:
        file.unlink(missing_ok=True)
    for name in ("saved_model", "features"):
        if (directory / name / "card.json").is_file():
            shutil.rmtree(directory / name)


def _bundle(
    student: keras.Model, directory: Path, calibration: Any
) -> MicroArtifact | None:
    if TFLMRuntime.absence() is not None:
        return None
    try:
        return to_microcontroller(student, directory, calibration)
    except ExportError as error:
        warnings.warn(
            f"There is no bundle for microcontrollers: {error}", stacklevel=3
        )
        return None


def _removals(compression: Compression) -> list[dict[str, Any]]:
    return [
        {
            **removal._asdict(),
            "certificates": [c.as_dict() for c in removal.certificates],
        }
        for removal in compression.removals
    ]


def annotate_run(directory: Path, **entries: Any) -> None:
    """Adds entries to the summary of a run directory."""
    summary = json.loads((directory / SUMMARY).read_text())
    write_json(directory / SUMMARY, {**summary, **entries})


def read_run(
    directory: str | os.PathLike[str],
) -> tuple[keras.Model, list[Path], dict[str, Any]]:
    """Returns what a run directory holds.

    Returns:
        The student, the paths of its .tflite files, and the summary.

    Raises:
        OSError: If one of them is missing.
        ValueError: If one is damaged.
    """
    path = Path(directory)
    files = sorted(path.glob("*.tflite"))
    found = [path / STUDENT, path / SUMMARY]
    if not files or not all(each.is_file() for each in found):
        raise FileNotFoundError(
            f"'{path}' must hold {STUDENT}, {SUMMARY} and .tflite files. "
            "Received a directory without. Name what `kddp compress --out` or "
            "`kddp demo --out` wrote."
        )
    return model_file(found[0]), files, _read_summary(found[1])


def _read_summary(path: Path) -> dict[str, Any]:
    """Returns a summary, in which what is read again has the right types."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"'{path}' must be JSON. Received: {error}."
        ) from error
    is_summary = (
        isinstance(summary, dict)
        and isinstance(summary.get("job", {}), dict)
        and isinstance(summary.get("job", {}).get("data", ""), str)
        and isinstance(summary.get("job", {}).get("student", ""), str)
        and _is_range(summary.get("input_range", [0, 1]))
    )
    if not is_summary:
        raise ValueError(
            f"'{path}' must be the summary of a run, a JSON object. Received: "
            f"{str(summary)[:200]}."
        )
    return summary


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(bound, (int, float)) for bound in value)
    )
