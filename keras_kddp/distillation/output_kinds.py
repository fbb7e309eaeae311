"""Whether the outputs of a student are class scores, as soft targets need."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras

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
_OF_CLASSES = {"softmax", "log_softmax"}
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


def check_class_scores(loss: Any, student: keras.Model) -> None:
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

    Raises:
        ValueError: If an output is no class scores.
    """
    for output in _outputs(loss, student):
        if _is_class_scores(output):
            continue
        place = f" for output '{output.name}'" if output.name else ""
        losses = ", ".join(map(_shown, output.losses)) or "None"
        ending = (
            f", which ends in {output.activation}" if output.activation else ""
        )
        raise ValueError(
            "The default soft targets put a softmax over the outputs, which "
            f"must be class scores. Received: loss={losses}{place}{ending}: "
            "numbers independent of each other. Pass `distillation_losses` "
            "that fit them, such as "
            "keras.distillation.LogitsDistillation(1.0, loss='mse') or "
            "keras_kddp.FeatureHints, or keras_kddp.SoftTargets() if they are "
            "class scores after all; or set student_loss_weight=1."
        )


def _is_class_scores(output: _Output) -> bool:
    names = {_name_in_keras(loss) for loss in output.losses}
    if output.activation in _OF_CLASSES or names & _FUNCTIONS_OF_CLASSES:
        return True
    is_known = any(name is not None for name in names)
    return not is_known and output.activation not in _OF_INDEPENDENT_NUMBERS


def _name_in_keras(loss: Any) -> str | None:
    """Returns which of Keras' functions a loss is, None for one of others."""
    if isinstance(loss, str):
        if loss.lower() in _CHOSEN_BY_SHAPE:
            return "categorical_crossentropy"
        loss = keras.losses.get(loss)
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
    names = _names(student)
    if not names:
        return _of_unknown_outputs(loss)
    if isinstance(loss, Mapping):
        if not set(loss) <= set(names):
            names_of_layers = output_names(student)
            loss = {
                name: loss.get(layer)
                for name, layer in zip(names, names_of_layers, strict=True)
            }
        return {name: _flat(loss.get(name)) for name in names}
    if len(names) > 1 and keras.tree.is_nested(loss):
        is_flat = isinstance(loss, Sequence) and len(loss) == len(names)
        flat = list(loss) if is_flat else keras.tree.flatten(loss)
        flat = flat if len(flat) == len(names) else [None] * len(names)
        return {n: _flat(x) for n, x in zip(names, flat, strict=True)}
    return {name: _flat(loss) for name in names}


def _of_unknown_outputs(loss: Any) -> dict[str, list[Any]]:
    if isinstance(loss, Mapping):
        return {str(name): _flat(each) for name, each in loss.items()}
    flat = keras.tree.flatten(loss)
    return {str(number): _flat(each) for number, each in enumerate(flat)}


def _names(student: keras.Model) -> list[str]:
    """Returns the names of the flat outputs: keys of a dict, else layers."""
    names = output_names(student)
    if not names:
        return []
    structure = output_structure(student)
    if isinstance(structure, Mapping) and len(structure) == len(names):
        places = keras.tree.pack_sequence_as(structure, [*range(len(names))])
        return sorted(places, key=lambda key: int(places[key]))
    is_unique = len(set(names)) == len(names)
    return names if is_unique else [*map(str, range(len(names)))]


def _flat(losses: Any) -> list[Any]:
    is_list = isinstance(losses, Sequence) and not isinstance(losses, str)
    return [x for x in (losses if is_list else [losses]) if x is not None]
