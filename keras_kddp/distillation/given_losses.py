"""The distillation losses that a user gave, checked."""

import inspect
from collections.abc import Sequence
from numbers import Real
from typing import Any

import keras
import numpy as np

from keras_kddp.distillation.checks import check_soft_targets
from keras_kddp.distillation.feature_losses import matched_layer
from keras_kddp.distillation.soft_targets import SoftTargets
from keras_kddp.distillation.stock_losses import is_stock, stock_loss
from keras_kddp.model_io import Arrays


def resolved_losses(losses: Any, temperature: float) -> list[Any]:
    """Returns a list of distillation losses.

    Args:
        losses: What the user gave: None, one loss or several.
        temperature: Of the soft targets that None stands for.

    Raises:
        ValueError: If one is not a DistillationLoss, or comes with a
            temperature.
    """
    if losses is None:
        return [SoftTargets(temperature)]
    SoftTargets(temperature)  # says if the temperature is out of range
    if temperature != 4.0:
        raise ValueError(
            "`temperature` must be left out beside `distillation_losses`. "
            f"Received: temperature={temperature}. Give it to the loss: "
            f"keras_kddp.SoftTargets({temperature})."
        )
    if not isinstance(losses, (list, tuple)):
        losses = [losses]
    for loss in losses:
        if not isinstance(loss, keras.distillation.DistillationLoss):
            raise ValueError(
                "`distillation_losses` must be DistillationLoss objects. "
                f"Received: {loss!r}. Try keras_kddp.SoftTargets()."
            )
    if not losses:
        raise ValueError(
            "`distillation_losses` must not be empty; None means soft "
            "targets. Received: []."
        )
    return [_mended(loss) for loss in losses]


def _mended(loss: Any) -> Any:
    """Returns soft targets for the stock loss that means them.

    The stock `LogitsDistillation` compares raw logits where its divergence is
    given by name, as the default is, and softmax of them where it is an object.
    A subclass may do something else.
    """
    if type(loss) is not keras.distillation.LogitsDistillation:
        return loss
    compared = keras.tree.map_structure(_divergence_as_object, loss.loss)
    if _is_mean_divergence(compared):
        return SoftTargets(loss.temperature)
    if not keras.tree.is_nested(compared):
        return loss
    return keras.distillation.LogitsDistillation(loss.temperature, compared)


def _is_mean_divergence(loss: Any) -> bool:
    return (
        type(loss) is keras.losses.KLDivergence
        and loss.reduction == "sum_over_batch_size"
    )


def _divergence_as_object(loss: Any) -> Any:
    if loss is keras.losses.kl_divergence:
        return keras.losses.KLDivergence()
    return loss


def resolved_weights(
    weights: Sequence[float] | None, count: int
) -> list[float]:
    """Returns one weight per loss.

    Raises:
        ValueError: If there are more or fewer weights than losses, or one is
            no number >= 0.
    """
    if weights is None:
        return [1.0] * count
    is_list = isinstance(weights, (Sequence, np.ndarray))
    if (
        not is_list
        or len(weights) != count
        or not all(map(_is_weight, weights))
    ):
        raise ValueError(
            "`distillation_loss_weights` must have one number >= 0 per loss "
            f"({count}). Received: {weights!r}."
        )
    return [float(weight) for weight in weights]


def _is_weight(value: Any) -> bool:
    return isinstance(value, Real) and 0 <= float(value) < float("inf")


def check_losses(
    losses: Sequence[Any],
    teacher: keras.Model | None,
    student: keras.Model,
    student_loss_weight: float,
) -> None:
    """Checks that losses can compare a teacher and a student.

    Args:
        losses: The distillation losses.
        teacher: May be None.
        student: The student.
        student_loss_weight: 1 leaves the losses unused: any outputs will do.

    Raises:
        ValueError: If the models' outputs or layers do not suit one of them,
            or it reads a layer of a teacher that is not there.
    """
    for loss in losses:
        if isinstance(loss, SoftTargets) and student_loss_weight < 1:
            check_soft_targets(teacher, student)
        layer = matched_layer(loss, "teacher")
        if teacher is None and layer:
            raise ValueError(
                "`teacher` must be given for a loss that reads its layers. "
                f"Received: teacher=None and {type(loss).__name__} of layer "
                f"'{layer}'. Give the teacher; packed inputs still spare its "
                "outputs."
            )
        if teacher is not None:
            loss.validate_model_compatibility(teacher, student)


def check_scalar(loss: Any, value: Any) -> None:
    """Checks that a distillation loss is one number.

    Raises:
        ValueError: If it has a shape: its sum would be trained on.
    """
    shape = tuple(getattr(value, "shape", ()))
    if shape:
        raise ValueError(
            "A distillation loss must return a scalar. Received from "
            f"{type(loss).__name__}: shape {shape}. Take keras.ops.mean of it."
        )


def loss_value(
    loss: Any, outputs: tuple[Arrays, Arrays], weights: Arrays
) -> Any:
    """Returns the value of a distillation loss with weights.

    Args:
        loss: A distillation loss.
        outputs: What it compares, the teacher's first.
        weights: Of examples or positions, 0 for padding, or None.

    Raises:
        ValueError: If the loss does not take the weights that are there: it
            returns one number per batch and would ignore them silently.
    """
    if all(weight is None for weight in keras.tree.flatten(weights)):
        return loss.compute_loss(*outputs)
    if "sample_weight" in inspect.signature(loss.compute_loss).parameters:
        return loss.compute_loss(*outputs, sample_weight=weights)
    if is_stock(loss):
        return stock_loss(loss, *outputs, weights)
    raise ValueError(
        "`sample_weight`, `class_weight` and Keras masks need distillation "
        "losses that take `sample_weight`, which is 0 for padding. Received: "
        f"{type(loss).__name__}, which does not. Add `sample_weight=None` to "
        "its compute_loss and multiply by it, use keras_kddp.SoftTargets or "
        "FeatureHints, or leave the weights and mask_zero out."
    )
