"""The Keras model that trains a student under a teacher."""

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.arguments import check_share
from keras_kddp.distillation.checks import check_models, check_soft_targets
from keras_kddp.distillation.feature_hints import (
    cut_projection,
    projection_names,
    projections,
)
from keras_kddp.distillation.feature_reader import feature_tensor
from keras_kddp.distillation.fit_arguments import FitArguments, read_arguments
from keras_kddp.distillation.given_losses import (
    check_needs_no_layer,
    resolved_losses,
    resolved_weights,
)
from keras_kddp.distillation.packing import unpacked
from keras_kddp.distillation.soft_targets import SoftTargets
from keras_kddp.distillation.terms import DistillationTerms
from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.optimizer_state import carry_optimizer
from keras_kddp.surgery.plan import RemovalPlan


@keras.saving.register_keras_serializable(package="keras_kddp")
class Distiller(keras.distillation.Distiller):
    """Trains a student on labels and on the outputs of its teacher.

    The loss is `student_loss_weight * loss(y, student(x))`
    `+ (1 - student_loss_weight) * sum_i weight_i * distillation_loss_i`
    plus, while training, the student's activity and weight penalties
    (Şener & Akbaş 2022, doi 10.29109/gujsc.1141648). `evaluate`, `predict`
    and the metrics are the student's. The teacher is only read: its
    `trainable` flags and BatchNormalization statistics stay as they are.

    Args:
        teacher: Trained model, each output (batch, ..., classes): logits, or
            probabilities where it ends in softmax. None where every `x` is
            packed by `keras_kddp.TeacherCache`.
        student: Model of the same input and output shapes.
        distillation_losses: A `keras.distillation.DistillationLoss` or a list
            of them. None: `keras_kddp.SoftTargets(temperature)`.
        distillation_loss_weights: One factor a loss; None: 1 each.
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
        teacher: keras.Model | None,
        student: keras.Model,
        distillation_losses: Any = None,
        distillation_loss_weights: Sequence[float] | None = None,
        student_loss_weight: float = 0.1,
        name: str = "distiller",
        *,
        temperature: float = 4.0,
    ) -> None:
        """Checks that everything fits together."""
        check_models(teacher, student)
        check_share(student_loss_weight)
        losses = resolved_losses(distillation_losses, temperature)
        weights = resolved_weights(distillation_loss_weights, len(losses))
        for loss in losses:
            if isinstance(loss, SoftTargets):
                check_soft_targets(teacher, student)
            check_needs_no_layer(loss, teacher)
            if teacher is not None:
                loss.validate_model_compatibility(teacher, student)
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
        for made in projections(losses, teacher, student):
            setattr(self, made.name, made)
        self._connect()

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The student's, and the projections' of feature hints.

        The teacher's never train.
        """
        if not self.trainable:
            return []
        projected = [x.kernel for x in self._projections().values()]
        return [*self.student.trainable_variables, *projected]

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The same as weights."""
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
    def fit_inputs(self) -> Any:
        """Inside `fit`, the arrays given as `x`, else None.

        Without packed teacher outputs, and without the rows that
        `validation_split` sets aside.
        """
        return self._fit.inputs

    @property
    def fit_callbacks(self) -> Any:
        """Inside `fit`, the callbacks of the run, else None."""
        return self._fit.callbacks

    @property
    def fit_validation(self) -> Any:
        """Inside `fit`, its validation data, else None."""
        return self._fit.validation

    @property
    def pinned_layers(self) -> dict[str, str]:
        """Student layers whose width a feature loss needs, with the reason."""
        return {
            loss.student_layer_name: (
                f"the loss {type(loss).__name__} matches its output"
            )
            for loss in self.distillation_losses
            if getattr(loss, "student_layer_name", None)
            and not self._can_shrink(loss)
        }

    def _can_shrink(self, loss: Any) -> bool:
        """Says whether a projection follows what a matched layer loses."""
        if not getattr(loss, "has_projection", False):
            return False
        tensor = feature_tensor(self.student, loss.student_layer_name)
        channels = ChannelGraph(self.student).channels.get(id(tensor))
        last = len(tensor.shape) - 1
        return channels is not None and channels.axis in (None, last)

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
                `student_loss_weight` is 0.
            metrics: Metrics of the student.
            **kwargs: As for `keras.Model.compile`.

        Raises:
            ValueError: If the hard loss is missing.
        """
        if loss is None and self.student_loss_weight:
            raise ValueError(
                "`loss` must be given: the labels weigh "
                f"student_loss_weight={self.student_loss_weight}. Received: "
                "loss=None. Pass a Keras loss, or set student_loss_weight=0."
            )
        keras.Model.compile(
            self, optimizer=optimizer, loss=loss, metrics=metrics, **kwargs
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded Distiller the way the saved one was."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.build_optimizer()

    def build_optimizer(self) -> None:
        """Makes the optimizer's state, if the first step has not yet."""
        optimizer: Any = self.optimizer
        if not optimizer.built:
            with self._scope():
                optimizer.build(self.trainable_variables)

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Trains the student; takes what `keras.Model.fit` takes."""
        signature = inspect.signature(keras.Model.fit)
        call = signature.bind(self, x, y, *args, **kwargs)
        given = call.arguments
        self._fit = read_arguments(x, y, given)
        try:
            return super().fit(*call.args[1:], **call.kwargs)
        finally:
            self._fit = FitArguments()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the student's outputs."""
        return self._terms.student_outputs(unpacked(inputs)[0], training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the combined loss of a batch.

        Args:
            x: Inputs, plain or packed by `keras_kddp.TeacherCache`.
            y: Labels, or None to learn from the teacher alone.
            y_pred: The student's outputs for `x`; computed if None.
            sample_weight: None or (batch,): factor on the hard and the soft
                loss of each example, not on the penalties.
            training: Adds the student's penalties.

        Returns:
            Scalar in float32, or float64 where the outputs are.
        """
        if y_pred is None:
            y_pred = self(x, training=training)
        share = self.student_loss_weight
        outputs = keras.tree.flatten(y_pred)
        dtype = keras.backend.result_type(
            *(output.dtype for output in outputs), "float32"
        )
        hard = soft = keras.ops.zeros((), dtype)
        if share > 0 and y is not None:
            hard = keras.ops.cast(
                _compat.compiled_loss(self, y, y_pred, sample_weight), dtype
            )
        if share < 1:
            terms = self._terms.total(
                x,
                y_pred,
                self.distillation_losses,
                self.distillation_loss_weights,
                projections=self._projections(),
                sample_weight=sample_weight,
                training=training,
            )
            soft = keras.ops.cast(_compat.share_of_replica(terms), dtype)
        total = share * hard + (1 - share) * soft
        if training:
            for penalty in self.student.losses:
                total += _compat.share_of_replica(
                    keras.ops.sum(keras.ops.cast(penalty, dtype))
                )
        self._track(y_pred, hard=hard, soft=soft, total=total)
        return total

    def _track(self, y_pred: Any, **losses: Any) -> None:
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

    def _projections(self) -> dict[str, keras.Layer]:
        """Returns the projections of feature hints by name."""
        names = projection_names(self.distillation_losses)
        return {n: getattr(self, n) for n in names if hasattr(self, n)}

    def replace_student(self, plan: RemovalPlan) -> None:
        """Puts the smaller student of a plan in place and trains on with it.

        At an epoch boundary, inside or outside `fit`. Weights, the
        optimizer's state and seed states go along; the next step traces anew.

        Args:
            plan: Made for `self.student` by `keras_kddp.plan_removal`.

        Raises:
            ValueError: If the plan is for another model, or takes units from
                a layer that a feature loss matches.
        """
        if not isinstance(plan, RemovalPlan):
            raise ValueError(
                "`plan` must be what `keras_kddp.plan_removal` returns. "
                f"Received: {type(plan).__name__}."
            )
        if plan.model is not self.student:
            raise ValueError(
                "`plan` must be made for the Distiller's present student "
                f"'{self.student.name}'. Received one for another model. Call "
                "`plan_removal(distiller.student, ...)` again."
            )
        with self._scope():
            student = plan.build()
            self._check_pinned(student)
            transfers = list(plan.transfers(student))
            smaller = {}
            for name, old in self._projections().items():
                smaller[name], kept = cut_projection(
                    old, self.distillation_losses, plan, student
                )
                new = smaller[name].kernel
                transfers.append((old.kernel, new, {0: kept}))
            optimizer = getattr(self, "optimizer", None)
            if optimizer is not None and optimizer.built:
                trained = [
                    *student.trainable_variables,
                    *(x.kernel for x in smaller.values()),
                ]
                optimizer = carry_optimizer(optimizer, transfers, trained)
        self._put_student(student, smaller, optimizer)

    def _put_student(
        self,
        student: keras.Model,
        projected: Mapping[str, keras.Layer],
        optimizer: Any,
    ) -> None:
        _compat.replace_sublayer(self, "student", student)
        for name, layer in projected.items():
            _compat.replace_sublayer(self, name, layer)
        self._connect()
        if self.compiled:
            self.optimizer = optimizer
            _compat.forget_compiled_functions(self)

    def snapshot(self) -> "Snapshot":
        """Returns the student and its optimizer as they are now."""
        optimizer: Any = getattr(self, "optimizer", None)
        if optimizer is not None:
            self.build_optimizer()  # else its state would not go back
        kept = self._projections()
        variables = [
            *self.student.variables,
            *(x.kernel for x in kept.values()),
        ]
        if optimizer is not None:
            variables += optimizer.variables
        values = [(v, to_numpy(v)) for v in variables]
        return Snapshot(self.student, kept, optimizer, values)

    def restore(self, snapshot: "Snapshot") -> None:
        """Goes back to a student that was there before.

        At an epoch boundary, inside or outside `fit`.

        Args:
            snapshot: What `snapshot` of this Distiller returned.

        Raises:
            ValueError: If it was taken before `compile`, and this is after.
        """
        if snapshot.optimizer is None and self.compiled:
            raise ValueError(
                "`snapshot` must hold an optimizer once the Distiller is "
                "compiled. Received one taken before `compile`. Take it after."
            )
        if snapshot.student is not self.student:
            self._put_student(*snapshot[:3])
        for variable, value in snapshot.values:
            variable.assign(value)

    def _scope(self) -> Any:
        if keras.backend.backend() != "tensorflow":
            return contextlib.nullcontext()
        return self.distribute_strategy.scope()

    def _check_pinned(self, student: keras.Model) -> None:
        for name, reason in self.pinned_layers.items():
            old = self.student.get_layer(name).output.shape
            new = student.get_layer(name).output.shape
            if old != new:
                raise ValueError(
                    f"`plan` must keep the output of layer '{name}': {reason}."
                    f" Received a plan that makes {old} into {new}. Leave "
                    "these units in."
                )

    def reset_metrics(self) -> None:
        """Resets all metrics."""
        keras.Model.reset_metrics(self)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, models included."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "teacher": self.teacher and serialize(self.teacher),
            "student": serialize(self.student),
            "distillation_losses": [
                serialize(loss) for loss in self.distillation_losses
            ],
            "distillation_loss_weights": list(self.distillation_loss_weights),
            "student_loss_weight": self.student_loss_weight,
        }


class Snapshot(NamedTuple):
    """A student and its optimizer as they were at one moment.

    Attributes:
        student: The student.
        projections: The projections of feature hints by name.
        optimizer: Its optimizer, or None.
        values: Each of their variables with its value.
    """

    student: keras.Model
    projections: dict[str, keras.Layer]
    optimizer: Any
    values: list[tuple[keras.Variable, np.ndarray]]
