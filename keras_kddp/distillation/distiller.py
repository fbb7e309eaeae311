"""The Keras model that trains a student under a teacher."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.arguments import check_share
from keras_kddp.data.packing import unpacked
from keras_kddp.data.shuffling import shuffle_each_epoch
from keras_kddp.distillation.checks import (
    Teacher,
    check_labelled,
    check_models,
    resolved_teacher,
)
from keras_kddp.distillation.compiling import StudentCompiling
from keras_kddp.distillation.feature_losses import make_projections
from keras_kddp.distillation.fit_arguments import (
    FitArguments,
    ShowsFit,
    read_arguments,
)
from keras_kddp.distillation.fit_checks import check_taught
from keras_kddp.distillation.given_losses import (
    check_losses,
    resolved_losses,
    resolved_weights,
)
from keras_kddp.distillation.loss_guard import with_loss_guard
from keras_kddp.distillation.student_swapping import StudentSwapping
from keras_kddp.distillation.terms import DistillationTerms
from keras_kddp.model_io import Arrays, Tensor, wide_dtype


@keras.saving.register_keras_serializable(package="keras_kddp")
class Distiller(
    StudentSwapping, StudentCompiling, ShowsFit, keras.distillation.Distiller
):
    """Trains a student on labels and on the outputs of its teacher.

    The loss is `student_loss_weight * loss(y, student(x))`
    `+ (1 - student_loss_weight) * sum_i weight_i * distillation_loss_i`
    plus, while training, the student's activity and weight penalties
    (Şener & Akbaş 2022, doi 10.29109/gujsc.1141648). `evaluate`, `predict`
    and the metrics are the student's, by the names of its outputs. Steps that
    Keras masks in the student's outputs count in no loss. The teacher is only
    read: its `trainable` flags and BatchNormalization statistics stay.

    Args:
        teacher: Trained model, each output (batch, ..., classes): logits, or
            probabilities where it ends in softmax. `"self"`: a frozen plain
            copy of the student as it is now, so pass a trained one. None where
            every `x` is packed by `keras_kddp.TeacherCache`, or where
            `student_loss_weight=1`: the labels alone teach then, whatever the
            outputs are for, and `distillation_loss` is logged as 0.
        student: Model of the same input and output shapes.
        distillation_losses: A `keras.distillation.DistillationLoss` or a list
            of them. None: `keras_kddp.SoftTargets(temperature)`, which is for
            class scores: `compile` refuses it for a loss of other outputs.
            With `student_loss_weight=1` none of them is computed.
        distillation_loss_weights: One factor per loss; None: 1 each.
        student_loss_weight: Share of the hard loss, in [0, 1].
        name: Name of the model.
        temperature: Of the soft targets, > 0; only without losses of one's
            own.

    Attributes:
        teacher: The teacher.
        student: The student; `replace_student` puts a smaller one here.

    Raises:
        ValueError: If models, losses or weights do not fit together.

    Example:
        ```python
        distiller = keras_kddp.Distiller(teacher, student, temperature=4.0)
        distiller.compile(
            optimizer="adam",
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        distiller.fit(x, y, epochs=24, callbacks=[keras_kddp.DynamicPruning()])
        ```
    """

    def __init__(  # noqa: PLR0917 (the stock Distiller's positional order)
        self,
        teacher: Teacher,
        student: keras.Model,
        distillation_losses: Any = None,
        distillation_loss_weights: Sequence[float] | None = None,
        student_loss_weight: float = 0.1,
        name: str = "distiller",
        *,
        temperature: float = 4.0,
    ) -> None:
        """Checks that everything fits together."""
        teacher = resolved_teacher(teacher, student)
        check_models(teacher, student)
        check_share(student_loss_weight)
        losses = resolved_losses(distillation_losses, temperature)
        weights = resolved_weights(distillation_loss_weights, len(losses))
        check_losses(losses, teacher, student, student_loss_weight)
        # The stock constructor would freeze the teacher for good and build
        # extractors that keep the first student alive.
        keras.Model.__init__(self, name=name, dtype=student.dtype_policy)
        self.autocast = False  # the models cast their inputs themselves
        self.teacher = teacher
        self.student = student
        self.distillation_losses = losses
        self.distillation_loss_weights = weights
        self.student_loss_weight = float(student_loss_weight)
        self.student_loss_tracker = keras.metrics.Mean(name="student_loss")
        self.distillation_loss_tracker = keras.metrics.Mean(
            name="distillation_loss"
        )
        self.total_loss_tracker = keras.metrics.Mean(name="total_loss")
        self._fit = FitArguments()
        self.has_default_losses = distillation_losses is None
        for made in make_projections(losses, teacher, student).values():
            setattr(self, made.name, made)
        self._connect()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded Distiller the way the saved one was."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.build_optimizer()

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Trains the student; takes what `keras.Model.fit` takes.

        Arrays are shuffled anew in each epoch, from the seed that
        `keras.utils.set_random_seed` was given and the epoch alone: give
        `initial_epoch` where a run goes on, or it has the same orders again.

        A loss or weight that becomes NaN or infinite stops the training, with
        a warning and the student as it was when that epoch began.

        Raises:
            ValueError: If weights of the models are NaN or infinite, or labels
                or sample weights that are arrays out of range, or inputs carry
                no teacher outputs where there is no teacher and
                `student_loss_weight` is below 1; before the first step, but
                for inputs of a generator or `PyDataset`: as they are read.
        """
        signature = inspect.signature(keras.Model.fit)
        call = signature.bind(self, x, y, *args, **kwargs)
        given = call.arguments
        if self.teacher is None and self.student_loss_weight < 1:
            check_taught(x, given.get("validation_data"))
        self._fit = read_arguments(x, y, given)
        try:
            self._check_numbers(self._fit.inputs, y, given)
            given["callbacks"] = with_loss_guard(given["callbacks"])
            shuffle_each_epoch(given)
            return super().fit(*call.args[1:], **call.kwargs)
        finally:
            self._fit = FitArguments()

    def call(self, inputs: Arrays, training: bool | None = None) -> Arrays:
        """Returns the student's outputs."""
        return self._terms.student_outputs(unpacked(inputs)[0], training)

    def compute_loss(
        self,
        x: Arrays = None,
        y: Arrays = None,
        y_pred: Arrays = None,
        sample_weight: Arrays = None,
        training: bool = True,
    ) -> Tensor:
        """Returns the combined loss of a batch.

        Args:
            x: Inputs, plain or packed by `keras_kddp.TeacherCache`.
            y: Labels; or None to learn from the teacher alone, where
                `student_loss_weight` is below 1.
            y_pred: The student's outputs for `x`; computed if None.
            sample_weight: None, or a factor on the hard and the soft loss of
                each example or position, not on the penalties; or a structure
                of them by output.
            training: Adds the student's penalties.

        Returns:
            Scalar in float32, or float64 where the outputs are.

        Raises:
            ValueError: If `sample_weight` does not fit the outputs, a loss
                does not take the weights or masks that are there, or neither
                `x` nor a teacher gives teacher outputs, or nothing teaches.
        """
        check_labelled(y, self.student_loss_weight)
        if y_pred is None:
            y_pred = self(x, training=training)
        dtype = wide_dtype(
            *(output.dtype for output in keras.tree.flatten(y_pred))
        )
        # Read before the teacher runs, which may share frozen layers.
        penalties = self.losses if training else []
        share = self.student_loss_weight
        hard = soft = keras.ops.zeros((), dtype)
        if share > 0 and y is not None:
            weights = self._terms.weights(sample_weight, y_pred).of_labels()
            hard = keras.ops.cast(
                _compat.compiled_loss(self, y, y_pred, weights), dtype
            )
        if share < 1:
            terms = self._distillation_loss(x, y_pred, sample_weight, training)
            soft = keras.ops.cast(_compat.share_of_replica(terms), dtype)
        total = share * hard + (1 - share) * soft
        for penalty in penalties:
            total += _compat.share_of_replica(
                keras.ops.sum(keras.ops.cast(penalty, dtype))
            )
        self._track(y_pred, hard=hard, soft=soft, total=total)
        return total

    def _distillation_loss(
        self,
        x: Arrays,
        y_pred: Arrays,
        sample_weight: Arrays,
        training: bool,
    ) -> Tensor:
        return self._terms.total(
            x,
            y_pred,
            self.distillation_losses,
            self.distillation_loss_weights,
            projections=self._projections(),
            sample_weight=sample_weight,
            training=training,
        )

    def _track(self, y_pred: Arrays, **losses: Tensor) -> None:
        count = keras.ops.shape(keras.tree.flatten(y_pred)[0])[0]
        for tracker, loss in (
            (self.student_loss_tracker, losses["hard"]),
            (self.distillation_loss_tracker, losses["soft"]),
            (self.total_loss_tracker, losses["total"]),
        ):
            tracker.update_state(
                _compat.whole_of_replicas(loss), sample_weight=count
            )

    def _connect(self) -> None:
        """Has the losses compare the present student."""
        self._terms = DistillationTerms(
            self.distillation_losses, self.teacher, self.student
        )

    def reset_metrics(self) -> None:
        """Resets all metrics."""
        keras.Model.reset_metrics(self)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, models included."""
        serialize = keras.saving.serialize_keras_object
        losses = [serialize(loss) for loss in self.distillation_losses]
        # Default losses stay the default: `compile` judges by it.
        default = (
            {
                "distillation_losses": None,
                "temperature": self.distillation_losses[0].temperature,
            }
            if self.has_default_losses
            else {"distillation_losses": losses}
        )
        return {
            "name": self.name,
            "teacher": self.teacher and serialize(self.teacher),
            "student": serialize(self.student),
            **default,
            "distillation_loss_weights": list(self.distillation_loss_weights),
            "student_loss_weight": self.student_loss_weight,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Distiller":
        """Returns the Distiller from `get_config()`."""
        deserialize = keras.saving.deserialize_keras_object
        losses = config["distillation_losses"]
        made = {
            "teacher": deserialize(config["teacher"]),
            "student": deserialize(config["student"]),
            "distillation_losses": losses and [*map(deserialize, losses)],
        }
        return cls(**{**config, **made})
