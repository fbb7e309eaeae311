"""What the distillation losses of a batch compare."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.data.packing import TeacherOutput, unpacked
from keras_kddp.distillation.feature_losses import (
    matched_layer,
    projection_name,
)
from keras_kddp.distillation.feature_reader import FeatureReader
from keras_kddp.distillation.fit_checks import untaught
from keras_kddp.distillation.given_losses import check_scalar, loss_value
from keras_kddp.distillation.position_weights import PositionWeights
from keras_kddp.distillation.soft_targets import SoftTargets
from keras_kddp.model_io import (
    Arrays,
    Tensor,
    at_least_float32,
    log_probabilities,
    output_activations,
    output_names,
)


class DistillationTerms:
    """Sums the distillation losses between a teacher and one student.

    Args:
        losses: The losses; those of `total` match the same layers.
        teacher: The teacher; None where every `x` is packed.
        student: The student.
    """

    def __init__(
        self,
        losses: Sequence[Any],
        teacher: keras.Model | None,
        student: keras.Model,
    ) -> None:
        """Makes the models that read the layers which losses match."""
        self._has_teacher = teacher is not None
        self._teacher = FeatureReader(teacher, _names(losses, "teacher"))
        self._student = FeatureReader(student, _names(losses, "student"))
        self._models = {"teacher": teacher, "student": student}

    def student_outputs(self, inputs: Arrays, training: bool | None) -> Arrays:
        """Returns the outputs of the student; its features are kept."""
        return self._student.outputs(inputs, training)

    def weights(self, sample_weight: Arrays, y_pred: Arrays) -> PositionWeights:
        """Returns how much each position of a batch counts.

        Args:
            sample_weight: None, or factors; or a structure of them by output.
            y_pred: The student's outputs, which carry their masks.
        """
        names = output_names(self._models["student"])
        return PositionWeights.of(sample_weight, y_pred, names)

    def total(
        self,
        x: Any,
        y_pred: Arrays,
        losses: Sequence[Any],
        weights: Sequence[float],
        *,
        projections: Mapping[str, keras.Layer],
        sample_weight: Arrays,
        training: bool,
    ) -> Tensor:
        """Returns the weighted sum of the losses of a batch.

        Steps that Keras masks count in none of them.

        Args:
            x: Inputs, plain or packed.
            y_pred: The student's outputs for them.
            losses: The losses.
            weights: A factor each.
            projections: Of feature hints, by name.
            sample_weight: None, or a factor on each example or position; or a
                structure of them by output.
            training: The mode of the student.

        Raises:
            ValueError: If `x` holds no teacher outputs and there is no
                teacher.
        """
        inputs, cached = unpacked(x)
        counting = self.weights(sample_weight, y_pred)
        students: Any = self._student.features(inputs, y_pred, training)
        teachers: dict[str, Tensor] = {}
        if self._teacher.names or not cached:
            cached, teachers = self._of_teacher(inputs, cached)
        total: Tensor = 0.0
        pairs = zip(losses, weights, strict=True)
        for index, (loss, weight) in enumerate(pairs):
            feature = students.get(matched_layer(loss, "student"))
            factors = self._factors(loss, counting, feature, teachers)
            project = projections.get(projection_name(index))
            if project is not None:
                feature = project(at_least_float32(feature))
            outputs = self._compared(
                loss,
                _as_output(teachers, matched_layer(loss, "teacher")) or cached,
                y_pred if feature is None else feature,
                is_feature=feature is not None,
            )
            loss.validate_outputs(*outputs)
            value = loss_value(loss, outputs, factors)
            check_scalar(loss, value)
            total += weight * at_least_float32(value)
        return total

    def _factors(
        self,
        loss: Any,
        counting: PositionWeights,
        feature: Tensor | None,
        teachers: Mapping[str, Tensor],
    ) -> Arrays:
        """Returns how much each position counts in a loss."""
        if feature is None:
            return counting.of_outputs()
        other = teachers.get(matched_layer(loss, "teacher") or "")
        masks = [feature] if other is None else [feature, other]
        return counting.of_feature(feature, *map(_compat.keras_mask, masks))

    def _of_teacher(
        self, inputs: Arrays, cached: list[TeacherOutput]
    ) -> tuple[list[TeacherOutput], dict[str, Tensor]]:
        """Returns the outputs and features of the teacher, of one pass."""
        if not self._has_teacher:
            raise untaught("x")
        outputs = self._teacher.outputs(inputs, False)
        live = [
            TeacherOutput(*pair)
            for pair in self._with_softmax("teacher", outputs)
        ]
        return cached or live, self._teacher.features(inputs, outputs, False)

    def _compared(
        self,
        loss: Any,
        cached: list[TeacherOutput],
        student: Arrays,
        *,
        is_feature: bool,
    ) -> tuple[Arrays, Arrays]:
        """Returns what a distillation loss compares, the teacher's first."""
        are_logits = _take_logits(loss, len(cached))
        teachers = list(map(_values, cached, are_logits))
        flat = (
            [(output, False) for output in keras.tree.flatten(student)]
            if is_feature
            else self._with_softmax("student", student)
        )
        pairs = [TeacherOutput(*pair) for pair in flat]
        students = list(map(_values, pairs, are_logits))
        return (
            keras.tree.pack_sequence_as(
                student, [*map(keras.ops.stop_gradient, teachers)]
            ),
            keras.tree.pack_sequence_as(student, students),
        )

    def _with_softmax(
        self, role: str, outputs: Arrays
    ) -> list[tuple[Tensor, bool]]:
        """Pairs each flat output with whether it comes out of a softmax."""
        flat = keras.tree.flatten(outputs)
        # Asked now: a Sequential may have been built by its first batch.
        names = output_activations(self._models[role]) or [""] * len(flat)
        flags = [name == "softmax" for name in names]
        return list(zip(flat, flags, strict=True))


def _names(losses: Sequence[Any], role: str) -> list[str]:
    """Returns the layers of a model that the losses match."""
    names = [matched_layer(loss, role) for loss in losses]
    return [*dict.fromkeys(name for name in names if name)]


def _take_logits(loss: Any, outputs: int) -> list[bool]:
    """Says for each output whether a loss puts a softmax over it."""
    if isinstance(loss, SoftTargets):
        return [True] * outputs
    if type(loss) is not keras.distillation.LogitsDistillation:
        return [False] * outputs
    compared = keras.tree.flatten(loss.loss)
    if len(compared) != outputs:  # the loss says so itself
        return [False] * outputs
    return [isinstance(each, keras.losses.KLDivergence) for each in compared]


def _values(output: TeacherOutput, as_logits: bool) -> Tensor:
    """Returns an output as a loss takes it, in float32 at least."""
    values = at_least_float32(output.values)
    if output.are_logarithms:
        return values if as_logits else keras.ops.exp(values)
    if output.are_probabilities and as_logits:
        return log_probabilities(values)
    return values


def _as_output(
    features: Mapping[str, Tensor], name: str | None
) -> list[TeacherOutput] | None:
    """Returns a feature as the outputs that losses compare, or None."""
    if name is None:
        return None
    return [TeacherOutput(features[name], are_probabilities=False)]
