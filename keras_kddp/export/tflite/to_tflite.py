"""TFLite files of Keras models: batch 1, builtin operations only."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_kddp.arguments import checked_path, require_count, require_time_limit
from keras_kddp.atomic_files import replacing
from keras_kddp.export.model.conversion_checks import (
    check_convertible,
    check_finite,
    check_float16,
)
from keras_kddp.export.model.float32 import in_float32
from keras_kddp.export.model.portable_form import portable_form
from keras_kddp.export.model.samples import arrange_inputs
from keras_kddp.export.model.signature import (
    check_exportable,
    input_signature,
    require_tensorflow,
)
from keras_kddp.export.model.tracing import save_trace
from keras_kddp.export.tflite.artifact import (
    TFLiteArtifact,
    artifact_of,
    check_target,
    entries_of,
)
from keras_kddp.export.tflite.calibration import (
    CALIBRATED,
    calibration_rows,
    warn_of_other_pixels,
)
from keras_kddp.export.tflite.conversion_errors import naming_the_layer
from keras_kddp.export.tflite.converter import (
    CONVERSION_SECONDS,
    shared_converter,
)
from keras_kddp.export.tflite.metadata import with_metadata
from keras_kddp.export.tflite.names import FileNames, names_of
from keras_kddp.export.tflite.portable_operations import (
    with_portable_operations,
)
from keras_kddp.export.tflite.quantizer import require_quantizer, to_int4
from keras_kddp.export.workers.arrays import write_arrays
from keras_kddp.export.workers.guard import temporary_folder
from keras_kddp.model_io import Array, Arrays

QUANTIZATIONS = ("none", "dynamic", "float16", "int8", "int16x8", "int4")
"""What `to_tflite` can do to the numbers."""


def to_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantization: str = "none",
    calibration: Arrays | None = None,
    samples: int = 256,
    uint8_input: bool = False,
    metadata: Mapping[str, Any] | None = None,
    time_limit: float | None = CONVERSION_SECONDS,
) -> TFLiteArtifact:
    """Writes the model as a .tflite file that takes one sample at a time.

    The file computes what the model computes at inference, with builtin
    operations only. A model of another precision is exported as its copy in
    float32. Check the file with `keras_kddp.export.verify`.

    | quantization | weights | activations | runs on |
    |---|---|---|---|
    | `"none"` | float32 | float32 | LiteRT, tflite-runtime, TFLM |
    | `"dynamic"` | int8 | float32, int8 inside products | LiteRT |
    | `"float16"` | float16 | float32 | LiteRT, tflite-runtime |
    | `"int8"` | int8 | int8 | all, and integer accelerators |
    | `"int16x8"` | int8 | int16 | all |
    | `"int4"` | int4, of convolutions int8 | as `"dynamic"` | LiteRT |

    Recurrent layers are unrolled, about 2 kB for each step, up to 1,000 steps
    in all: int8 and int16x8 take no loop, and TFLM computes some wrongly. In
    float16 and int4, and beyond that in float32 and dynamic, loops stay.

    In int8 and int16x8, weights have a scale for each output channel and
    activations one per tensor (Jacob et al. 2018, arXiv 1712.05877).

    Args:
        model: A built Sequential or Functional model, any number of inputs
            and outputs, every dimension but the batch fixed.
        path: File to write, ending in `.tflite`; replaced only when the
            conversion succeeded.
        quantization: One of the table.
        calibration: Inputs as in training, to find the range of every
            activation with: an array of shape `(samples, ...)`; for several
            inputs a sequence or a dict of them. Required for int8 and
            int16x8.
        samples: At most so many evenly spaced rows of them are used.
        uint8_input: Inputs in uint8 instead of int8: where the model was
            trained on pixels / 255, the file takes the pixels themselves. Warns
            where the calibration spans something else than 0 to 1.
        metadata: What else the file shall say about itself, as JSON can hold
            it: labels, how inputs were normalized. Beside it stands how it was
            made; `keras_kddp.export.read_metadata` returns both.
        time_limit: Seconds that the converter may take; None: no limit.

    Returns:
        The file's path, size and names.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If an argument does not fit.
        OSError: If the file cannot be written.
        ExportError: If the model cannot be traced or converted; the layer is
            named where it is known. If the converter does not end in
            `time_limit`.
        ImportError: If int4 is asked for and ai-edge-quantizer is missing.

    Example:
        artifact = keras_kddp.export.to_tflite(student, "student.tflite")
        print(keras_kddp.export.verify(student, artifact, x_test, y_test))
    """
    target = checked_path("path", path, "student.tflite")
    require_tensorflow("TFLite export")
    check_target(target)
    _check_options(
        quantization, calibration, samples=samples, uint8_input=uint8_input
    )
    require_time_limit(time_limit)
    check_exportable(model)
    check_convertible(model)
    entries = entries_of(model, quantization, metadata)
    rows = None
    if calibration is not None:
        rows = calibration_rows(model, calibration, samples)
    if rows is not None and uint8_input:
        warn_of_other_pixels(rows)
    with replacing(target) as partial, temporary_folder() as folder:
        shared_converter.start()  # it gets ready while the model is traced
        plain = in_float32(model)
        if quantization != "none":
            check_finite(plain, quantization)
        if quantization == "float16":
            check_float16(plain)
        with portable_form(plain, quantization):
            save_trace(plain, folder)
        with naming_the_layer(plain, folder, quantization):
            convert_into(
                partial,
                folder,
                quantization,
                rows,
                uint8_input=uint8_input,
                names=names_of(model),
                entries=entries,
                time_limit=time_limit,
            )
    return artifact_of(target, model, quantization)


def convert_into(
    target: Path,
    saved_model: Path,
    quantization: str,
    rows: Mapping[str, Array] | None,
    *,
    uint8_input: bool = False,
    names: FileNames,
    entries: Mapping[str, Any],
    time_limit: float | None = CONVERSION_SECONDS,
) -> None:
    """Writes a .tflite file of a SavedModel of batch 1.

    Args:
        target: File to write.
        saved_model: Folder, with the signature `serving_default`; what
            calibrates is put into it.
        quantization: As `to_tflite` takes it.
        rows: Samples by the name of the input in the file; None without
            calibration.
        uint8_input: As `to_tflite` takes it.
        names: Those that the file gets.
        entries: What the file says about itself.
        time_limit: As `to_tflite` takes it.

    Raises:
        ExportError: If it cannot be converted.
    """
    file = None
    if rows is not None:
        file = saved_model / "calibration.npz"
        write_arrays(
            file,
            {
                f"input:{names.traced_input(name)}": part
                for name, part in rows.items()
            },
        )
    is_int4 = quantization == "int4"
    shared_converter.convert(
        saved_model,
        target,
        "none" if is_int4 else quantization,
        file,
        uint8_input=uint8_input,
        time_limit=time_limit,
    )
    if is_int4:  # before names become short: it takes only unequal ones
        to_int4(target, time_limit)
    content = with_portable_operations(target.read_bytes())
    target.write_bytes(with_metadata(content, entries, names))


def check_conversion(model: keras.Model, *inputs: Arrays) -> None:
    """Checks what can be known about an export before a model is trained.

    Args:
        model: The model, or one of the same inputs.
        *inputs: Inputs that it will be calibrated or verified with.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If an input's size is not fixed, inputs do not fit by name,
            shape or dtype, or the backend is not TensorFlow.
        ExportError: If a layer becomes no operations of TFLite.
    """
    require_tensorflow("TFLite export")
    check_exportable(model)
    check_convertible(model)
    for x in inputs:
        arrange_inputs(x, input_signature(model))


def _check_options(
    quantization: str, calibration: Any, *, samples: int, uint8_input: bool
) -> None:
    if quantization not in QUANTIZATIONS:
        raise ValueError(
            f"`quantization` must be one of {QUANTIZATIONS}. Received: "
            f"quantization={quantization!r}."
        )
    if quantization == "int4":
        require_quantizer()
    if quantization not in CALIBRATED and calibration is not None:
        raise ValueError(
            f'`calibration` must be None for quantization="{quantization}". '
            f"Received: calibration of {type(calibration)}. Leave it out; "
            f"only {' and '.join(CALIBRATED)} need one."
        )
    if quantization in CALIBRATED and calibration is None:
        raise ValueError(
            f'`calibration` must be given for quantization="{quantization}". '
            "Received: calibration=None. Pass some inputs of the training, "
            "calibration=x[:256]."
        )
    require_count("samples", samples, smallest=1, usual=256)
    if uint8_input and quantization != "int8":
        raise ValueError(
            '`uint8_input` must be False but for quantization="int8". '
            f'Received: quantization="{quantization}". Leave it out.'
        )
