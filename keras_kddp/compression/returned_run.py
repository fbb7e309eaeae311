"""A finished run, given back without training or writing anything."""

from dataclasses import replace
from pathlib import Path

from keras_kddp.compression.finished_run import agreement_of
from keras_kddp.compression.results import Compression, RunFiles
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.compression.run_summary import read_summary
from keras_kddp.data.splits import Split
from keras_kddp.export import MicroArtifact, to_microcontroller
from keras_kddp.export.tflite.artifact import artifact_of
from keras_kddp.export.workers.guard import temporary_folder
from keras_kddp.model_io import Arrays


def with_files(
    compression: Compression,
    directory: RunDirectory,
    calibration: Arrays,
    test: Split,
) -> Compression:
    """Returns a compression with the files that it has written before.

    Args:
        compression: What was found.
        directory: Of the finished run; only read.
        calibration: Inputs of the training, for int8.
        test: What the files are compared with Keras on.

    Raises:
        OSError: If a file is missing.
        ValueError: If the summary is damaged.
    """
    student = compression.student
    float32, int8 = (
        artifact_of(directory.tflite_file(kind), student, kind)
        for kind in ("none", "int8")
    )
    agreement = agreement_of(student, [float32, int8], test)
    files = RunFiles(directory.path, float32, int8, agreement)
    if directory.bundle().is_dir():
        micro = _bundle(compression, directory.bundle(), calibration)
        files = replace(files, micro=micro)
    seconds = read_summary(directory.summary_file).seconds or 0.0
    return replace(compression, files=files, seconds=seconds)


def _bundle(
    compression: Compression, folder: Path, calibration: Arrays
) -> MicroArtifact:
    """Returns the bundle in a folder, as it is known to whoever makes it."""
    with temporary_folder() as place:
        again = Path(place, folder.name)
        made = to_microcontroller(compression.student, again, calibration)
        file = folder / made.tflite.path.relative_to(made.directory)
    tflite = replace(made.tflite, path=file)
    return replace(made, directory=folder, tflite=tflite)
