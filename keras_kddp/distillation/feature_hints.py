"""Intermediate features of a teacher as hints for a student."""

from typing import Any

import keras

from keras_kddp.distillation.feature_reader import feature_tensor
from keras_kddp.distillation.weight_axes import weighted_mean
from keras_kddp.model_io import Tensor, at_least_float32, to_numpy, wide_dtype
from keras_kddp.surgery.plan import RemovalPlan


@keras.saving.register_keras_serializable(package="keras_kddp")
class FeatureHints(keras.distillation.DistillationLoss):
    """Mean squared error between a teacher's features and projected ones.

    `mean (t - P s)^2` over examples, positions and channels (FitNets; Romero
    et al. 2015, arXiv 1412.6550, equation 3), where the projection P is a
    matrix that the `Distiller` trains beside the student: the widths need not
    be equal, and the student's layer may be pruned, its units leave P too.

    A `sample_weight` of each step or pixel weighs the features' positions
    where they are the same; for features of another resolution its mean
    weighs the example, and so does the mean over several outputs. Steps that
    Keras masks in either model's layer are left out.

    Args:
        teacher_layer_name: Layer whose output the student learns from.
        student_layer_name: Layer that learns; its output has the same
            positions, and any number of channels on its last axis.

    Raises:
        ValueError: If a name is not a non-empty string.

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
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        sample_weight: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Returns the loss of a batch.

        Args:
            teacher_outputs: Features, (batch, ..., channels).
            student_outputs: Projected features of the same shape.
            sample_weight: None, (batch,) or (batch, ...): factor on each
                example, or on each position where the features have them; the
                mean of other positions' counts for the example.
            **kwargs: Not used.

        Returns:
            Scalar in float32, or float64 where the features are.
        """
        error = keras.ops.square(
            at_least_float32(teacher_outputs)
            - at_least_float32(student_outputs)
        )
        return weighted_mean(keras.ops.mean(error, axis=-1), sample_weight)

    def make_projection(
        self, teacher: keras.Model, student: keras.Model, name: str
    ) -> keras.layers.Dense:
        """Returns what brings the student's features to the teacher's width.

        Args:
            teacher: The teacher.
            student: The student.
            name: Of the projection.

        Returns:
            A built Dense layer without bias.
        """
        wanted = feature_tensor(teacher, self.teacher_layer_name)
        feature = feature_tensor(student, self.student_layer_name)
        return _projection(feature, wanted.shape[-1], name)

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
        name = self.student_layer_name
        kept = tuple(plan.kept_channels(feature_tensor(plan.model, name)))
        feature = feature_tensor(student, name)
        new = _projection(feature, old.units, old.name, "zeros")
        new.kernel.assign(to_numpy(old.kernel)[list(kept)])
        return new, kept

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


def _projection(
    feature: Tensor,
    channels: int,
    name: str,
    initializer: str = "glorot_uniform",
) -> keras.layers.Dense:
    layer = keras.layers.Dense(
        channels,
        use_bias=False,
        kernel_initializer=initializer,
        name=name,
        dtype=wide_dtype(feature.dtype),
    )
    layer.build(feature.shape)
    return layer
