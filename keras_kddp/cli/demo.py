"""The whole walk on data that needs no download, with both controls."""

import os
from dataclasses import replace

from rich.console import Console

from keras_kddp.compression.config import CompressionConfig
from keras_kddp.compression.job import run_job
from keras_kddp.compression.results import Compression

# Chosen on splits of the training data alone: a strong penalty, and more than
# half of the run to recover from it.
DEMO = CompressionConfig(
    data="digits",
    teacher="digits_teacher",
    student="digits_student",
    out="runs/demo",
    epochs=80,
    teacher_epochs=40,
    batch_size=64,
    learning_rate=5e-3,
    teacher_learning_rate=2e-3,
    l1=2.0,
    finetune_epochs=48,
)


def run_demo(
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    console: Console | None = None,
    overwrite: bool = False,
) -> Compression:
    """Distils, prunes, exports and compares a student on handwritten digits.

    Leaves `teacher.keras`, `student.keras`, `student_float32.tflite`,
    `student_int8.tflite` and `summary.json` in the directory.

    Args:
        directory: Made if it does not exist.
        seed: Of weights, shuffling and Dropout.
        console: Where the table goes; None: standard output.
        overwrite: Whether an earlier run in the directory is replaced.

    Returns:
        What was found; accuracies are on the test split, which chooses
        nothing.

    Raises:
        ValueError: If the directory holds anything else, or an earlier run
            that is not to be overwritten.
        OSError: If the directory cannot be written to.
        RuntimeError: If an exported file disagrees with Keras.
    """
    config = replace(DEMO, out=os.fspath(directory), seeds=[seed])
    (found,) = run_job(config, console, overwrite=overwrite)
    return found
