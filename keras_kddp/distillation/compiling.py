"""How a Distiller is compiled: like its student, and with what fits it."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_kddp.distillation.fit_checks import (
    check_fit_numbers,
    check_learning_rate,
    check_models_finite,
    check_not_empty,
)
from keras_kddp.distillation.output_kinds import check_class_scores
from keras_kddp.model_io import Arrays, output_names


class StudentCompiling:
    """The part of `keras_kddp.Distiller` that configures its training.

    Stands before the Keras class.

    Attributes:
        teacher: The teacher, or None.
        student: The present student.
        student_loss_weight: Share of the hard loss, in [0, 1].
        has_default_losses: No distillation losses were given.
        given_loss: The hard loss that `compile` got.
    """

    teacher: keras.Model | None
    student: keras.Model
    student_loss_weight: float
    has_default_losses: bool
    given_loss: Any = None

    @property
    def output_names(self) -> list[str] | None:
        """The names by which `compile` knows the student's outputs.

        Keras names the columns of several outputs after them, and finds
        losses, metrics and labels in dicts. None, as of every model in Keras,
        where the student has none: a Sequential or subclassed one.
        """
        names: list[str] | None = getattr(self.student, "output_names", None)
        return names

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures the training.

        Args:
            optimizer: Trains the student.
            loss: Hard loss of `(y, student outputs)`; needed unless
                `student_loss_weight` is 0. For several outputs one for all of
                them, or a dict or list of one each, as Keras takes them.
            metrics: Metrics of the student; for several outputs a dict or list
                of lists.
            **kwargs: As for `keras.Model.compile`.

        Raises:
            ValueError: If the hard loss is missing, is for other outputs, or
                says that they are no class scores and the soft targets are
                the default.
        """
        if loss is None and self.student_loss_weight:
            raise ValueError(
                "`loss` must be given: the labels weigh "
                f"student_loss_weight={self.student_loss_weight}. Received: "
                "loss=None. Pass a Keras loss, or set student_loss_weight=0."
            )
        if self.has_default_losses and self.student_loss_weight < 1:
            check_class_scores(loss, self.student)
        self.given_loss = loss
        loss = _of_single_output(loss, self.student, self.output_names)
        keras.Model.compile(
            self, optimizer=optimizer, loss=loss, metrics=metrics, **kwargs
        )

    def _check_numbers(
        self, x: Arrays | None, y: Arrays, given: Mapping[str, Any]
    ) -> None:
        """Checks what would make the loss NaN, before the first step."""
        check_not_empty(x)
        check_models_finite(teacher=self.teacher, student=self.student)
        check_learning_rate(getattr(self, "optimizer", None))
        loss = self.given_loss if self.student_loss_weight else None
        check_fit_numbers(given, y, self.student, loss)


def _of_single_output(
    loss: Any, student: keras.Model, known: list[str] | None
) -> Any:
    """Returns the loss in a dict for the one output of a Sequential.

    Keras does not ask a Sequential what its output is called.
    """
    names = output_names(student)
    if not isinstance(loss, Mapping) or known is not None or not names:
        return loss
    if list(loss) != names:
        raise ValueError(
            f"`loss` must be a loss, or a dict of one for the output {names}. "
            f"Received the keys: {list(loss)}. Name the last layer."
        )
    return loss[names[0]]
