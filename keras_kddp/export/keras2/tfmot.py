"""Compact students fine-tuned by TFMOT: for int8, with zeros, in clusters."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_kddp.arguments import require_time_limit
from keras_kddp.atomic_files import replacing
from keras_kddp.data.batches import batches_of
from keras_kddp.data.splits import Split
from keras_kddp.distillation.teacher.outputs import teacher_outputs
from keras_kddp.export.keras2.descriptions import describe, named_layers
from keras_kddp.export.keras2.tfmot_checks import (
    check_clusters,
    check_layers,
    check_reached,
    checked_data,
    checked_options,
)
from keras_kddp.export.keras2.tfmot_process import (
    TFMOT_SECONDS,
    require_tfmot,
    train_with_tfmot,
)
from keras_kddp.export.model.float32 import plain_copy
from keras_kddp.export.model.signature import output_names
from keras_kddp.export.tflite.artifact import (
    TFLiteArtifact,
    artifact_of,
    check_target,
    entries_of,
)
from keras_kddp.export.tflite.calibration import calibration_rows
from keras_kddp.export.tflite.names import names_of
from keras_kddp.export.tflite.to_tflite import convert_into
from keras_kddp.export.workers import portable_models
from keras_kddp.export.workers.guard import temporary_folder
from keras_kddp.model_io import Array, output_activations


@dataclass(frozen=True)
class TFMOTResult:
    """A fine-tuned student.

    Attributes:
        model: The Keras 3 model with the new weights; that of quantization is
            without its roundings.
        tflite: Its int8 file, with TFMOT's ranges where it was quantized and
            calibrated otherwise.
        zero_fractions: "layer:weight" -> share of zeros, of every kernel.
        distinct_values: "layer:weight" -> number of different values, of
            every kernel.
        history: Epoch, loss and accuracy on the training data, by epoch.
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
    time_limit: float | None = TFMOT_SECONDS,
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
        techniques: One or several, in this order: `"sparsity"` zeroes the
            smallest weights, `"clustering"` leaves few different ones, neither
            makes the file smaller before it is compressed; `"quantization"`
            trains with the roundings of int8.
        teacher: Trained classifier; None: the labels alone teach.
        epochs: Of each technique.
        batch_size: Examples per step.
        learning_rate: At the start of each technique.
        temperature: Of the soft targets.
        student_loss_weight: Share of the labels, in [0, 1].
        sparsity: Share of zeros in every kernel, in (0, 1).
        clusters: Different values in every kernel, at least 2. TFMOT leaves
            depthwise kernels as they are, for this and for zeros.
        samples: At most so many rows calibrate.
        seed: Of shuffling.
        metadata: Entries for the file, as `to_tflite` takes them.
        time_limit: Seconds that TFMOT may take for a batch or between two
            techniques, and the converter for the file; None: no limit.

    Raises:
        ImportError: If tensorflow-model-optimization is not installed.
        ValueError: If arguments, models or data do not fit.
        OSError: If the file cannot be written.
        TFMOTError: If TFMOT fails, with what it said, does not end in
            `time_limit`, or does not reach the zeros and clusters.
        ExportError: If the result cannot be converted.

    Example:
        ```python
        found = keras_kddp.export.finetune_with_tfmot(
            student, (x, y), "student_qat.tflite", teacher=teacher
        )
        print(keras_kddp.export.verify(found.model, found.tflite, x_test))
        ```
    """
    require_tfmot()
    target = Path(path)
    check_target(target)
    require_time_limit(time_limit)
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
    description, weights = _checked_description(plain, options)
    entries = _entries(plain, options, metadata)
    rows = calibration_rows(plain, split.x, samples)
    with replacing(target) as new, temporary_folder() as folder:
        trained = train_with_tfmot(
            folder,
            description,
            weights,
            _data(split, teacher),
            options=options,
            outputs=list(output_names(plain)),
            time_limit=time_limit,
        )
        check_reached(trained, options, description)
        portable_models.set_weights(named_layers(plain), dict(trained.weights))
        convert_into(
            new,
            trained.saved_model,
            "int8",
            rows,
            names=names_of(plain, is_traced=False),
            entries=entries,
            time_limit=time_limit,
        )
    return TFMOTResult(
        model=plain,
        tflite=artifact_of(target, plain, "int8"),
        zero_fractions=trained.zero_fractions,
        distinct_values=trained.distinct_values,
        history=tuple(trained.history),
    )


def _checked_description(
    plain: keras.Model, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Returns description and weights of a student that TFMOT can take.

    Raises:
        ValueError: If it cannot.
    """
    description, weights = describe(plain)
    check_layers(description, options["techniques"])
    check_clusters(description, weights, options)
    return description, weights


def _entries(
    plain: keras.Model,
    options: Mapping[str, Any],
    metadata: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns what the file says about itself."""
    techniques = ", ".join(options["techniques"])
    return entries_of(
        plain, "int8", metadata, finetuned_with=f"TFMOT: {techniques}"
    )


def _data(split: Split, teacher: keras.Model | None) -> dict[str, Array]:
    """Returns what the student learns from, row by row."""
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
