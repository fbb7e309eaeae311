"""What a student should learn from the outputs of its teacher."""

import functools
import operator
from numbers import Real
from typing import Any

import keras

from keras_kddp.arguments import shortened
from keras_kddp.distillation.weight_axes import weighted_mean
from keras_kddp.model_io import Arrays, Tensor, at_least_float32


@keras.saving.register_keras_serializable(package="keras_kddp")
class SoftTargets(keras.distillation.DistillationLoss):
    r"""Kullback-Leibler divergence between softened teacher and student.

    `T^2 * mean(sum_k p_k * (log p_k - log q_k))` with
    `p = softmax(teacher / T)` and `q = softmax(student / T)`; the factor T^2
    keeps the size of the gradient (Hinton, Vinyals & Dean 2015, section 2,
    arXiv 1503.02531). Computed in float32 at least. Of several outputs the
    divergences are added, as Keras adds their hard losses. In a `Distiller`
    the mean leaves out the steps that Keras masks in the student's outputs; a
    mask of the teacher alone leaves nothing out.

    Args:
        temperature: T > 0; higher is softer.

    Raises:
        ValueError: If `temperature` is not a positive, finite number.

    Example:
        ```python
        keras_kddp.Distiller(teacher, student, keras_kddp.SoftTargets(2.0))
        ```
    """

    def __init__(self, temperature: float = 4.0) -> None:
        """Sets the temperature."""
        is_number = isinstance(temperature, Real) and temperature is not True
        if not is_number or not 1e-15 < temperature < 1e15:
            raise ValueError(
                "`temperature` must be a finite number > 0 (4 is usual) whose "
                "square float32 holds. Received: "
                f"temperature={shortened(temperature)}."
            )
        self.temperature = float(temperature)

    def compute_loss(
        self,
        teacher_outputs: Arrays,
        student_outputs: Arrays,
        sample_weight: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Returns the loss of a batch.

        Args:
            teacher_outputs: Logits, (batch, ..., classes), or a structure of
                them.
            student_outputs: Logits of the same shapes.
            sample_weight: None, (batch,) or (batch, ...): factor on each
                example or position; or one for each output.
            **kwargs: Not used.

        Returns:
            Scalar in float32, or float64 where the logits are.
        """
        teachers = keras.tree.flatten(teacher_outputs)
        students = keras.tree.flatten(student_outputs)
        weights = keras.tree.flatten(sample_weight)
        if len(weights) == 1:
            weights = weights * len(students)
        divergences = map(self._divergence, teachers, students, weights)
        return functools.reduce(operator.add, divergences)

    def _divergence(
        self,
        teacher_logits: Tensor,
        student_logits: Tensor,
        sample_weight: Tensor | None,
    ) -> Tensor:
        teacher = at_least_float32(teacher_logits) / self.temperature
        student = at_least_float32(student_logits) / self.temperature
        log_p = keras.ops.log_softmax(teacher)
        log_q = keras.ops.log_softmax(student)
        divergence = keras.ops.sum(
            keras.ops.exp(log_p) * (log_p - log_q), axis=-1
        )
        return self.temperature**2 * weighted_mean(divergence, sample_weight)

    def validate_outputs(
        self, teacher_outputs: Arrays, student_outputs: Arrays
    ) -> None:
        """Checks that every class of one has its class in the other.

        The Distiller compares the models' shapes; this is for models without
        a graph, whose outputs are known only now.

        Raises:
            ValueError: If the numbers of classes differ.
        """
        teacher, student = (
            [tuple(output.shape) for output in keras.tree.flatten(outputs)]
            for outputs in (teacher_outputs, student_outputs)
        )
        ends = [
            [(len(shape), shape[-1]) for shape in shapes]
            for shapes in (teacher, student)
        ]
        if ends[0] != ends[1]:
            raise ValueError(
                "The outputs of teacher and student must have the same "
                f"shapes. Received: teacher {_shown(teacher)}, student "
                f"{_shown(student)}. Change the student's last layer."
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"temperature": self.temperature}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SoftTargets":
        """Returns the loss from `get_config()`."""
        return cls(**config)


def _shown(shapes: list[tuple[int | None, ...]]) -> str:
    return ", ".join(map(str, shapes))
