"""A folder that a firmware engineer can build from."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_kddp.arguments import RUN_SECONDS, checked_path, require_time_limit
from keras_kddp.atomic_files import check_target, writing_folder
from keras_kddp.data.batches import evenly_spaced
from keras_kddp.export.agreement.agreement import LITERT_TOLERANCE
from keras_kddp.export.agreement.features import Features
from keras_kddp.export.errors import CrashError, ExportError, RefusalError
from keras_kddp.export.micro.readme import readme_of
from keras_kddp.export.micro.sources import (
    Bundle,
    Golden,
)
from keras_kddp.export.model.samples import arrange_inputs
from keras_kddp.export.model.signature import check_exportable, input_signature
from keras_kddp.export.runtimes.description import write_description
from keras_kddp.export.runtimes.refusals import explained
from keras_kddp.export.runtimes.runtimes import (
    Execution,
    LiteRTRuntime,
    Runtime,
    TFLMRuntime,
)
from keras_kddp.export.runtimes.tensors import Tensor
from keras_kddp.export.tflite.artifact import TFLiteArtifact
from keras_kddp.export.tflite.calibration import check_finite
from keras_kddp.export.tflite.converter import conversion_limit
from keras_kddp.export.tflite.operations import operations_of
from keras_kddp.export.tflite.to_tflite import to_tflite
from keras_kddp.model_io import Array, Arrays

MICRO = ("none", "int8", "int16x8")
"""The quantizations that TFLM runs."""

_KIND = "bundle"
_WEIGHT_BYTES = 8  # as a byte and as C text
_GOLDEN_SAMPLES = 4
_CHECKED_SAMPLES = 64
_MARGIN = 1.1  # of the measured arena
_STEPS = {"int8": 2, "uint8": 2, "int16": 8}  # by which kernels may differ
_FLOAT_NOISE = 1e-6  # of an output's largest value


@dataclass(frozen=True)
class MicroArtifact:
    """A microcontroller bundle.

    Attributes:
        directory: Where it is.
        tflite: The file that its C array holds.
        operations: Names of the operations that the resolver registers.
        measured_arena_bytes: The smallest that TFLM ran in on this machine,
            with its reference kernels and pointers of 64 bits.
        arena_bytes: What the sources reserve: a tenth more, in steps of 16.
    """

    directory: Path
    tflite: TFLiteArtifact
    operations: tuple[str, ...]
    measured_arena_bytes: int
    arena_bytes: int


def to_microcontroller(
    model: keras.Model,
    directory: str | os.PathLike[str],
    calibration: Arrays | None = None,
    *,
    quantization: str = "int8",
    samples: int = 256,
    uint8_input: bool = False,
    name: str = "student",
    metadata: Mapping[str, Any] | None = None,
    time_limit: float | None = RUN_SECONDS,
) -> MicroArtifact:
    """Writes a model as C++ sources for TensorFlow Lite for Microcontrollers.

    `model.tflite`, `model.h` and `model.cc` (its bytes as an aligned array),
    `op_resolver.h` (registers just its operations), `golden.h` and
    `golden.cc` (samples with the outputs that TFLM gives), `main.cc` (a
    self-test) and `README.md`. The file is run on TFLM and on LiteRT first:
    one that TFLM cannot run, or runs otherwise, leaves no bundle.

    Args:
        model: A built Sequential or Functional model.
        directory: Made if it does not exist; a bundle that is there as it was
            written is replaced when everything succeeded, anything else is
            refused.
        calibration: Inputs as in training, as `to_tflite` takes them; the
            golden samples are drawn from them.
        quantization: `"int8"`, `"int16x8"` or `"none"`: what TFLM runs.
        samples: At most so many rows calibrate.
        uint8_input: Inputs in uint8 instead of int8.
        name: Prefix of the C symbols: lower-case letters, digits, `_`.
        metadata: Entries for the file, as `to_tflite` takes them.
        time_limit: Seconds that a runtime may take for one sample; the
            converter has as many, but at least 600. None: no limit.

    Raises:
        ImportError: If tflite-micro is not installed.
        TypeError: If `model` is no Keras 3 model.
        ValueError: If an argument does not fit, or the directory holds
            anything else.
        OSError: If the directory cannot be written to.
        ExportError: If the model cannot be converted, or TFLM cannot run it,
            does not end in `time_limit`, or computes something else than
            LiteRT.

    Example:
        ```python
        bundle = keras_kddp.export.to_microcontroller(student, "micro", x)
        print(bundle.arena_bytes, bundle.operations)
        ```
    """
    _check(quantization, calibration, name)
    require_time_limit(time_limit)
    check_exportable(model)
    rows = arrange_inputs(
        calibration, input_signature(model), name="calibration"
    )
    check_finite(rows)
    target = checked_path("directory", directory, "micro")
    check_target(target, _KIND, overwrite=True)
    with writing_folder(
        target,
        _KIND,
        overwrite=True,
        bytes_needed=_WEIGHT_BYTES * model.count_params(),
    ) as unfinished:
        built = unfinished.new
        artifact = to_tflite(
            model,
            built / "model.tflite",
            quantization=quantization,
            calibration=None if quantization == "none" else calibration,
            samples=samples,
            uint8_input=uint8_input,
            metadata=metadata,
            time_limit=conversion_limit(time_limit),
        )
        bundle, measured = _bundle(model, artifact, rows, name, time_limit)
        texts = bundle.sources()
        texts["README.md"] = readme_of(bundle, artifact, measured)
        for file_name, text in texts.items():
            (built / file_name).write_text(text)
        write_description(artifact.path)
    return MicroArtifact(
        directory=target,
        tflite=replace(artifact, path=target / "model.tflite"),
        operations=tuple(bundle.operations),
        measured_arena_bytes=measured,
        arena_bytes=bundle.arena_bytes,
    )


def _check(quantization: str, calibration: Any, name: str) -> None:
    TFLMRuntime.require("Before a bundle is written it is run on")
    if quantization not in MICRO:
        raise ValueError(
            f"`quantization` must be one of {MICRO}, which TFLM runs. "
            f"Received: quantization={quantization!r}."
        )
    if calibration is None:
        raise ValueError(
            "`calibration` must be given: ranges and golden samples come from "
            "it. Received: calibration=None. Pass some inputs of the training, "
            "calibration=x[:256]."
        )
    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError(
            "`name` must be a C identifier in lower case. Received: "
            f"name={name!r}. Try name='student'."
        )


def _bundle(
    model: keras.Model,
    artifact: TFLiteArtifact,
    rows: list[Array],
    name: str,
    time_limit: float | None,
) -> tuple[Bundle, int]:
    """Returns a bundle whose file was run, and its measured arena."""
    chip, phone = TFLMRuntime(artifact.path), LiteRTRuntime(artifact.path)
    chosen = evenly_spaced(len(rows[0]), _CHECKED_SAMPLES)
    given = {
        key: array[chosen]
        for key, array in zip(artifact.input_names, rows, strict=True)
    }
    found = _executed(model, chip, phone, given, time_limit)
    measured = int(found.arena_bytes or 0)
    first = slice(0, _GOLDEN_SAMPLES)
    inputs, outputs = _in_file(chip.inputs), _in_file(chip.outputs)
    golden = Golden(
        [part.stored(given[part.name][first]) for part in inputs],
        [found.stored[part.name][first] for part in outputs],
    )
    content = artifact.path.read_bytes()
    bundle = Bundle(
        name=name,
        content=content,
        operations=operations_of(content),
        inputs=inputs,
        outputs=outputs,
        arena_bytes=16 * math.ceil(measured * _MARGIN / 16),
        golden=golden,
    )
    return bundle, measured


def _in_file(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Returns tensors as the file numbers them, one that has two names once."""
    by_position = {part.position: part for part in tensors.values()}
    return [by_position[position] for position in sorted(by_position)]


