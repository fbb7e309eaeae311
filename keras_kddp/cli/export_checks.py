"""What `kddp export` refuses before it writes the first file."""

import argparse

import keras

from keras_kddp.arguments import require_time_limit, shortened
from keras_kddp.export.micro.to_microcontroller import MICRO


def check_export(given: argparse.Namespace, student: keras.Model) -> None:
    """Checks all options of `kddp export`.

    Args:
        given: The options.
        student: Of the run.

    Raises:
        ValueError: If one does not fit the others or the student.
    """
    _check_quantizations(given)
    _check_tuning(given)
    _check_saved_model(given)
    _check_labels(given, student)
    require_time_limit(given.time_limit)


def _check_quantizations(given: argparse.Namespace) -> None:
    refused = [name for name in given.quantization if name not in MICRO]
    if given.format == "micro" and refused:
        raise ValueError(
            f"`--quantization` must be one of {MICRO} for --format micro, "
            f"which TFLM runs. Received: {refused}. Leave them out."
        )
    if given.uint8_input and "int8" not in given.quantization:
        raise ValueError(
            "`--uint8-input` must stand beside --quantization int8. Received: "
            f"{given.quantization}. Leave it out."
        )


def _check_tuning(given: argparse.Namespace) -> None:
    epochs = getattr(given, "qat_epochs", None)
    if epochs is not None and epochs < 1:
        raise ValueError(
            f"`--qat-epochs` must be a whole number >= 1. Received: {epochs}."
        )
    if epochs is not None and not given.qat:
        raise ValueError(
            "`--qat-epochs` must stand beside --qat. Received: "
            f"--qat-epochs {epochs} alone. Leave it out, or add --qat."
        )
    is_plain = given.format == "tflite" and given.quantization == ["int8"]
    if given.qat and (not is_plain or given.uint8_input):
        raise ValueError(
            "`--qat` must stand beside --format tflite and --quantization "
            f"int8 only. Received: {given.format}, {given.quantization}. "
            "Leave the others out."
        )


def _check_saved_model(given: argparse.Namespace) -> None:
    is_default = given.quantization == ["int8"] and not given.uint8_input
    if given.format == "saved_model" and not is_default:
        raise ValueError(
            "`--quantization` and `--uint8-input` must be left out for "
            "--format saved_model, which is float32. Received: "
            f"{given.quantization}, uint8_input={given.uint8_input}."
        )
    for name in ("features", "license"):
        if hasattr(given, name) and given.format != "saved_model":
            raise ValueError(
                f"`--{name}` must stand beside --format saved_model. "
                f"Received: --format {given.format}. Leave it out."
            )


def _check_labels(given: argparse.Namespace, student: keras.Model) -> None:
    classes = keras.tree.flatten(student.outputs)[0].shape[-1]
    labels = getattr(given, "labels", None)
    if labels is None:
        return
    if len(labels) != classes:
        raise ValueError(
            f"`--labels` must be {classes} names, one per class. Received: "
            f"{len(labels)}. Name every class in its order."
        )
    if not all(map(str.strip, labels)) or len({*labels}) < len(labels):
        raise ValueError(
            "`--labels` must be different names, none of them empty. "
            f"Received: {shortened(labels)}. Name every class in its order."
        )
