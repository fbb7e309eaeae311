"""Compact students fine-tuned by TFMOT: for int8, with zeros, in clusters."""

import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from keras_kddp.activity import batches_of
from keras_kddp.arguments import require_count
from keras_kddp.compatibility import (
    check_models,
    check_share,
    check_soft_targets,
)
from keras_kddp.export import _portable_models
from keras_kddp.export._signature import output_names
from keras_kddp.export._worker import Worker, WorkerError
from keras_kddp.export.tf_keras_bridge import (
    as_named,
    describe,
    named_layers,
    plain_copy,
)
from keras_kddp.export.tflite import (
    TFLiteArtifact,
    artifact_of,
    calibration_rows,
    check_target,
    convert_into,
    entries_of,
    replacing,
)
from keras_kddp.losses import SoftTargets, output_activations
from keras_kddp.progress import EpochProgress, epoch_bars
from keras_kddp.splits import Split, as_split, check_split
from keras_kddp.teacher_outputs import teacher_outputs

TECHNIQUES = (
    ("quantization",),
    ("sparsity",),
    ("clustering",),
    ("sparsity", "clustering"),
    ("sparsity", "quantization"),
    ("clustering", "quantization"),
    ("sparsity", "clustering", "quantization"),
)
"""What TFMOT can do one after the other; the later keeps the former."""


_SLACK = 0.01  # of the share of zeros


