"""Compact students fine-tuned by TFMOT: for int8, with zeros, in clusters."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from keras_kddp.atomic_files import replacing
from keras_kddp.data.batches import batches_of
from keras_kddp.data.splits import Split
from keras_kddp.distillation.teacher.outputs import teacher_outputs
from keras_kddp.export.errors import TFMOTError
from keras_kddp.export.keras2.bridge import (
    as_named,
    describe,
    named_layers,
    plain_copy,
)
from keras_kddp.export.keras2.tfmot_checks import (
    check_clusters,
    check_layers,
    checked_data,
    checked_options,
    not_reached,
)
from keras_kddp.export.model.signature import output_names
from keras_kddp.export.tflite.artifact import (
    TFLiteArtifact,
    artifact_of,
    check_target,
    entries_of,
)
from keras_kddp.export.tflite.calibration import calibration_rows
from keras_kddp.export.tflite.to_tflite import convert_into
from keras_kddp.export.workers import portable_models as _portable_models
from keras_kddp.export.workers import worker
from keras_kddp.export.workers.worker import Worker, WorkerError
from keras_kddp.extras import absence_of, require
from keras_kddp.model_io import output_activations
from keras_kddp.progress import EpochProgress, epoch_bars


@dataclass(frozen=True)
class TFMOTResult:
    """A fine-tuned student.

    Attributes:
        model: The Keras 3 model with the new weights; that of quantization is
            without its roundings.
        tflite: Its int8 file, with TFMOT's ranges where it was quantized and
            calibrated otherwise.
        zero_fractions: "layer:weight" -> share of zeros, of every kernel.
        distinct_values: Likewise, the number of different values.
        history: Loss and accuracy on the training data, an entry an epoch.
    """

    model: keras.Model
    tflite: TFLiteArtifact
    zero_fractions: dict[str, float]
    distinct_values: dict[str, int]
    history: tuple[dict[str, float], ...]


def finetune_with_tfmot(
    student: keras.Model,
    train: Any,
    path: str | os.PathLike[str],
    *,
    techniques: Sequence[str] = ("quantization",),
    teacher: keras.Model | None = None,
    epochs: int = 3,
    batch_size: int = 128,
    learning_rate: float = 5e-4,
    temperature: float = 4.0,
    student_loss_weight: float = 0.1,
    sparsity: float = 0.5,
    clusters: int = 16,
    samples: int = 256,
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
) -> TFMOTResult:
    """Fine-tunes a student with TensorFlow Model Optimization.

    TFMOT takes models of tf_keras only: the student goes there and back in a
    process of its own, and every stage learns from the teacher as in the
    `Distiller`, with Adam on a cosine to 0. The given student stays as it is.

    Args:
        student: A built classifier of one input and one output, of ordinary
            layers; see `to_tf_keras`.
        train: `(x, y)` or `(x, y, sample_weight)`, as `keras_kddp.compress`
            takes it; some rows calibrate the file.
        path: File for the int8 model, ending in `.tflite`.
        techniques: One of `TECHNIQUES`: `"quantization"` trains with the
            roundings of int8, `"sparsity"` zeroes the smallest weights,
            `"clustering"` leaves few different ones; neither makes the file
            smaller before it is compressed.
        teacher: Trained classifier; None: the labels alone teach.
        epochs: Of each technique.
        batch_size: Examples a step.
        learning_rate: At the start of each technique.
        temperature: Of the soft targets.
        student_loss_weight: Share of the labels, in [0, 1].
        sparsity: Share of zeros in every kernel, in (0, 1).
        clusters: Different values in every kernel, at least 2. TFMOT leaves
            depthwise kernels as they are, for this and for zeros.
        samples: At most so many rows calibrate.
        seed: Of shuffling.
        metadata: Entries for the file, as `to_tflite` takes them.

    Raises:
        ImportError: If tensorflow-model-optimization is not installed.
        ValueError: If arguments, models or data do not fit.
        OSError: If the file cannot be written.
        TFMOTError: If TFMOT fails, with what it said, or does not reach the
            zeros and clusters.
        ExportError: If the result cannot be converted.

    Example:
        ```python
        found = keras_kddp.export.finetune_with_tfmot(
            student, (x, y), "student_qat.tflite", teacher=teacher
        )
        print(keras_kddp.export.verify(found.model, found.tflite, x_test))
        ```
    """
    require(
        "Students are fine-tuned by",
        "TFMOT in tf_keras",
        absence_of("tensorflow_model_optimization", "tf_keras"),
    )
    target = Path(path)
    check_target(target)
    options = checked_options(
        techniques=techniques,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        temperature=temperature,
        student_loss_weight=student_loss_weight,
        sparsity=sparsity,
        clusters=clusters,
        samples=samples,
        seed=seed,
    )
    split = checked_data(student, teacher, train)
    plain = plain_copy(student)
    options["is_softmax"] = "softmax" in output_activations(plain)
    description, weights = describe(plain)
    check_layers(description, options["techniques"])
    check_clusters(description, weights, options)
    entries = entries_of(
        plain,
        "int8",
        metadata,
        finetuned_with=f"TFMOT: {', '.join(options['techniques'])}",
    )
    rows = calibration_rows(plain, split.x, samples)
    with (
        replacing(target) as partial,
        tempfile.TemporaryDirectory(prefix="keras_kddp_") as name,
    ):
        folder = Path(name)
        np.savez(folder / "weights.npz", **as_named(weights))
        np.savez(folder / "data.npz", **_data(split, teacher))
        reply, history = _trained(
            {
                "description": description,
                "weights": str(folder / "weights.npz"),
                "data": str(folder / "data.npz"),
                "options": options,
                "found": str(folder / "found.npz"),
                "saved_model": str(folder / "saved_model"),
                "outputs": list(output_names(plain)),
            }
        )
        missed = not_reached(reply, options, description)
        if missed:
            raise TFMOTError(
                f"TFMOT must reach {sparsity:.0%} zeros or {clusters} "
                f"different values. Received instead: {missed}. Train for "
                "more epochs."
            )
        with np.load(folder / "found.npz") as file:
            _portable_models.set_weights(named_layers(plain), dict(file))
        saved_model = folder / "saved_model"
        convert_into(partial, saved_model, "int8", rows, entries=entries)
    return TFMOTResult(
        model=plain,
        tflite=artifact_of(target, plain, "int8"),
        zero_fractions=reply["zero_fractions"],
        distinct_values=reply["distinct_values"],
        history=tuple(history),
    )


def _data(split: Split, teacher: keras.Model | None) -> dict[str, Any]:
    data = {
        "x": keras.tree.flatten(split.x)[0],
        "y": keras.tree.flatten(split.y)[0],
    }
    if split.sample_weight is not None:
        data["sample_weight"] = split.sample_weight
    if teacher is not None:
        (found,) = teacher_outputs(
            [teacher], batches_of(split.x, 256), as_logits=True
        )
        data["teacher"] = found.values.astype("float32")
    return data


@cache
def _worker() -> Worker:
    return Worker(
        Path(worker.__file__).with_name("tfmot_program.py"),
        environment={"TF_USE_LEGACY_KERAS": "1"},
    )


def _trained(
    request: dict[str, Any],
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Returns the reply of TFMOT's process and what it said on the way."""
    options = request["options"]
    epochs = options["epochs"] * len(options["techniques"])
    history: list[dict[str, float]] = []
    with epoch_bars(Console(stderr=True)) as bars:
        bar = EpochProgress(bars, ", ".join(options["techniques"]), epochs)

        def note(state: dict[str, float]) -> None:
            history.append(state)
            bar.on_epoch_end(int(state["epoch"]) - 1)

        try:
            reply = _worker().ask(request, progress=note)
        except WorkerError as death:
            raise TFMOTError(
                "TFMOT must survive the student. Received: its process ended "
                f"with {death.cause}. {death.log}"
            ) from None
        bar.on_train_end()
    if reply["error"] is not None:
        raise TFMOTError(
            "TFMOT must take the student. It said: "
            f"{' '.join(reply['error'].split())}"
        )
    return reply, history
