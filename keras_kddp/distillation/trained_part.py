"""What of a Distiller is trained, and charged for: the student, no teacher."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.distillation.feature_losses import projected_losses
from keras_kddp.distillation.student_state import StudentState
from keras_kddp.model_io import Tensor
from keras_kddp.surgery.lineage import Lineage


class TrainedPart:
    """The part of `keras_kddp.Distiller` that answers for the student alone.

    Stands before the Keras class, which would answer for the teacher too.

    Attributes:
        student: The present student.
        distillation_losses: The losses; projections of theirs are trained.
        trainable: Whether anything is trained.
        variables: Those of all models.
        weights: Those of all models.
    """

    student: keras.Model
    distillation_losses: Sequence[Any]
    trainable: bool
    variables: list[keras.Variable]
    weights: list[keras.Variable]
    _lineage = Lineage()

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The student's, and the projections' of feature hints.

        The teacher's never train.
        """
        if not self.trainable:
            return []
        return self.training_state().trainable_variables

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The student's weights, and the projections' of feature hints."""
        return self.trainable_variables

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All other variables, the teacher's among them."""
        trainable = {id(v) for v in self.trainable_variables}
        return [v for v in self.variables if id(v) not in trainable]

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """All other weights, the teacher's among them."""
        trainable = {id(v) for v in self.trainable_weights}
        return [v for v in self.weights if id(v) not in trainable]

    @property
    def losses(self) -> list[Tensor]:
        """The student's penalties of its last pass, scalars of any float.

        Its weight regularizers among them, and never the teacher's.
        """
        return _compat.losses_kept_by_jax(self) or self.student.losses

    def training_state(self) -> StudentState:
        """Returns student, projections and optimizer as one value."""
        return StudentState(
            self.student,
            self._projections(),
            getattr(self, "optimizer", None),
            self._lineage,
        )

    def _projections(self) -> dict[str, keras.layers.Dense]:
        """Returns the projections of feature losses, by name.

        Each is an attribute of its name, where saved files look for it; there
        are none without a teacher.
        """
        names = projected_losses(self.distillation_losses)
        return {n: getattr(self, n) for n in names if hasattr(self, n)}
