"""Distillation losses that compare layers of the models, not their outputs."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import keras

from keras_kddp.distillation.feature_reader import feature_tensor
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.plan import RemovalPlan


@runtime_checkable
class ProjectedLoss(Protocol):
    """A loss that sees a student's features through a trained projection.

    The widths of the layers need not be equal then, and the student's layer
    may be pruned: the projection follows.

    Attributes:
        teacher_layer_name: Layer of the teacher that is compared.
        student_layer_name: Layer of the student that is compared.
    """

    teacher_layer_name: str
    student_layer_name: str

    def make_projection(
        self, teacher: keras.Model, student: keras.Model, name: str
    ) -> keras.layers.Dense:
        """Returns a new projection, built.

        Args:
            teacher: Its layer's channels are what is projected to.
            student: Its layer's channels are what is projected.
            name: Of the projection.
        """

    def cut_projection(
        self, old: keras.layers.Dense, plan: RemovalPlan, student: keras.Model
    ) -> tuple[keras.layers.Dense, tuple[int, ...]]:
        """Returns a projection without the rows of units that leave.

        Args:
            old: The projection; left as it is.
            plan: The removal.
            student: The smaller student.

        Returns:
            The new layer, and the rows of the old one that it has.
        """


def matched_layer(loss: Any, role: str) -> str | None:
    """Returns the layer that a distillation loss compares.

    Args:
        loss: A distillation loss; stock ones, and those of users, say it in
            `teacher_layer_name` and `student_layer_name`.
        role: `"teacher"` or `"student"`: whose layer.

    Returns:
        Its name; None where the loss compares the model's outputs.
    """
    return getattr(loss, f"{role}_layer_name", None) or None


def projected_losses(losses: Sequence[Any]) -> dict[str, ProjectedLoss]:
    """Returns the losses that have a projection, by its name."""
    return {
        projection_name(index): loss
        for index, loss in enumerate(losses)
        if isinstance(loss, ProjectedLoss)
    }


def projection_name(index: int) -> str:
    """Returns the name of the projection of a loss, by its place."""
    return f"projection_{index}"


def make_projections(
    losses: Sequence[Any], teacher: keras.Model | None, student: keras.Model
) -> dict[str, keras.layers.Dense]:
    """Returns what brings the student's features to the teacher's width.

    Args:
        losses: Distillation losses.
        teacher: The teacher; without it there are none.
        student: The student.

    Returns:
        Built layers, by name.
    """
    if teacher is None:
        return {}
    return {
        name: loss.make_projection(teacher, student, name)
        for name, loss in projected_losses(losses).items()
    }


def find_pinned_layers(
    losses: Sequence[Any], student: keras.Model
) -> dict[str, str]:
    """Returns the student's layers whose width a loss needs, and the reason.

    Args:
        losses: Distillation losses.
        student: The student.
    """
    return {
        name: f"the loss {type(loss).__name__} matches its output"
        for loss in losses
        if (name := matched_layer(loss, "student"))
        and not (isinstance(loss, ProjectedLoss) and _can_shrink(student, name))
    }


def _can_shrink(student: keras.Model, name: str) -> bool:
    """Says whether a projection can follow what a layer loses."""
    tensor = feature_tensor(student, name)
    channels = ChannelGraph(student).channels.get(id(tensor))
    last = len(tensor.shape) - 1
    return channels is not None and channels.axis in (None, last)
