"""What a compression leaves on disk, and how it is found again."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_kddp.export import to_tflite, verify
from keras_kddp.input_range import input_range
from keras_kddp.results import Compression, RunFiles
from keras_kddp.splits import Split

SUMMARY = "summary.json"
STUDENT = "student.keras"


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


def write_run(
    compression: Compression,
    directory: Path,
    calibration: Any,
    test: Split,
) -> Compression:
    """Writes a run directory and returns the compression with it.

    `student.keras` (plain), `student_float32.tflite`, `student_int8.tflite`,
    each run on LiteRT over the whole test split, and `summary.json`.

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
    student.save(directory / STUDENT)
    float32 = to_tflite(student, directory / "student_float32.tflite")
    int8 = to_tflite(
        student,
        directory / "student_int8.tflite",
        quantization="int8",
        calibration=calibration,
    )
    labels = test.y if len(student.outputs) == 1 else None
    agreement = verify(student, [float32, int8], test.x, labels)
    files = RunFiles(directory, float32, int8, agreement)
    compression = replace(compression, files=files)
    summary = {
        **compression.summary(),
        "input_range": input_range(calibration),
    }
    _write_json(directory / SUMMARY, summary)
    return compression


def annotate_run(directory: Path, **entries: Any) -> None:
    """Adds entries to the summary of a run directory."""
    summary = json.loads((directory / SUMMARY).read_text())
    _write_json(directory / SUMMARY, {**summary, **entries})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file that is complete or not there."""
    partial_file = path.with_suffix(".partial")
    partial_file.write_text(json.dumps(content, indent=2) + "\n")
    partial_file.replace(path)


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
    try:
        summary = json.loads(found[1].read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"'{found[1]}' must be JSON. Received: {error}."
        ) from error
    return keras.models.load_model(found[0], compile=False), files, summary
