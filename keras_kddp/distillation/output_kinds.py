"""Whether the outputs of a student are class scores, as soft targets need."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras

from keras_kddp import _compat
from keras_kddp.distillation.by_output import by_output, keys_of_outputs
from keras_kddp.model_io import (
    output_activations,
    output_names,
    output_structure,
)

_FUNCTIONS_OF_CLASSES = {
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
    "categorical_hinge",
    "ctc",
    "kl_divergence",
    "sparse_categorical_crossentropy",
}
# What Keras turns into a crossentropy that suits the shapes.
_CHOSEN_BY_SHAPE = {"crossentropy", "ce"}
_METRICS_CHOSEN_BY_SHAPE = {"accuracy", "acc", "crossentropy", "ce"}
_OF_CLASSES = {"softmax", "log_softmax", "logsoftmax"}  # last: keras.ops
# They squash each number by itself: no scores that a softmax is still due.
_OF_INDEPENDENT_NUMBERS = {
    "exponential",
    "hard_sigmoid",
    "relu",
    "relu6",
    "sigmoid",
    "softplus",
    "tanh",
}


_METRICS_OF_CLASSES = (
    keras.metrics.CategoricalAccuracy,
    keras.metrics.CategoricalCrossentropy,
    keras.metrics.SparseCategoricalAccuracy,
    keras.metrics.SparseCategoricalCrossentropy,
    keras.metrics.SparseTopKCategoricalAccuracy,
    keras.metrics.TopKCategoricalAccuracy,
)


class _Output(NamedTuple):
    """One output of a student.

    Attributes:
        name: Empty where it is the only one.
        activation: `""` where it cannot be told.
        losses: Its hard losses; several are added.
    """

    name: str
    activation: str
    losses: list[Any]


def check_class_scores(
    loss: Any, student: keras.Model, remedy: str | None = None
) -> None:
    """Checks that the default soft targets mean something for a student.

    Class scores are what ends in softmax or log_softmax, and what has a loss
    of classes: a categorical crossentropy, focal ones and `ctc` among them,
    `kl_divergence` or `categorical_hinge`. Keras' other losses, such as
    `binary_crossentropy` or `mse`, compare independent numbers. Without a
    loss, and for a function or class of the user's own, of which nothing is
    known, the last activation decides alone: logits are class scores, what
    ends in sigmoid, tanh or relu is none.

    Args:
        loss: What `compile` takes: a loss or a structure of them, or None.
        student: Its outputs are judged one by one.
        remedy: What to do if they are no class scores; None: to give a
            Distiller other losses.

    Raises:
        ValueError: If an output is no class scores.
    """
    outputs = _outputs(loss, student)
    are_class_scores = list(map(_is_class_scores, outputs))
    for output, is_class_scores in zip(outputs, are_class_scores, strict=True):
        if is_class_scores:
            continue
        place = f" for output '{output.name}'" if output.name else ""
        losses = ", ".join(map(_shown, output.losses)) or "None"
        ending = (
            f", which ends in {output.activation}" if output.activation else ""
        )
        raise ValueError(
            "The default soft targets put a softmax over the outputs, which "
            f"must be class scores. Received: loss={losses}{place}{ending}: "
            "numbers independent of each other. "
            f"{remedy or _other_losses(student, are_class_scores)}"
        )


def evidence_of_classes(model: keras.Model) -> list[str]:
    """Returns what says of each output of a model that it is class scores.

    Args:
        model: A built Sequential or Functional model, compiled or not.

    Returns:
        For each flat output `"compile"` where it has a loss or a metric of
        classes; else its last activation, if that is `"softmax"`,
        `"log_softmax"` or, of a raw operation, `"logsoftmax"`; else `""`.
    """
    outputs = _outputs(model.loss, model)
    metrics = _losses_by_output(_compat.compiled_metrics(model), model)
    return [
        "compile"
        if {_name_in_keras(loss) for loss in output.losses}
        & _FUNCTIONS_OF_CLASSES
        or any(map(_is_metric_of_classes, given))
        else output.activation * (output.activation in _OF_CLASSES)
        for output, given in zip(outputs, metrics.values(), strict=True)
    ]


class _Code(str):
    """Python code that a structure shows as it is."""

    __repr__ = str.__str__


def _other_losses(student: keras.Model, are_class_scores: list[bool]) -> str:
    """Returns which distillation losses fit, an example of them included."""
    codes = [
        _Code("keras.losses.KLDivergence()" if is_class_scores else "'mse'")
        for is_class_scores in are_class_scores
    ]
    loss: Any = codes if len(codes) > 1 else codes[0]
    structure = output_structure(student) if output_names(student) else codes
    # Keras returns the only output of a list alone.
    if len(codes) > 1 or isinstance(structure, Mapping):
        loss = keras.tree.pack_sequence_as(structure, codes)
    return (
        "Pass `distillation_losses` that fit them, such as keras.distillation."
        f"LogitsDistillation(1.0, loss={loss!r}) or keras_kddp.FeatureHints, "
        "or keras_kddp.SoftTargets() if they are class scores after all; or "
        "set student_loss_weight=1."
    )


def _is_class_scores(output: _Output) -> bool:
    names = {_name_in_keras(loss) for loss in output.losses}
    if output.activation in _OF_CLASSES or names & _FUNCTIONS_OF_CLASSES:
        return True
    is_known = any(name is not None for name in names)
    return not is_known and output.activation not in _OF_INDEPENDENT_NUMBERS


def _is_metric_of_classes(metric: Any) -> bool:
    is_name = isinstance(metric, str)
    if is_name and metric.lower() not in _METRICS_CHOSEN_BY_SHAPE:
        metric = keras.metrics.get(metric)
    return isinstance(metric, _METRICS_OF_CLASSES)


def _name_in_keras(loss: Any) -> str | None:
    """Returns which of Keras' functions a loss is, None for one of others."""
    if isinstance(loss, str):
        if loss.lower() in _CHOSEN_BY_SHAPE:
            return "categorical_crossentropy"
        loss = keras.losses.get(loss)
    if isinstance(loss, type):  # which Keras makes a loss of, too
        loss = loss()
    function = _function(loss)
    if not str(getattr(function, "__module__", "")).startswith("keras."):
        return None
    name = getattr(function, "__name__", type(function).__name__)
    return str(name)


