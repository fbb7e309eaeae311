"""Does an exported file compute what its Keras model computes?"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from keras_kddp.arguments import RUN_SECONDS, require_time_limit
from keras_kddp.data.input_range import warn_of_other_range
from keras_kddp.export.agreement.agreement import Agreement, RuntimeAgreement
from keras_kddp.export.agreement.classes import are_class_scores
from keras_kddp.export.agreement.judge import Judge, outputs_of
from keras_kddp.export.agreement.limits import (
    LEAST_AGREEMENT,
    LEAST_AGREEMENT_OF_INT4,
    TOLERANCES,
)
from keras_kddp.export.errors import CrashError, RefusalError
from keras_kddp.export.model.float32 import in_float32
from keras_kddp.export.model.samples import arrange_inputs, class_labels
from keras_kddp.export.model.signature import (
    check_exportable,
    input_signature,
    output_names,
)
from keras_kddp.export.runtimes.refusals import explained
from keras_kddp.export.runtimes.runtimes import RUNTIMES, Runtime
from keras_kddp.export.tflite.artifact import TFLiteArtifact
from keras_kddp.model_io import (
    Array,
    Arrays,
    all_outputs_and_masks,
    input_structure,
)

Artifact = TFLiteArtifact | str | os.PathLike[str]

_NameSets = tuple[tuple[str, ...], tuple[str, ...]]


def verify(
    model: keras.Model,
    artifacts: Artifact | Iterable[Artifact],
    x: Arrays,
    y: Arrays | None = None,
    *,
    tolerance: float | None = None,
    classes: bool | Sequence[str] | None = None,
    time_limit: float | None = RUN_SECONDS,
) -> Agreement:
    """Runs exported files on the samples and compares them with Keras.

    Keras computes in batches and in float32; the runtimes that are here take
    one sample at a time, as a device does, and must also agree with LiteRT.
    What another than LiteRT refuses is said, and fails nothing.

    Of class scores a float32 or float16 file passes by its largest error,
    relative to the largest score. The others round: they pass when they name
    the same class as Keras for 98 % of the samples, or for all but one, and no
    error is gross. Of every other output each feature, an entry of the last
    axis, is judged against the range that Keras gives it over all samples and
    positions: a small one is not hidden by a large one. A feature that does
    not vary is held to the others' range, and fewer than 3 values, which show
    no range, to the largest value of the output.

    Args:
        model: The model that was exported.
        artifacts: What `to_tflite` returned, the path of a .tflite file, or
            several of them.
        x: Samples: an array of shape `(samples, ...)`; for several inputs a
            sequence in the order of `model.inputs`, or a dict by their names.
        y: Integer or one-hot classes of a single output, for the accuracies;
            where Keras masks a step, anything.
        tolerance: Largest relative error that passes, of class scores too.
            None: 1e-4 for float32, 1e-2 for float16; for the others 0.1 for 98
            % of a feature's values (int4: 0.3 for 95 %), and the top-1
            agreement for class scores.
        classes: Which outputs are class scores, whose largest entry names a
            class: True for all that are wider than 1, False for none, or the
            names of some. None: the only output where `y` is given; else those
            that end in softmax or are compiled with a loss or a metric of
            classes, such as SparseCategoricalCrossentropy.
        time_limit: Seconds that a runtime may take for one sample; one that
            takes longer has failed. None: no limit.

    Returns:
        One row per file and runtime; `.passed` says whether LiteRT ran all
        files and all that ran agree.

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
    require_time_limit(time_limit)
    sources = _sources(artifacts)
    present = [runtime for runtime in RUNTIMES if not runtime.absence()]
    files = [[kind(_path(source)) for kind in present] for source in sources]
    given, model = model, in_float32(model)
    inputs = arrange_inputs(x, input_signature(model))
    reference, masks = _keras_outputs(model, inputs)
    labels = _labels(y, reference, masks)
    is_classes = are_class_scores(
        classes,
        given,
        output_names(model),
        reference,
        has_labels=labels is not None,
    )
    outputs = outputs_of(model, reference, masks, is_classes)
    judge = Judge(reference, masks, outputs, labels, tolerance)
    rows: list[RuntimeAgreement] = []
    for source, runtimes in zip(sources, files, strict=True):
        names = _names(model, source)
        _warn_of_ranges(runtimes[0], names[0], inputs)
        rows += _rows_of(runtimes, names, inputs, judge, time_limit)
    return Agreement(
        rows=tuple(
            replace(row, refusal=explained(row.refusal, row.path, model))
            if row.refusal is not None
            else row
            for row in rows
        ),
        keras_accuracy=judge.accuracy(reference),
        samples=len(inputs[0]),
        absent={
            kind.name: how
            for kind in RUNTIMES
            if (how := kind.absence()) is not None
        },
        notes=judge.notes,
    )


def _check_tolerance(tolerance: float | None) -> None:
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise ValueError(
            "`tolerance` must be a finite number from 0 on. Received: "
            f"tolerance={tolerance!r}. None means {TOLERANCES['none']:g}, and "
            f"where a file rounds that {LEAST_AGREEMENT:.0%} of the answers "
            f"agree ({LEAST_AGREEMENT_OF_INT4:.0%} for int4)."
        )


