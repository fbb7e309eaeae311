"""The int8 file that a student would have, made to be measured."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np

from keras_kddp.data.batches import Batches, batches_of
from keras_kddp.export.errors import CrashError, RefusalError
from keras_kddp.export.model.samples import arrange_inputs
from keras_kddp.export.model.signature import input_signature
from keras_kddp.export.runtimes.refusals import explained
from keras_kddp.export.runtimes.runtimes import TFLMRuntime
from keras_kddp.export.tflite.artifact import TFLiteArtifact
from keras_kddp.export.tflite.to_tflite import to_tflite
from keras_kddp.export.workers.guard import temporary_folder
from keras_kddp.layers.preparation import finalize

_TRAINED_BIAS = 1e-3
_CALIBRATION_ROWS = 8  # the numbers in a file do not change its size


@contextlib.contextmanager
def int8_file(
    student: keras.Model, data: Batches
) -> Iterator[tuple[TFLiteArtifact, list[np.ndarray]]]:
    """Yields a student's int8 file, removed afterwards, and some inputs.

    Args:
        student: A built student, with penalties or without.
        data: Its inputs: arrays or an iterable of batches.

    Raises:
        ExportError: If it cannot be converted.
        ValueError: If it cannot be exported, or the data do not fit.
    """
    rows = keras.tree.map_structure(
        lambda leaf: keras.ops.convert_to_numpy(leaf)[:_CALIBRATION_ROWS],
        next(batches_of(data, _CALIBRATION_ROWS)),
    )
    plain = finalize(student)
    for weight in plain.trainable_weights:
        # The converter leaves zeros out, but no trained bias is zero.
        if len(weight.shape) == 1 and not np.any(weight):
            weight.assign(np.full(weight.shape, _TRAINED_BIAS))
    with temporary_folder() as folder:
        artifact = to_tflite(
            plain,
            folder / "student.tflite",
            quantization="int8",
            calibration=rows,
        )
        yield artifact, arrange_inputs(rows, input_signature(plain))


def int8_bytes(student: keras.Model, data: Batches) -> int:
    """Returns the size of a student's int8 .tflite file.

    Args:
        student: A built student, with penalties or without.
        data: Its inputs: arrays or an iterable of batches.

    Raises:
        ExportError: If it cannot be converted.
    """
    with int8_file(student, data) as (artifact, _):
        return artifact.num_bytes


def int8_arena_bytes(student: keras.Model, data: Batches) -> int:
    """Returns the smallest arena that TFLM runs a student's int8 file in.

    Args:
        student: A built student, with penalties or without.
        data: Its inputs: arrays or an iterable of batches.

    Raises:
        ExportError: If it cannot be converted.
        ImportError: If tflite-micro is not installed.
        ValueError: If TFLM cannot run it.
    """
    TFLMRuntime.require("An arena is measured on")
    with int8_file(student, data) as (artifact, rows):
        runtime = TFLMRuntime(artifact.path)
        inputs = {
            name: array[:1]
            for name, array in zip(artifact.input_names, rows, strict=True)
        }
        try:
            found = runtime.execute(inputs, arena=True)
        except (CrashError, RefusalError) as refusal:
            reason = explained(str(refusal), artifact.path, student)
            raise ValueError(
                "`max_arena_bytes` must be for a student that TFLM can run. "
                f"Received from it: {reason}. Replace this layer, or leave "
                "the limit out."
            ) from None
    return int(found.arena_bytes or 0)