def _function(loss: Any) -> Any:
    """Returns the function that a wrapper of Keras or functools calls."""
    while True:
        if isinstance(loss, functools.partial):
            loss = loss.func
        elif isinstance(loss, keras.losses.Loss) and hasattr(loss, "fn"):
            loss = loss.fn
        else:
            return loss


def _shown(loss: Any) -> str:
    if isinstance(loss, str):
        return f"'{loss}'"
    if isinstance(loss, keras.losses.Loss):
        return type(loss).__name__
    return getattr(_function(loss), "__name__", repr(loss))


def _outputs(loss: Any, student: keras.Model) -> list[_Output]:
    """Returns the outputs of a student, each with its losses."""
    activations = output_activations(student)
    losses = _losses_by_output(loss, student)
    if not activations:  # no graph: the losses are all that is known
        activations = [""] * len(losses)
    names = list(losses) if len(losses) > 1 else [""]
    return [
        _Output(name, activation, each)
        for name, activation, each in zip(
            names, activations, losses.values(), strict=True
        )
    ]


def _losses_by_output(loss: Any, student: keras.Model) -> dict[str, list[Any]]:
    """Returns the losses by the name of the flat output, in its order.

    Keras itself, which sees the labels too, says what does not fit.
    """
    names = output_names(student)
    if not names:
        return _of_unknown_outputs(loss)
    structure = output_structure(student)
    keys = keys_of_outputs(structure, names)
    is_for_each = len(keys) > 1 and keras.tree.is_nested(loss)
    if is_for_each or isinstance(loss, Mapping):
        losses = by_output(loss, structure, names) or [None] * len(keys)
    else:
        losses = [loss] * len(keys)
    return {key: _flat(each) for key, each in zip(keys, losses, strict=True)}


def _of_unknown_outputs(loss: Any) -> dict[str, list[Any]]:
    if isinstance(loss, Mapping):
        return {str(name): _flat(each) for name, each in loss.items()}
    flat = keras.tree.flatten(loss)
    return {str(number): _flat(each) for number, each in enumerate(flat)}


def _flat(losses: Any) -> list[Any]:
    is_list = isinstance(losses, Sequence) and not isinstance(losses, str)
    return [x for x in (losses if is_list else [losses]) if x is not None]
