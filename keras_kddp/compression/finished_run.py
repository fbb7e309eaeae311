"""What a finished compression leaves in its run directory."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import keras

from keras_kddp.compression.results import Compression, RunFiles
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.data.input_range import input_range
from keras_kddp.data.splits import Split
from keras_kddp.export import (
    Agreement,
    ExportError,
    MicroArtifact,
    TFLiteArtifact,
    TFLMRuntime,
    to_microcontroller,
    to_tflite,
    verify,
)
from keras_kddp.export.runtimes.description import write_description
from keras_kddp.model_io import Arrays


def write_run(
    compression: Compression,
    directory: RunDirectory,
    calibration: Arrays,
    test: Split,
) -> Compression:
    """Writes a run directory and returns the compression with it.

    `student.keras` (plain), `before.keras` (the student as it started),
    `student_float32.tflite`, `student_int8.tflite`,
    each run on every runtime that is here over the whole test split, `micro`
    (a bundle for microcontrollers, where TFLM is here and runs the student),
    `removals.json` with the evidence for every unit that left, and
    `summary.json`.

    Args:
        compression: What was found.
        directory: Exists, empty.
        calibration: Inputs of the training, for int8.
        test: What the files are compared with Keras on.

    Returns:
        The compression, with `files`.

    Raises:
        OSError: If a file cannot be written.
        ExportError: If the student cannot be converted.
    """
    directory.write_student(compression.student)
    compression.start.save(directory.before_file)
    files = _write_files(compression.student, directory, calibration, test)
    compression = replace(compression, files=files.moved(directory.final_path))
    summary = replace(
        compression.run_summary(), input_range=input_range(calibration)
    )
    directory.write_removals(compression.removals)
    directory.write_summary(summary)
    return compression


def _write_files(
    student: keras.Model,
    directory: RunDirectory,
    calibration: Arrays,
    test: Split,
) -> RunFiles:
    """Writes what devices take, each compared with Keras."""
    float32 = to_tflite(student, directory.tflite_file("none"))
    int8 = to_tflite(
        student,
        directory.tflite_file("int8"),
        quantization="int8",
        calibration=calibration,
    )
    agreement = agreement_of(student, [float32, int8], test)
    for file in (float32, int8):
        write_description(file.path)
    micro = _bundle(student, directory, calibration)
    return RunFiles(directory.path, float32, int8, agreement, micro)


def agreement_of(
    student: keras.Model, files: Sequence[TFLiteArtifact], test: Split
) -> Agreement:
    """Returns how the files of a classifier agree with it.

    Args:
        student: Plain.
        files: Made of it.
        test: What they are compared on.
    """
    labels = keras.tree.flatten(test.y)
    only = labels[0] if len(labels) == 1 else None
    return verify(student, files, test.x, only, classes=True)


def _bundle(
    student: keras.Model, directory: RunDirectory, calibration: Arrays
) -> MicroArtifact | None:
    """Writes the bundle for microcontrollers, where TFLM runs the student."""
    if TFLMRuntime.absence() is not None:
        return None
    try:
        return to_microcontroller(student, directory.bundle(), calibration)
    except ExportError as error:
        warnings.warn(
            f"There is no bundle for microcontrollers: {error}", stacklevel=4
        )
        return None
