"""Whether a teacher, a student and the losses between them fit together."""

from typing import Any, Literal, TypeAlias

import keras

from keras_kddp import _compat
from keras_kddp.arguments import shortened
from keras_kddp.layers.preparation import finalize
from keras_kddp.model_io import output_activations, output_structure

Teacher: TypeAlias = keras.Model | Literal["self"] | None
"""A model; "self", the student itself; or None, where labels alone teach."""


def resolved_teacher(teacher: Any, student: Any) -> Any:
    """Returns the teacher: of "self", a frozen plain copy of the student.

    Args:
        teacher: What the user gave.
        student: A student, trained by now if it is to teach.

    Raises:
        ValueError: If it is another text, or the student cannot be copied.
    """
    check_teacher_name(teacher)
    if not isinstance(teacher, str):
        return teacher
    if not isinstance(student, keras.Model):
        return None  # `check_models` says what the student is instead
    copy = finalize(student)
    copy.trainable = False
    return copy


def check_teacher_name(teacher: Any) -> None:
    """Checks that a teacher that is a text is the student itself.

    Raises:
        ValueError: If it is another text.
    """
    if isinstance(teacher, str) and teacher != "self":
        raise ValueError(
            "`teacher` must be a keras.Model, None to learn from the labels "
            "alone, or 'self', the student itself. Received: "
            f"teacher={shortened(teacher)}. Load a model with "
            "keras.saving.load_model."
        )


def check_labelled(y: Any, student_loss_weight: float) -> None:
    """Checks that there are labels where they alone teach.

    Args:
        y: Labels, or None.
        student_loss_weight: Share of the hard loss, in [0, 1].

    Raises:
        ValueError: If nothing would be learned from.
    """
    if y is None and student_loss_weight == 1:
        raise ValueError(
            "`y` must be given: with student_loss_weight=1 the labels alone "
            "teach. Received: y=None. Pass labels, or a teacher and a lower "
            "weight."
        )


def check_models(teacher: Any, student: Any) -> None:
    """Checks that both are models with the same inputs and outputs.

    Args:
        teacher: May be None.
        student: The student.

    Raises:
        ValueError: If not, or the teacher was never built.
    """
    for role, model in (("teacher", teacher), ("student", student)):
        is_absent = role == "teacher" and model is None
        if not (is_absent or isinstance(model, keras.Model)):
            others = ", or None" if role == "teacher" else ""
            raise ValueError(
                f"`{role}` must be a keras.Model{others}. Received: "
                f"{type(model).__name__}."
            )
    if teacher is None:
        return
    check_built(teacher)
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
    _check_separate_weights(teacher, student)


def check_built(teacher: keras.Model) -> None:
    """Checks that a teacher has the weights that it was trained to.

    Raises:
        ValueError: If it was never built, which would give it random ones.
    """
    if not teacher.built:
        raise ValueError(
            "`teacher` must be built: before that it has no trained weights. "
            f"Received: {type(teacher).__name__} '{teacher.name}', which was "
            "never called. Start it with keras.Input, or call it on an "
            "example, and train it or load its weights."
        )


def _check_separate_weights(teacher: keras.Model, student: keras.Model) -> None:
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


def check_soft_targets(
    teacher: keras.Model | None,
    student: keras.Model,
    taker: str = "Soft targets",
) -> None:
    """Checks that soft targets mean something for these outputs.

    Args:
        teacher: May be None.
        student: The student.
        taker: What needs classes, in words.

    Raises:
        ValueError: For fewer than two classes, or outputs behind a sigmoid.
    """
    for role, model in (("teacher", teacher), ("student", student)):
        if model is None:
            continue
        for shape in _shapes(model, "outputs"):
            if len(shape) < 2 or shape[-1] == 1:
                raise ValueError(
                    f"{taker} need at least two classes. Received: a {role} "
                    f"with outputs of shape {shape}. Use two classes, or a "
                    "Distiller with distillation_losses of your own."
                )
        if "sigmoid" in output_activations(model):
            raise ValueError(
                f"{taker} need logits or softmax outputs. Received: a {role} "
                "that ends in sigmoid. End it in softmax where one class is "
                "right, else use a Distiller with distillation_losses of your "
                "own."
            )
