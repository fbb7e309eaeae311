"""TFLite files of Keras models: batch 1, builtin operations only."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_kddp.export._converter import ExportError, shared_converter
from keras_kddp.export._float32 import in_float32
from keras_kddp.export._signature import (
    check_exportable,
    infer,
    input_signature,
    output_names,
)


@dataclass(frozen=True)
class TFLiteArtifact:
    """A .tflite file, and what is needed to run it.

    Attributes:
        path: The file.
        quantization: `"none"`: weights and arithmetic in float32.
        num_bytes: Size of the file.
        input_names: Names in the file's signature, in the order of the Keras
            model's inputs.
        output_names: Likewise for the outputs.
    """

    path: Path
    quantization: str
    num_bytes: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def to_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantization: str = "none",
    calibration: Any = None,
    samples: int = 256,
) -> TFLiteArtifact:
    """Writes the model as a .tflite file that takes one sample at a time.

    The file computes in float32 what the model computes at inference, with
    builtin operations only. A model of another precision is exported as its
    copy in float32. Check the file with `keras_kddp.export.verify`.

    Args:
        model: A built Sequential or Functional model, any number of inputs
            and outputs, every dimension but the batch fixed.
        path: File to write, ending in `.tflite`; replaced only when the
            conversion succeeded.
        quantization: `"none"` for float32.
        calibration: Inputs to calibrate a quantization with.
        samples: How many of them to use at most.

    Returns:
        The file's path, size and names.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If an argument does not fit.
        OSError: If the file cannot be written.
        ExportError: If the model cannot be traced or converted.

    Example:
        artifact = keras_kddp.export.to_tflite(student, "student.tflite")
        print(keras_kddp.export.verify(student, artifact, x_test, y_test))
    """
    target = Path(path)
    _check_options(target, quantization, calibration)
    check_exportable(model)
    with (
        _replacing(target) as partial,
        tempfile.TemporaryDirectory(prefix="keras_kddp_") as folder,
    ):
        shared_converter.start()  # it gets ready while the model is traced
        _save(in_float32(model), Path(folder))
        shared_converter.convert(Path(folder), partial)
    return TFLiteArtifact(
        path=target,
        quantization=quantization,
        num_bytes=target.stat().st_size,
        input_names=tuple(entry.name for entry in input_signature(model)),
        output_names=output_names(model),
    )


def _check_options(target: Path, quantization: str, calibration: Any) -> None:
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "TFLite export must run on the TensorFlow backend. Received: "
            f"backend {keras.backend.backend()!r}. Save the model as .keras, "
            "set KERAS_BACKEND=tensorflow in a new process and export there."
        )
    if quantization != "none":
        raise ValueError(
            '`quantization` must be "none" (float32). Received: '
            f"quantization={quantization!r}. Quantized flavours (dynamic, "
            "float16, int8, int16x8) are not available in this version; the "
            "next release brings them."
        )
    if calibration is not None:
        raise ValueError(
            '`calibration` must be None when `quantization` is "none". '
            f"Received: calibration of {type(calibration)}. Leave it out; "
            "float32 needs no calibration."
        )
    if target.suffix != ".tflite":
        raise ValueError(
            "`path` must end in .tflite. Received: "
            f"path={str(target)!r}. Write for example to "
            f"{str(target.with_suffix('.tflite'))!r}."
        )


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yields a new file beside the target, renamed to it on success."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a directory")
        partial.open("xb").close()
    except OSError as error:
        raise type(error)(
            "`path` must be a file in an existing, writable directory. "
            f"Received: path={str(target)!r} ({error}). Create the directory "
            "first, or choose another."
        ) from error
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _save(model: keras.Model, folder: Path) -> None:
    """Writes the model at batch 1 as a SavedModel that holds its weights."""
    import tensorflow as tf  # here: the other backends do without it

    def serve(*tensors: Any) -> dict[str, Any]:
        outputs = infer(model, tensors)
        return dict(zip(output_names(model), outputs, strict=True))

    module = tf.Module()
    # The converter finds weights only as variables of the module.
    module.weights = [variable.value for variable in model.variables]
    module.serve = tf.function(
        serve,
        input_signature=[
            tf.TensorSpec((1, *entry.shape), entry.dtype, name=entry.name)
            for entry in input_signature(model)
        ],
    )
    try:
        tf.saved_model.save(
            module, str(folder), signatures={"serving_default": module.serve}
        )
    except Exception as error:
        raise ExportError(
            f"Model {model.name!r} must run in a TensorFlow graph with a "
            f"batch of 1. Received: {type(error).__name__}: {error}\n"
            "Remove what fixes the batch size, and what keeps state outside "
            "of Keras variables."
        ) from error
