"""The commands of `kddp` that make files and measure them."""

import argparse
import sys
from pathlib import Path
from typing import Any

import keras

from keras_kddp.cli.run_data import _add_data, _data, data_name
from keras_kddp.compression.model_sources import load_model
from keras_kddp.compression.run_directory import read_run
from keras_kddp.compression.run_exports import (
    write_quantized,
    write_saved_model,
)
from keras_kddp.data.datasets import Dataset
from keras_kddp.export import (
    TFLiteArtifact,
    bench,
    to_microcontroller,
    to_tflite,
    verify,
)
from keras_kddp.export.micro.to_microcontroller import MICRO
from keras_kddp.export.runtimes.description import write_description
from keras_kddp.export.tflite.calibration import CALIBRATED
from keras_kddp.export.tflite.to_tflite import QUANTIZATIONS


def add_export(commands: Any) -> None:
    """Adds `kddp export`."""
    command = commands.add_parser(
        "export",
        help="write further files of a run's student, and run each",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = command.add_argument
    add("directory", help="run directory")
    add(
        "--format",
        choices=["tflite", "micro", "saved_model"],
        default="tflite",
        help="a .tflite file, C++ sources for a microcontroller, or a "
        "SavedModel to build upon",
    )
    add(
        "--quantization",
        nargs="+",
        choices=QUANTIZATIONS,
        default=["int8"],
        help="what is done to the numbers, a file each",
    )
    add(
        "--uint8-input",
        action="store_true",
        help="int8 files take bytes: pixels, where the data are pixels / 255",
    )
    add(
        "--labels",
        nargs="+",
        help="names of the classes, written into the files",
        default=argparse.SUPPRESS,
    )
    add(
        "--qat",
        action="store_true",
        help="fine-tune for int8 first, under the run's teacher, into "
        "DIRECTORY/qat",
    )
    add(
        "--qat-epochs",
        type=int,
        default=3,
        help="of quantization-aware training",
    )
    add(
        "--features",
        help="layer whose output a SavedModel gives (the model's)",
        default=argparse.SUPPRESS,
    )
    add(
        "--license",
        help="of a SavedModel, for its card",
        default=argparse.SUPPRESS,
    )
    _add_data(command)
    command.set_defaults(run=_export)


def add_bench(commands: Any) -> None:
    """Adds `kddp bench`."""
    command = commands.add_parser(
        "bench",
        help="time, size and memory of a run's student, beside the one that "
        "was not pruned",
    )
    command.add_argument("directory", help="run directory")
    _add_data(command)
    command.set_defaults(run=_bench)


def _export(given: argparse.Namespace) -> int:
    student, _, summary = read_run(given.directory)
    _check_options(given, student)
    if given.format == "saved_model":
        folder = write_saved_model(
            student,
            Path(given.directory),
            summary,
            features=getattr(given, "features", None),
            license_name=getattr(given, "license", None),
            labels=getattr(given, "labels", None),
        )
        sys.stdout.write(f"{folder}: computes what Keras computes\n")
        return 0
    data = _data(given, summary, student)
    metadata: dict[str, Any] = {"trained_on": data_name(given, summary)}
    if hasattr(given, "labels"):
        metadata["labels"] = given.labels
    if given.qat:
        found = write_quantized(
            student,
            Path(given.directory),
            summary,
            data,
            epochs=given.qat_epochs,
            metadata=metadata,
        )
        return _verified(found.model, [found.tflite], data)
    write = _micro if given.format == "micro" else _tflite
    files = []
    for quantization in given.quantization:
        takes_pixels = given.uint8_input and quantization == "int8"
        options = {
            "quantization": quantization,
            "uint8_input": takes_pixels,
            "metadata": metadata,
        }
        files.append(
            write(student, Path(given.directory), data.train.x, options)
        )
    return _verified(student, files, data)


def _verified(
    student: keras.Model, files: list[TFLiteArtifact], data: Dataset
) -> int:
    agreement = verify(student, files, data.test.x, data.test.y)
    sys.stdout.write(f"{agreement}\n")
    return 0 if agreement.passed else 1


def _check_options(given: argparse.Namespace, student: keras.Model) -> None:
    """Checks all options before the first file is written.

    Raises:
        ValueError: If one does not fit the others or the student.
    """
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
    if given.qat_epochs < 1:
        raise ValueError(
            "`--qat-epochs` must be a whole number >= 1. Received: "
            f"{given.qat_epochs}."
        )
    is_plain = given.format == "tflite" and given.quantization == ["int8"]
    if given.qat and (not is_plain or given.uint8_input):
        raise ValueError(
            "`--qat` must stand beside --format tflite and --quantization "
            f"int8 only. Received: {given.format}, {given.quantization}. "
            "Leave the others out."
        )
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
    classes = keras.tree.flatten(student.outputs)[0].shape[-1]
    labels = getattr(given, "labels", None)
    if labels is not None and len(labels) != classes:
        raise ValueError(
            f"`--labels` must be {classes} names, one a class. Received: "
            f"{len(labels)}. Name every class in its order."
        )


def _tflite(
    student: keras.Model, directory: Path, x: Any, options: dict[str, Any]
) -> TFLiteArtifact:
    quantization = options["quantization"]
    name = "float32" if quantization == "none" else quantization
    calibration = x if quantization in CALIBRATED else None
    path = directory / f"student_{name}.tflite"
    artifact = to_tflite(student, path, calibration=calibration, **options)
    write_description(path)
    return artifact


def _micro(
    student: keras.Model, directory: Path, x: Any, options: dict[str, Any]
) -> TFLiteArtifact:
    names = {"none": "micro_float32", "int8": "micro"}
    name = names.get(options["quantization"], "micro_int16x8")
    bundle = to_microcontroller(student, directory / name, x, **options)
    sys.stdout.write(
        f"{bundle.directory}: {', '.join(bundle.operations)}; arena "
        f"{bundle.arena_bytes:,} bytes\n"
    )
    return bundle.tflite


def _bench(given: argparse.Namespace) -> int:
    student, _, summary = read_run(given.directory)
    data = _data(given, summary, student)
    models = {"after": student}
    source = summary.get("job", {}).get("student")
    if source:
        models = {"before": load_model(source), "after": student}
    sys.stdout.write(f"{bench(models, data.train.x)}\n")
    return 0
