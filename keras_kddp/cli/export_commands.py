"""The commands that make files of a run's student and measure them."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_kddp.cli.export_checks import check_export
from keras_kddp.cli.run_data import (
    data_name,
    knowing_its_code,
    run_data,
    trusts_code,
)
from keras_kddp.compression.choices import QAT_EPOCHS
from keras_kddp.compression.model_sources import (
    is_code,
    is_trained,
    load_model,
    model_file,
)
from keras_kddp.compression.run_directory import Run, RunDirectory
from keras_kddp.compression.run_exports import (
    write_quantization_aware,
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
from keras_kddp.export.runtimes.description import write_description
from keras_kddp.export.tflite.calibration import CALIBRATED
from keras_kddp.export.tflite.converter import conversion_limit
from keras_kddp.model_io import Arrays


@knowing_its_code
def export_run(given: argparse.Namespace) -> int:
    """Writes further files of a run's student; returns 0 where all agree.

    Args:
        given: The options of `kddp export`.

    Raises:
        ValueError: If an option does not fit the others or the run.
        OSError: If a file is missing or cannot be written.
        ImportError: If an extra is missing.
        ExportError: If the student cannot be converted.
    """
    directory = RunDirectory.at(given.directory)
    run = directory.read()
    directory.check_changeable()
    check_export(given, run.student)
    if given.format == "saved_model":
        return _export_saved_model(given, run, directory)
    data = run_data(given, run)
    metadata: dict[str, Any] = {"trained_on": data_name(given, run.summary)}
    if hasattr(given, "labels"):
        metadata["labels"] = given.labels
    if given.qat:
        found = write_quantization_aware(
            run,
            directory,
            data,
            epochs=getattr(given, "qat_epochs", QAT_EPOCHS),
            metadata=metadata,
            time_limit=given.time_limit,
        )
        return _verify(found.model, [found.tflite], data, given.time_limit)
    files = _write_files(given, run, directory, data.train.x, metadata)
    return _verify(run.student, files, data, given.time_limit)


@knowing_its_code
def bench_run(given: argparse.Namespace) -> int:
    """Shows time, size and memory of a run's student; returns 0.

    Args:
        given: The options of `kddp bench`.

    Raises:
        ValueError: If the run is damaged, or its data are unknown.
        OSError: If a file is missing.
    """
    directory = RunDirectory.at(given.directory)
    run = directory.read()
    data = run_data(given, run)
    models = _unpruned(given, run, directory) | {"after": run.student}
    found = bench(models, data.train.x, time_limit=given.time_limit)
    sys.stdout.write(f"{found}\n")
    return 0


def _unpruned(
    given: argparse.Namespace, run: Run, directory: RunDirectory
) -> dict[str, keras.Model]:
    """Returns the student of a run as it started, or says why not.

    A run of before does not hold it, and may name code that makes it.
    """
    if directory.before_file.is_file():
        return {"before": model_file(directory.before_file)}
    source = run.summary.of_job("student")
    if not source:
        return {}
    if is_code(source) and not trusts_code(given):
        reason = "which is code: give --trust-code if you trust it"
    elif is_trained(source) and not Path(source).is_file():
        reason = "which is not there"
    else:
        return {"before": load_model(source)}
    sys.stderr.write(
        f"kddp: {directory.path}: the student that was not pruned is left out: "
        f"the run names {source[:200]!r}, {reason}\n"
    )
    return {}


def _export_saved_model(
    given: argparse.Namespace, run: Run, directory: RunDirectory
) -> int:
    folder = write_saved_model(
        run,
        directory,
        features=getattr(given, "features", None),
        license_name=getattr(given, "license", None),
        labels=getattr(given, "labels", None),
    )
    sys.stdout.write(f"{folder}: computes what Keras computes\n")
    return 0


def _write_files(
    given: argparse.Namespace,
    run: Run,
    directory: RunDirectory,
    x: Arrays,
    metadata: dict[str, Any],
) -> list[TFLiteArtifact]:
    """Writes one file or bundle per quantization that was asked for."""
    write = _write_bundle if given.format == "micro" else _write_tflite
    with directory.changing(run) as copy:
        files = [
            write(
                run.student,
                copy,
                x,
                {
                    "quantization": quantization,
                    "uint8_input": given.uint8_input and quantization == "int8",
                    "metadata": metadata,
                    "time_limit": given.time_limit,
                },
            )
            for quantization in given.quantization
        ]
    return [
        replace(file, path=directory.path / file.path.relative_to(copy.path))
        for file in files
    ]


def _verify(
    student: keras.Model,
    files: list[TFLiteArtifact],
    data: Dataset,
    time_limit: float,
) -> int:
    """Shows how files agree with Keras; returns 0 where all do."""
    agreement = verify(
        student, files, data.test.x, data.test.y, time_limit=time_limit
    )
    sys.stdout.write(f"{agreement}\n")
    return 0 if agreement.passed else 1


def _write_tflite(
    student: keras.Model,
    directory: RunDirectory,
    x: Arrays,
    options: dict[str, Any],
) -> TFLiteArtifact:
    """Writes a .tflite file and its description."""
    quantization = options["quantization"]
    calibration = x if quantization in CALIBRATED else None
    path = directory.tflite_file(quantization)
    limit = {"time_limit": conversion_limit(options["time_limit"])}
    artifact = to_tflite(
        student, path, calibration=calibration, **options | limit
    )
    write_description(path)
    return artifact


def _write_bundle(
    student: keras.Model,
    directory: RunDirectory,
    x: Arrays,
    options: dict[str, Any],
) -> TFLiteArtifact:
    """Writes a bundle for microcontrollers and says what is in it."""
    folder = directory.bundle(options["quantization"])
    bundle = to_microcontroller(student, folder, x, **options)
    sys.stdout.write(
        f"{directory.final_path / folder.name}: "
        f"{', '.join(bundle.operations)}; arena {bundle.arena_bytes:,} bytes\n"
    )
    return bundle.tflite
