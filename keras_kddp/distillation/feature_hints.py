"""Intermediate features of a teacher as hints for a student."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_kddp.distillation.feature_reader import feature_tensor
from keras_kddp.model_io import at_least_float32, to_numpy
from keras_kddp.surgery.plan import RemovalPlan


@keras.saving.register_keras_serializable(package="keras_kddp")
class FeatureHints(keras.distillation.DistillationLoss):
    """Mean squared error between a teacher's features and projected ones.

    `mean (t - P s)^2` over examples, positions and channels (FitNets; Romero
    et al. 2015, arXiv 1412.6550, equation 3), where the projection P is a
    matrix that the `Distiller` trains beside the student: the widths need not
    be equal, and the student's layer may be pruned, its units leave P too.

    Args:
        teacher_layer_name: Layer whose output the student learns from.
        student_layer_name: Layer that learns; its output has the same
            positions, and any number of channels on its last axis.

    Raises:
        ValueError: If a name is none.

    Example:
        ```python
        keras_kddp.Distiller(
            teacher,
            student,
            [keras_kddp.SoftTargets(4.0), keras_kddp.FeatureHints("fc", "fc")],
            [1.0, 0.5],
        )
        ```
    """

    has_projection = True

    def __init__(
        self, teacher_layer_name: str, student_layer_name: str
    ) -> None:
        """Sets the names."""
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name
        for role in ("teacher", "student"):
            name = getattr(self, f"{role}_layer_name")
            if not isinstance(name, str) or not name:
                raise ValueError(
                    f"`{role}_layer_name` must be the name of a layer. "
                    f"Received: {name!r}."
                )

    def validate_model_compatibility(
        self, teacher: keras.Model, student: keras.Model
    ) -> None:
        """Checks that both layers exist and see the same positions.

        Raises:
            ValueError: If not.
        """
        shapes = [
            _output_shape("teacher", teacher, self.teacher_layer_name),
            _output_shape("student", student, self.student_layer_name),
        ]
        if shapes[0][:-1] != shapes[1][:-1] or len(shapes[0]) < 2:
            raise ValueError(
                "Features must differ in their last axis alone. Received: "
                f"teacher '{self.teacher_layer_name}' {shapes[0]}, student "
                f"'{self.student_layer_name}' {shapes[1]}. Choose layers with "
                "the same positions, or flatten or pool one."
            )

    def compute_loss(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Returns the loss of a batch.

        Args:
            teacher_outputs: Features, (batch, ..., channels).
            student_outputs: Projected features of the same shape.
            sample_weight: None or (batch,): factor on each example.
            **kwargs: Not used.

        Returns:
            Scalar in float32, or float64 where the features are.
        """
        error = keras.ops.square(
            at_least_float32(teacher_outputs)
            - at_least_float32(student_outputs)
        )
        errors = keras.ops.mean(error, axis=tuple(range(1, len(error.shape))))
        if sample_weight is not None:
            weights = keras.ops.reshape(sample_weight, (-1,))
            errors *= keras.ops.cast(weights, errors.dtype)
        return keras.ops.mean(errors)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FeatureHints":
        """Returns the loss from `get_config()`."""
        return cls(**config)


def _output_shape(
    role: str, model: keras.Model, name: str
) -> tuple[int | None, ...]:
    shape = tuple(feature_tensor(model, name, role).shape)
    if shape[-1] is None:
        raise ValueError(
            "Features must have a last axis of known size. Received: "
            f"{role} layer '{name}' of shape {shape}. Fix the size of the "
            "inputs, or match another layer."
        )
    return shape


def projection_names(losses: Sequence[Any]) -> list[str]:
    """Returns the name of the projection of each loss that has one."""
    return [
        f"projection_{index}"
        for index, loss in enumerate(losses)
        if getattr(loss, "has_projection", False)
    ]


def projections(
    losses: Sequence[Any], teacher: keras.Model | None, student: keras.Model
) -> list[keras.Layer]:
    """Returns what brings the student's features to the teacher's width.

    Args:
        losses: Distillation losses, feature hints among them.
        teacher: The teacher; without it there are none.
        student: The student.

    Returns:
        Built layers, named by `projection_names`.
    """
    if teacher is None:
        return []
    made = []
    for name in projection_names(losses):
        loss = losses[_index(name)]
        wanted = feature_tensor(teacher, loss.teacher_layer_name)
        feature = feature_tensor(student, loss.student_layer_name)
        made.append(_projection(feature, wanted.shape[-1], name))
    return made


def cut_projection(
    old: Any, losses: Sequence[Any], plan: RemovalPlan, student: keras.Model
) -> tuple[Any, tuple[int, ...]]:
    """Returns a projection without the rows of units that leave.

    Args:
        old: The projection; left as it is.
        losses: Distillation losses.
        plan: The removal.
        student: The smaller student.

    Returns:
        The new layer, and the rows of the old one that it has.
    """
    name = losses[_index(old.name)].student_layer_name
    kept = tuple(plan.kept_channels(feature_tensor(plan.model, name)))
    feature = feature_tensor(student, name)
    new = _projection(feature, old.units, old.name, "zeros")
    new.kernel.assign(to_numpy(old.kernel)[list(kept)])
    return new, kept


def _index(name: str) -> int:
    return int(name.rpartition("_")[2])


def _projection(
    feature: Any, channels: int, name: str, initializer: Any = "glorot_uniform"
) -> Any:
    layer = keras.layers.Dense(
        channels,
        use_bias=False,
        kernel_initializer=initializer,
        name=name,
        dtype=keras.backend.result_type(feature.dtype, "float32"),
    )
    layer.build(feature.shape)
    return layer
