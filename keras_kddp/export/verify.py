"""Does an exported file compute what its Keras model computes?"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_kddp.export._float32 import in_float32
from keras_kddp.export._samples import arrange_inputs, class_labels
from keras_kddp.export._signature import (
    check_exportable,
    infer,
    input_signature,
    output_names,
)
from keras_kddp.export.agreement import Agreement, RuntimeAgreement
from keras_kddp.export.runtimes import LiteRTRuntime, Runtime
from keras_kddp.export.tflite import TFLiteArtifact
from keras_kddp.input_range import warn_of_other_range

Array = NDArray[Any]
Artifact = TFLiteArtifact | str | os.PathLike[str]

_FLOAT32_TOLERANCE = 1e-4
_INT8_TOLERANCE = 0.1
_INT8_AGREEMENT = 0.98
_BATCH_SIZE = 256


def verify(
    model: keras.Model,
    artifacts: Artifact | Iterable[Artifact],
    x: Any,
    y: Any = None,
    *,
    tolerance: float | None = None,
) -> Agreement:
    """Runs exported files on the samples and compares them with Keras.

    Keras computes in batches and in float32; the runtimes take one sample at a
    time, as a device does. A float32 file passes by its largest error. An int8
    file rounds, so a classifier in int8 passes when it names the same class as
    Keras for 98 % of the samples, or for all but one.

    Args:
        model: The model that was exported.
        artifacts: What `to_tflite` returned, the path of a .tflite file, or
            several of them.
        x: Samples: an array of shape `(samples, ...)`; for several inputs a
            sequence in the order of `model.inputs`, or a dict by their names.
        y: Integer or one-hot classes of a single output, for the accuracies.
        tolerance: Largest relative error that passes. None: 1e-4 for float32;
            for int8 the top-1 agreement counts, or 0.1 where some output is
            no wider than 1.

    Returns:
        One row per file; `.passed` says whether all of them agree.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the arguments do not fit each other, a file is damaged
            or another model's, or the model's own outputs are not finite.
        FileNotFoundError: If a file does not exist.
        ExportError: If a model of another precision cannot be rebuilt.

    Example:
        agreement = keras_kddp.export.verify(student, artifact, x_test, y_test)
        print(agreement)
    """
    check_exportable(model)
    _check_tolerance(tolerance)
    sources = _sources(artifacts)
    runtimes = [LiteRTRuntime(_path(source)) for source in sources]
    model = in_float32(model)
    inputs = arrange_inputs(x, input_signature(model))
    reference = _keras_outputs(model, inputs)
    labels = _labels(y, reference)
    rows = tuple(
        _compare(
            runtime,
            reference,
            _file_outputs(runtime, _names(model, source), inputs, reference),
            labels,
            tolerance,
        )
        for source, runtime in zip(sources, runtimes, strict=True)
    )
    return Agreement(
        rows=rows,
        keras_accuracy=_accuracy(reference, labels),
        samples=len(inputs[0]),
    )


def _check_tolerance(tolerance: float | None) -> None:
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise ValueError(
            "`tolerance` must be a finite number from 0 on. Received: "
            f"tolerance={tolerance!r}. None means {_FLOAT32_TOLERANCE:g}, and "
            f"for int8 a top-1 agreement of {_INT8_AGREEMENT:.0%}."
        )


def _sources(artifacts: Artifact | Iterable[Artifact]) -> list[Artifact]:
    if isinstance(artifacts, (TFLiteArtifact, str, os.PathLike)):
        return [artifacts]
    sources = list(artifacts)
    if not sources:
        raise ValueError(
            "`artifacts` must name at least one file. Received: an empty "
            f"{type(artifacts).__name__}. Pass what to_tflite returned."
        )
    return sources


def _keras_outputs(model: keras.Model, inputs: list[Array]) -> list[Array]:
    batches = []
    for start in range(0, len(inputs[0]), _BATCH_SIZE):
        rows = slice(start, start + _BATCH_SIZE)
        tensors = [keras.ops.convert_to_tensor(part[rows]) for part in inputs]
        batches.append(
            [keras.ops.convert_to_numpy(out) for out in infer(model, tensors)]
        )
    outputs = [
        np.concatenate(parts).astype(np.float32)
        for parts in zip(*batches, strict=True)
    ]
    if not all(np.isfinite(output).all() for output in outputs):
        raise ValueError(
            "The Keras model's outputs must be finite. Received: NaN or "
            "infinity for some rows of `x`. Check `x` and the weights first."
        )
    return outputs


def _labels(y: Any, reference: list[Array]) -> NDArray[np.int64] | None:
    if y is None:
        return None
    if len(reference) > 1:
        raise ValueError(
            "`y` must be None for a model of several outputs. Received: "
            f"`y` for {len(reference)} outputs. Verify without it."
        )
    return class_labels(y, reference[0])


def _names(
    model: keras.Model, source: Artifact
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the file's names of the model's inputs and outputs."""
    if isinstance(source, TFLiteArtifact):
        return source.input_names, source.output_names
    inputs = tuple(entry.name for entry in input_signature(model))
    return inputs, output_names(model)