class TFMOTError(RuntimeError):
    """TFMOT could not do it; the student is as it was, no file was written."""


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
    _require_tfmot()
    target = Path(path)
    check_target(target)
    options = _checked_options(
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
    split = _checked_data(student, teacher, train)
    plain = plain_copy(student)
    options["is_softmax"] = "softmax" in output_activations(plain)
    description, weights = describe(plain)
    _check_layers(description, options["techniques"])
    _check_clusters(description, weights, options)
    entries = entries_of(plain, "int8", metadata)
    if "finetuned_with" in entries:
        raise ValueError(
            "`metadata` must leave 'finetuned_with' to the export. Received: "
            f"{metadata!r}. Use another name."
        )
    entries["finetuned_with"] = "TFMOT: " + ", ".join(options["techniques"])
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
        _check_reached(reply, options, description)
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


def _require_tfmot() -> None:
    missing = [
        name
        for name in ("tensorflow_model_optimization", "tf_keras")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(
            f"Fine-tuning with TFMOT needs {', '.join(missing)}, which is not "
            "installed here. Install it: pip install 'keras-kddp[tfmot]'"
        )


def _checked_options(**options: Any) -> dict[str, Any]:
    """Returns the options that need no model, as JSON can hold them.

    Raises:
        ValueError: If one is no such thing, or out of range.
    """
    techniques = options["techniques"]
    if isinstance(techniques, list | tuple):
        techniques = tuple(techniques)
    if techniques not in TECHNIQUES:
        raise ValueError(
            f"`techniques` must be one of {TECHNIQUES}. Received: "
            f"techniques={techniques!r}."
        )
    for name, smallest in (
        ("samples", 1),
        ("epochs", 1),
        ("batch_size", 1),
        ("clusters", 2),
        ("seed", 0),
    ):
        require_count(name, options[name], smallest=smallest)
    check_share(options["student_loss_weight"])
    rate, sparsity = options["learning_rate"], options["sparsity"]
    if not _is_real(rate) or not 0 < rate < float("inf"):
        raise ValueError(
            "`learning_rate` must be a finite number > 0. Received: "
            f"learning_rate={rate!r}. Try 5e-4."
        )
    if not _is_real(sparsity) or not 0 < sparsity < 1:
        raise ValueError(
            "`sparsity` must be a number in (0, 1). Received: "
            f"sparsity={sparsity!r}. Half of the weights: 0.5."
        )
    temperature = SoftTargets(options["temperature"]).temperature
    counts = ("epochs", "batch_size", "clusters", "seed")
    shares = ("learning_rate", "sparsity", "student_loss_weight")
    return {
        "techniques": techniques,
        "temperature": temperature,
        **{name: int(options[name]) for name in counts},
        **{name: float(options[name]) for name in shares},
    }


def _check_layers(
    description: Mapping[str, Any], techniques: Sequence[str]
) -> None:
    layers = description["layers"].items()
    frozen = [
        name
        for name, entry in layers
        if not entry["config"].get("trainable", True)
        and not entry["class"].endswith("Normalization")
    ]
    if frozen:
        raise ValueError(
            "`student` must have no frozen layers: TFMOT trains them all. "
            f"Received frozen: {frozen}. Set trainable = True."
        )
    split = [
        name for name, entry in layers if entry["class"].startswith("Separable")
    ]
    if split and "quantization" in techniques:
        raise ValueError(
            "For quantization `student` must be without separable "
            f"convolutions, which TFMOT takes apart. Received: {split}. Write "
            "a DepthwiseConv2D and a Conv2D of size 1 instead."
        )


def _check_clusters(
    description: Mapping[str, Any],
    weights: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    small = {
        name: weight.size
        for name, weight in weights.items()
        if name.endswith("kernel")
        and weight.size < options["clusters"]
        and not _is_depthwise(name, description)
    }
    if small and "clustering" in options["techniques"]:
        raise ValueError(
            "`clusters` must be at most the number of weights in every "
            f"kernel. Received: clusters={options['clusters']} for {small}. "
            f"Try clusters={min(small.values())}."
        )


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _checked_data(
    student: keras.Model, teacher: keras.Model | None, train: Any
) -> Split:
    check_models(teacher, student)
    check_soft_targets(teacher, student)
    if len(student.inputs) != 1 or len(student.outputs) != 1:
        raise ValueError(
            "`student` must have one input and one output. Received: "
            f"{len(student.inputs)} and {len(student.outputs)}. Quantize it "
            "after training, with keras_kddp.export.to_tflite."
        )
    if "float" not in student.inputs[0].dtype:
        raise ValueError(
            "`student` must take floats. Received: an input of dtype "
            f"{student.inputs[0].dtype}. Cast and scale the data before."
        )
    if len(student.outputs[0].shape) != 2:
        raise ValueError(
            "`student` must put out one row of classes an example. Received: "
            f"outputs of shape {student.outputs[0].shape}. Quantize it after "
            "training, with keras_kddp.export.to_tflite."
        )
    split = as_split("train", train)
    check_split("train", split, student)
    return split


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
        Path(__file__).with_name("_tfmot.py"),
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


def _check_reached(
    reply: Mapping[str, Any],
    options: Mapping[str, Any],
    description: Mapping[str, Any],
) -> None:
    """Raises if TFMOT did not do what it was asked for; it may say nothing."""
    missed: dict[str, float] = {}
    if "sparsity" in options["techniques"]:
        least = options["sparsity"] - _SLACK
        shares = reply["zero_fractions"]
        missed |= {k: share for k, share in shares.items() if share < least}
    if "clustering" in options["techniques"]:
        counts, most = reply["distinct_values"], options["clusters"]
        missed |= {k: count for k, count in counts.items() if count > most}
    missed = {
        name: number
        for name, number in missed.items()
        if not _is_depthwise(name, description)
    }
    if missed:
        raise TFMOTError(
            f"TFMOT must reach {options['sparsity']:.0%} zeros or "
            f"{options['clusters']} different values. Received instead: "
            f"{missed}. Train for more epochs."
        )


def _is_depthwise(name: str, description: Mapping[str, Any]) -> bool:
    layer, _, weight = name.partition(":")
    kind = description["layers"][layer]["class"]
    is_mixing = not kind.startswith(("Depthwise", "Separable"))
    return weight == "kernel" and not is_mixing
