"""Whether TFMOT can do what is asked for, and whether it did."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import keras

from keras_kddp.arguments import (
    LARGEST_COUNT,
    LARGEST_SEED,
    check_share,
    require_count,
)
from keras_kddp.data.splits import Split, as_split, check_split
from keras_kddp.distillation.checks import check_models, check_soft_targets
from keras_kddp.distillation.soft_targets import SoftTargets
from keras_kddp.export.errors import TFMOTError
from keras_kddp.export.keras2.tfmot_process import Trained

_SCALING = ("Normalization", "Rescaling")
_SLACK = 0.01  # of the share of zeros

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


def checked_options(**options: Any) -> dict[str, Any]:
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
        largest = LARGEST_SEED if name == "seed" else LARGEST_COUNT
        require_count(name, options[name], smallest=smallest, largest=largest)
    check_share(options["student_loss_weight"])
    _check_learning_rate(options["learning_rate"])
    _check_sparsity(options["sparsity"])
    temperature = SoftTargets(options["temperature"]).temperature
    counts = ("epochs", "batch_size", "clusters", "seed")
    shares = ("learning_rate", "sparsity", "student_loss_weight")
    return {
        "techniques": techniques,
        "temperature": temperature,
        **{name: int(options[name]) for name in counts},
        **{name: float(options[name]) for name in shares},
    }


def _check_learning_rate(rate: Any) -> None:
    if not _is_real(rate) or not 0 < rate < float("inf"):
        raise ValueError(
            "`learning_rate` must be a finite number > 0. Received: "
            f"learning_rate={rate!r}. Try 5e-4."
        )


def _check_sparsity(sparsity: Any) -> None:
    if not _is_real(sparsity) or not 0 < sparsity < 1:
        raise ValueError(
            "`sparsity` must be a number in (0, 1). Received: "
            f"sparsity={sparsity!r}. Half of the weights: 0.5."
        )


def check_layers(
    description: Mapping[str, Any], techniques: Sequence[str]
) -> None:
    """Refuses layers that TFMOT would treat otherwise than one expects.

    Raises:
        ValueError: If one is frozen, would be taken apart or scales inputs.
    """
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
    scaling = [name for name, entry in layers if entry["class"] in _SCALING]
    if scaling and "quantization" in techniques:
        raise ValueError(
            "For quantization `student` must be without layers that scale "
            f"inputs, which TFMOT does not take. Received: {scaling}. Make the "
            "student without them, for inputs that are scaled before "
            "(npz:FILE,scale=255), or leave TFMOT out: `to_tflite`, and kddp "
            "export without --qat, quantize such a student as it is."
        )


def check_clusters(
    description: Mapping[str, Any],
    weights: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Refuses more clusters than a kernel has weights.

    Raises:
        ValueError: If there are more.
    """
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


def checked_data(
    student: keras.Model, teacher: keras.Model | None, train: Any
) -> Split:
    """Returns the data as arrays, after all checks.

    Raises:
        ValueError: If student, teacher and data do not fit together.
    """
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
            "`student` must put out one row of classes per example. Received: "
            f"outputs of shape {student.outputs[0].shape}. Quantize it after "
            "training, with keras_kddp.export.to_tflite."
        )
    split = as_split("train", train)
    check_split("train", split, student)
    return split


def check_reached(
    trained: Trained,
    options: Mapping[str, Any],
    description: Mapping[str, Any],
) -> None:
    """Refuses kernels that TFMOT treated otherwise; it may say nothing.

    Args:
        trained: What came out of TFMOT.
        options: What it was asked for.
        description: Of the student.

    Raises:
        TFMOTError: If a kernel has too few zeros or too many values.
    """
    sparsity, clusters = options["sparsity"], options["clusters"]
    missed: dict[str, float] = {}
    if "sparsity" in options["techniques"]:
        shares = trained.zero_fractions.items()
        missed |= {k: share for k, share in shares if share < sparsity - _SLACK}
    if "clustering" in options["techniques"]:
        counts = trained.distinct_values.items()
        missed |= {k: count for k, count in counts if count > clusters}
    missed = {
        name: number
        for name, number in missed.items()
        if not _is_depthwise(name, description)
    }
    if missed:
        raise TFMOTError(
            f"TFMOT must reach {sparsity:.0%} zeros or {clusters} different "
            f"values. Received instead: {missed}. Train for more epochs."
        )


def _is_depthwise(name: str, description: Mapping[str, Any]) -> bool:
    layer, _, weight = name.partition(":")
    kind = description["layers"][layer]["class"]
    is_mixing = not kind.startswith(("Depthwise", "Separable"))
    return weight == "kernel" and not is_mixing
