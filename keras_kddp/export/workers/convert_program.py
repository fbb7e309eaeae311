"""What the converter's process does: SavedModel in, .tflite file out."""

import contextlib
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import tensorflow as tf


def answer(
    saved_model: str,
    target: str,
    quantization: str,
    calibration: str | None,
    uint8_input: bool,
) -> dict[str, Any]:
    """Converts the signature `serving_default`.

    Args:
        saved_model: Folder of the SavedModel.
        target: File to write.
        quantization: none, dynamic, float16, int8 or int16x8.
        calibration: For the last two, an .npz file of samples, named "input:"
            and the name of the input.
        uint8_input: Inputs in uint8 instead of int8.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(
        saved_model, signature_keys=["serving_default"]
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.allow_custom_ops = False
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if calibration is not None:
        _calibrate(converter, calibration)
        is_wide = quantization == "int16x8"
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            if is_wide
            else tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        ]
        ends = tf.int16 if is_wide else tf.int8
        converter.inference_input_type = tf.uint8 if uint8_input else ends
        converter.inference_output_type = ends
    if calibration is None:
        content = _converted(converter)
    else:
        with _usable_ranges(is_wide=quantization == "int16x8"):
            content = _converted(converter)
    with open(target, "wb") as file:
        file.write(content)
    return {}


def _converted(converter: Any) -> Any:
    try:
        return converter.convert()
    except Exception as error:
        if "'tfl.mul' op result type" not in str(error):
            raise
    # A product of one channel with weights was folded where it does not fit.
    converter._experimental_disable_fuse_mul_and_fc = True
    return converter.convert()


def _calibrate(converter: Any, calibration: str) -> None:
    with numpy.load(calibration) as file:
        samples = {key.removeprefix("input:"): file[key] for key in file}
    count = len(next(iter(samples.values())))
    converter.representative_dataset = lambda: (
        {name: array[row : row + 1] for name, array in samples.items()}
        for row in range(count)
    )


@contextlib.contextmanager
def _usable_ranges(*, is_wide: bool) -> Iterator[None]:
    """Gives the converter calibrated ranges that runtimes can work with.

    Args:
        is_wide: Of int16x8, for which the converter takes no changed ranges:
            they are only checked.
    """
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    ranges = runpy.run_path(
        str(Path(__file__).with_name("calibrated_ranges.py"))
    )

    def calibrate(self: Any, *options: Any) -> Any:
        content = found(self, *options)
        return ranges["with_ranges"](content, is_wide=is_wide)

    found = Calibrator.calibrate
    Calibrator.calibrate = calibrate
    try:
        yield
    finally:
        Calibrator.calibrate = found
