"""Whether a teacher, a student and the losses between them fit together."""

import inspect
from collections.abc import Sequence
from numbers import Real
from typing import Any

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.losses import SoftTargets, output_activations, output_structure


def check_models(teacher: Any, student: Any) -> None:
    """Checks that both are models with the same inputs and outputs.

    Args:
        teacher: May be None.
        student: The student.

    Raises:
        ValueError: If not.
    """
    for role, model in (("teacher", teacher), ("student", student)):
        is_absent = role == "teacher" and model is None
        if not (is_absent or isinstance(model, keras.Model)):
            raise ValueError(
                f"`{role}` must be a keras.Model. Received: "
                f"{type(model).__name__}."
            )
    if teacher is None:
        return
    for end in ("inputs", "outputs"):
        theirs, ours = _shapes(teacher, end), _shapes(student, end)
        if theirs and ours and not _compatible(theirs, ours):
            raise ValueError(
                f"The {end} of teacher and student must have the same shapes. "
                f"Received: teacher {theirs}, student {ours}. Change the "
                f"student's {'Input' if end == 'inputs' else 'last layer'}."
            )
    _check_output_structure(teacher, student)
    _check_input_order(teacher, student)
    trained = {id(variable) for variable in student.trainable_variables}
    shared = [v.path for v in teacher.variables if id(v) in trained]
    if shared:
        raise ValueError(
            "Teacher and student must not share trainable weights: the "
            f"teacher would be trained too. Received shared: {shared}. Freeze "
            "them, or copy one model with keras.models.clone_model."
        )


def _check_output_structure(teacher: keras.Model, student: keras.Model) -> None:
    if not (_shapes(teacher, "outputs") and _shapes(student, "outputs")):
        return
    theirs, ours = (
        keras.tree.map_structure(lambda _: "tensor", output_structure(model))
        for model in (teacher, student)
    )
    if theirs != ours:
        raise ValueError(
            "Teacher and student must return their outputs in the same "
            f"structure. Received: teacher {theirs}, student {ours}. Rebuild "
            "one with keras.Model(model.input, outputs)."
        )


def _check_input_order(teacher: keras.Model, student: keras.Model) -> None:
    if not (_shapes(teacher, "inputs") and _shapes(student, "inputs")):
        return
    names = [[x.name for x in model.inputs] for model in (teacher, student)]
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        raise ValueError(
            "Teacher and student must take their inputs in the same order. "
            f"Received: teacher {names[0]}, student {names[1]}. Reorder one."
        )


def _shapes(model: keras.Model, end: str) -> list[tuple[int | None, ...]]:
    """Returns the shapes of a model's inputs or outputs; [] if unknown."""
    if _compat.functional_graph(model) is None:
        return []
    return [tuple(tensor.shape) for tensor in getattr(model, end)]


def _compatible(first: list[Any], second: list[Any]) -> bool:
    return [len(shape) for shape in first] == [
        len(shape) for shape in second
    ] and all(
        None in (a, b) or a == b
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def check_share(share: Any) -> None:
    """Checks the share of the hard loss.

    Raises:
        ValueError: If it is no number in [0, 1].
    """
    if not isinstance(share, Real) or not 0 <= float(share) <= 1:
        raise ValueError(
            "`student_loss_weight` must be a number in [0, 1]. Received: "
            f"student_loss_weight={share!r}."
        )


def resolved_losses(losses: Any, temperature: float) -> list[Any]:
    """Returns a list of distillation losses.

    Args:
        losses: What the user gave: None, one loss or several.
        temperature: Of the soft targets that None stands for.

    Raises:
        ValueError: If a loss is none, or comes with a temperature.
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

    The stock `LogitsDistillation` with its default loss compares raw logits.
    """
    if not isinstance(loss, keras.distillation.LogitsDistillation):
        return loss
    is_divergence = loss.loss is keras.losses.kl_divergence or isinstance(
        loss.loss, keras.losses.KLDivergence
    )
    return SoftTargets(loss.temperature) if is_divergence else loss


def resolved_weights(
    weights: Sequence[float] | None, count: int
) -> list[float]:
    """Returns one weight a loss.

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
            "`distillation_loss_weights` must have one number >= 0 a loss "
            f"({count}). Received: {weights!r}."
        )
    return [float(weight) for weight in weights]


def _is_weight(value: Any) -> bool:
    return isinstance(value, Real) and 0 <= float(value) < float("inf")


def check_soft_targets(
    teacher: keras.Model | None, student: keras.Model
) -> None:
    """Checks that soft targets mean something for these outputs.

    Raises:
        ValueError: For fewer than two classes, or outputs behind a sigmoid.
    """
    for role, model in (("teacher", teacher), ("student", student)):
        if model is None:
            continue
        for shape in _shapes(model, "outputs"):
            if shape[-1] == 1:
                raise ValueError(
                    "Soft targets need at least two classes. Received: a "
                    f"{role} with outputs of shape {shape}. Use two classes, "
                    "or distillation_losses of your own."
                )
        if "sigmoid" in output_activations(model):
            raise ValueError(
                "Soft targets need logits or softmax outputs. Received: a "
                f"{role} that ends in sigmoid. Leave the sigmoid out (with "
                "from_logits=True in the loss), or pass distillation_losses "
                "of your own."
            )


def check_needs_no_layer(loss: Any, teacher: keras.Model | None) -> None:
    """Checks that a loss can do without the teacher where there is none.

    Raises:
        ValueError: If it reads a layer of the teacher.
    """
    layer = getattr(loss, "teacher_layer_name", None)
    if teacher is None and layer:
        raise ValueError(
            "`teacher` must be given for a loss that reads its layers. "
            f"Received: teacher=None and {type(loss).__name__} of layer "
            f"'{layer}'. Give the teacher; packed inputs still spare its "
            "outputs."
        )


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


def weight_argument(loss: Any, sample_weight: Any) -> dict[str, Any]:
    """Returns the weights for a loss that takes them; refuses one that can't.

    Stock losses return one number a batch and would ignore them silently.
    """
    if sample_weight is None:
        return {}
    if "sample_weight" in inspect.signature(loss.compute_loss).parameters:
        return {"sample_weight": sample_weight}
    raise ValueError(
        "`sample_weight` and `class_weight` need distillation losses whose "
        f"`compute_loss` takes `sample_weight`. Received: {type(loss).__name__}"
        ", which does not. Use keras_kddp.SoftTargets, or leave the weights "
        "out."
    )
