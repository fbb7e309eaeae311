"""What a student should learn from the outputs of its teacher."""

import functools
import math
import operator
from numbers import Real
from typing import Any

import keras

from keras_kddp import _compat

_HANDING_ON = (
    keras.layers.Activation,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Reshape,
)
_OPERATIONS_HANDING_ON = {"cast", "clip", "reshape", "squeeze"}


@keras.saving.register_keras_serializable(package="keras_kddp")
class SoftTargets(keras.distillation.DistillationLoss):
    r"""Kullback-Leibler divergence between softened teacher and student.

    `T^2 * mean(sum_k p_k * (log p_k - log q_k))` with
    `p = softmax(teacher / T)` and `q = softmax(student / T)`; the factor T^2
    keeps the size of the gradient (Hinton, Vinyals & Dean 2015, section 2,
    arXiv 1503.02531). Computed in float32 at least. Of several outputs the
    divergences are added, as Keras adds their hard losses.

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
        if not is_number or not 0 < temperature < math.inf:
            raise ValueError(
                "`temperature` must be a finite number > 0 (4 is usual). "
                f"Received: temperature={temperature!r}."
            )
        self.temperature = float(temperature)

    def compute_loss(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Returns the loss of a batch.

        Args:
            teacher_outputs: Logits, (batch, ..., classes), or a structure of
                them.
            student_outputs: Logits of the same shapes.
            sample_weight: None or (batch,): factor on each example; or one
                for each output.
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
        self, teacher_logits: Any, student_logits: Any, sample_weight: Any
    ) -> Any:
        teacher = at_least_float32(teacher_logits) / self.temperature
        student = at_least_float32(student_logits) / self.temperature
        log_p = keras.ops.log_softmax(teacher)
        log_q = keras.ops.log_softmax(student)
        divergence = keras.ops.sum(
            keras.ops.exp(log_p) * (log_p - log_q), axis=-1
        )
        if sample_weight is not None:
            divergence *= _aligned(sample_weight, divergence)
        return self.temperature**2 * keras.ops.mean(divergence)

    def validate_outputs(
        self, teacher_outputs: Any, student_outputs: Any
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


def at_least_float32(values: Any) -> Any:
    """Returns values in float32, or in float64 where they are that."""
    values = keras.ops.convert_to_tensor(values)
    dtype = keras.backend.result_type(values.dtype, "float32")
    return keras.ops.cast(values, dtype)


def log_probabilities(values: Any) -> Any:
    """Returns log p of softmax outputs, in float32 at least.

    They are logits of the same distribution at every temperature, since
    `log softmax(z) = z - logsumexp(z)`.
    """
    values = at_least_float32(values)
    tiny = 1e-300 if str(values.dtype).endswith("float64") else 1e-37
    return keras.ops.log(keras.ops.maximum(values, tiny))


def output_activations(model: keras.Model) -> list[str]:
    """Returns the names of the activations that made a model's outputs.

    Args:
        model: Any model; a subclassed one has no graph to look at.

    Returns:
        `"softmax"`, `"sigmoid"`, ... for each flat output; `"linear"` where
        there is none or it cannot be told. Empty for a model without a graph.
    """
    graph = _compat.functional_graph(model)
    return [] if graph is None else [*map(_activation_of, graph.outputs)]


def output_structure(model: keras.Model) -> Any:
    """Returns a model's symbolic outputs in the structure it returns.

    A Sequential that was never called has no `model.output`.
    """
    return _compat.functional_graph(model).output


def _activation_of(tensor: Any) -> str:
    """Returns the name of the activation that made a symbolic tensor."""
    while True:
        node = _compat.producing_node(tensor)
        operation = node.operation
        if isinstance(operation, keras.Model):
            position = [id(x) for x in node.outputs].index(id(tensor))
            inside = output_activations(operation)
            return inside[position] if inside else "linear"
        name, hands_on = _ending(operation)
        if name != "linear" or not hands_on:
            return name
        tensor = node.inputs[0]


def _ending(operation: Any) -> tuple[str, bool]:
    """Returns an operation's activation, and whether it hands values on."""
    if not isinstance(operation, keras.layers.Layer):
        name = type(operation).__name__.lower()
        hands_on = name in _OPERATIONS_HANDING_ON
        return ("linear", True) if hands_on else (name, False)
    if isinstance(operation, keras.layers.TimeDistributed):
        return _ending(operation.layer)
    activation = getattr(operation, "activation", None)
    if any(
        isinstance(x, keras.layers.Softmax) for x in (operation, activation)
    ):
        return "softmax", False
    name = getattr(activation, "__name__", "linear")
    if name.startswith("softmax"):  # such as TensorFlow's own, softmax_v2
        name = "softmax"
    return name, isinstance(operation, _HANDING_ON)


def _shown(shapes: list[tuple[int | None, ...]]) -> str:
    return ", ".join(map(str, shapes))


def _aligned(sample_weight: Any, values: Any) -> Any:
    """Returns weights that broadcast over the values of each example."""
    weight = keras.ops.cast(sample_weight, values.dtype)
    while len(weight.shape) > len(values.shape):
        weight = keras.ops.squeeze(weight, axis=-1)
    while len(weight.shape) < len(values.shape):
        weight = keras.ops.expand_dims(weight, axis=-1)
    return weight