def _executed(
    model: keras.Model,
    chip: Runtime,
    phone: Runtime,
    given: Mapping[str, Array],
    time_limit: float | None,
) -> Execution:
    """Returns what TFLM made of samples, its arena measured.

    Raises:
        ExportError: If it cannot run the file, or LiteRT computes otherwise.
    """
    try:
        found = chip.execute(given, arena=True, time_limit=time_limit)
        wanted = phone.execute(given, time_limit=time_limit)
    except (CrashError, RefusalError) as refusal:
        reason = explained(str(refusal), chip.path, model)
        raise ExportError(
            "The model must consist of what TFLM and LiteRT can run. Received "
            f"from one: {reason}. A phone may take it as it is, with "
            "keras_kddp.export.to_tflite."
        ) from None
    for name, tensor in chip.outputs.items():
        _check_equal(found.outputs[name], wanted.outputs[name], tensor, chip)
    return found


def _check_equal(
    found: Array, wanted: Array, tensor: Tensor, chip: Runtime
) -> None:
    """Checks that every feature of an output is LiteRT's.

    Args:
        found: What TFLM put out, (samples, ...).
        wanted: What LiteRT did.
        tensor: The output.
        chip: TFLM with the file.

    Raises:
        ExportError: If one is off by more than a tenth of its range, and by
            more than the two runtimes round differently.
    """
    if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        raise ExportError(
            "TFLM and LiteRT must compute finite numbers. Received NaN or "
            f"infinity in output {tensor.name!r}. Check the weights, and the "
            "calibration."
        )
    features = Features(tensor.name, wanted)
    gaps = features.gaps(found).max(axis=0)
    rounding = _STEPS.get(tensor.dtype, 0) * (tensor.scale or 0.0)
    rounding = max(rounding, _FLOAT_NOISE * features.size)
    off = ~(gaps <= np.maximum(LITERT_TOLERANCE * features.scales, rounding))
    if off.any():
        worst = int(off.argmax())
        raise ExportError(
            "TFLM must compute what LiteRT computes. Received "
            f"{features.where(worst, float(gaps[worst]))}, for the "
            f"operations {operations_of(chip.path.read_bytes())}. One "
            "of them is wrong on TFLM (a RELU6 that stands alone is): fuse "
            "the activation into the layer before it, or use another."
        )