def _sources(artifacts: Artifact | Iterable[Artifact]) -> list[Artifact]:
    if isinstance(artifacts, (TFLiteArtifact, str, os.PathLike)):
        return [artifacts]
    if not isinstance(artifacts, Iterable):
        raise ValueError(
            "`artifacts` must be files: what to_tflite returned, paths, or a "
            f"list of them. Received: {type(artifacts).__name__}. Of a bundle, "
            "pass `.tflite`."
        )
    sources = list(artifacts)
    if not sources:
        raise ValueError(
            "`artifacts` must name at least one file. Received: an empty "
            f"{type(artifacts).__name__}. Pass what to_tflite returned."
        )
    return sources


def _keras_outputs(
    model: keras.Model, inputs: list[Array]
) -> tuple[list[Array], list[Array | None]]:
    """Returns the flat outputs in float32, with their Keras masks."""
    x = keras.tree.pack_sequence_as(input_structure(model), inputs)
    found, masks = all_outputs_and_masks(model, x)
    outputs = [output.astype(np.float32) for output in found]
    if not all(np.isfinite(output).all() for output in outputs):
        raise ValueError(
            "The Keras model's outputs must be finite. Received: NaN or "
            "infinity for some rows of `x`. Check `x` and the weights first."
        )
    return outputs, masks


def _labels(
    y: Arrays | None, reference: list[Array], masks: list[Array | None]
) -> NDArray[np.int64] | None:
    if y is None:
        return None
    if len(reference) > 1:
        raise ValueError(
            "`y` must be None for a model of several outputs. Received: "
            f"`y` for {len(reference)} outputs. Verify without it."
        )
    return class_labels(_without_padding(y, masks[0]), reference[0])


def _without_padding(y: Arrays, mask: Array | None) -> Array:
    """Returns labels that are classes at padding too, where any may stand."""
    labels = np.array(y)
    if mask is None or labels.shape[: mask.ndim] != mask.shape:
        return labels
    if mask.any():
        labels[~mask] = labels[mask][0]
    return labels


def _names(model: keras.Model, source: Artifact) -> _NameSets:
    """Returns the file's names of the model's inputs and outputs."""
    if isinstance(source, TFLiteArtifact):
        return source.input_names, source.output_names
    inputs = tuple(entry.name for entry in input_signature(model))
    return inputs, output_names(model)


def _rows_of(
    runtimes: list[Runtime],
    names: _NameSets,
    inputs: list[Array],
    judge: Judge,
    time_limit: float | None,
) -> Iterable[RuntimeAgreement]:
    """Yields one row per runtime for a file; LiteRT is the first of them.

    Whatever a runtime does to a file is a row.
    """
    first: list[Array] | None = None
    for runtime in runtimes:
        try:
            outputs, milliseconds = _executed(
                runtime, names, inputs, judge.reference, time_limit
            )
        except RefusalError as refusal:
            yield judge.without_outputs(runtime, refusal=str(refusal))
            continue
        except CrashError as crash:
            yield judge.without_outputs(runtime, crash=str(crash))
            continue
        if runtime is runtimes[0]:
            first = outputs
        yield judge.row(runtime, outputs, first, milliseconds)


def _executed(
    runtime: Runtime,
    names: _NameSets,
    inputs: list[Array],
    reference: list[Array],
    time_limit: float | None,
) -> tuple[list[Array], float]:
    """Returns the file's outputs in the order of the Keras model's."""
    in_names, out_names = _of_file(runtime, names)
    found = runtime.execute(
        dict(zip(in_names, inputs, strict=True)), time_limit=time_limit
    )
    received = {name: part.shape for name, part in found.outputs.items()}
    shapes = [output.shape for output in reference]
    expected = dict(zip(out_names, shapes, strict=True))
    if received != expected:
        raise ValueError(
            f"{str(runtime.path)!r} must have the outputs of the Keras model, "
            f"{expected}. Received: {received}. Export this model again."
        )
    outputs = [found.outputs[name] for name in out_names]
    return outputs, found.milliseconds


def _of_file(runtime: Runtime, names: _NameSets) -> _NameSets:
    """Returns names; they do not matter where there is nothing to confuse."""
    in_names, out_names = names
    if len(in_names) == len(runtime.input_names) == 1:
        in_names = runtime.input_names
    if len(out_names) == len(runtime.output_names) == 1:
        out_names = runtime.output_names
    return in_names, out_names


def _warn_of_ranges(
    runtime: Runtime, names: tuple[str, ...], inputs: list[Array]
) -> None:
    in_names, _ = _of_file(runtime, (names, ()))
    for name, known in runtime.input_ranges.items():
        if name in in_names:
            warn_of_other_range(known, inputs[in_names.index(name)], "x")


def _path(source: Artifact) -> Path:
    return source.path if isinstance(source, TFLiteArtifact) else Path(source)