def _file_outputs(
    runtime: Runtime,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    inputs: list[Array],
    reference: list[Array],
) -> list[Array]:
    """Returns the file's outputs in the order of the Keras model's."""
    in_names, out_names = names
    # Names do not matter where there is nothing to confuse.
    if len(in_names) == len(runtime.input_names) == 1:
        in_names = runtime.input_names
    if len(out_names) == len(runtime.output_names) == 1:
        out_names = runtime.output_names
    for name, known in runtime.input_ranges.items():
        warn_of_other_range(known, inputs[in_names.index(name)], "x")
    by_name = runtime.run(dict(zip(in_names, inputs, strict=True)))
    received = {name: output.shape for name, output in by_name.items()}
    shapes = [output.shape for output in reference]
    expected = dict(zip(out_names, shapes, strict=True))
    if received != expected:
        raise ValueError(
            f"{str(runtime.path)!r} must have the outputs of the Keras model, "
            f"{expected}. Received: {received}. Export this model again."
        )
    return [by_name[name] for name in out_names]


def _compare(
    runtime: Runtime,
    reference: list[Array],
    outputs: list[Array],
    labels: NDArray[np.int64] | None,
    tolerance: float | None,
) -> RuntimeAgreement:
    default = _INT8_TOLERANCE if runtime.is_quantized else _FLOAT32_TOLERANCE
    rounds = runtime.is_quantized and tolerance is None
    samples = len(reference[0])
    pairs = list(zip(reference, outputs, strict=True))
    errors = [np.abs(actual - wanted).max() for wanted, actual in pairs]
    scales = [np.abs(wanted).max() for wanted in reference]
    is_class = [
        wanted.ndim > 1 and wanted.shape[-1] > 1 for wanted in reference
    ]
    same_class = [
        (wanted.argmax(axis=-1) == actual.argmax(axis=-1)).mean()
        for (wanted, actual), by_class in zip(pairs, is_class, strict=True)
        if by_class
    ]
    return RuntimeAgreement(
        name=runtime.name,
        path=runtime.path,
        # NumPy's max keeps NaN, Python's may lose it.
        max_abs_error=float(np.max(errors)),
        relative_error=float(np.max(list(map(_relative, errors, scales)))),
        top1_agreement=float(min(same_class)) if same_class else None,
        accuracy=_accuracy(outputs, labels),
        num_bytes=runtime.path.stat().st_size,
        samples=samples,
        tolerance=default if tolerance is None else float(tolerance),
        minimum_agreement=(
            _least_agreement(samples) if rounds and all(is_class) else None
        ),
    )


def _least_agreement(samples: int) -> float:
    """Returns the share that passes: 98 %, or all but one of some samples."""
    all_but_one = (samples - 1) / samples if samples > 2 else 1.0
    return min(_INT8_AGREEMENT, all_but_one)


def _relative(error: float, scale: float) -> float:
    if scale == 0:
        return 0.0 if error == 0 else math.inf
    return error / scale


def _accuracy(
    outputs: Sequence[Array], labels: NDArray[np.int64] | None
) -> float | None:
    if labels is None:
        return None
    return float((outputs[0].argmax(axis=-1) == labels).mean())


def _path(source: Artifact) -> Path:
    return source.path if isinstance(source, TFLiteArtifact) else Path(source)
