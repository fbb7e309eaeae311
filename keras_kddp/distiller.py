"""The Keras model that trains a student under a teacher."""

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.activity import are_arrays
from keras_kddp.compatibility import (
    check_models,
    check_needs_no_layer,
    check_scalar,
    check_share,
    check_soft_targets,
    resolved_losses,
    resolved_weights,
    weight_argument,
)
from keras_kddp.losses import (
    SoftTargets,
    at_least_float32,
    log_probabilities,
    output_activations,
)
from keras_kddp.optimizers import carry_optimizer
from keras_kddp.packing import TeacherOutput, unpacked
from keras_kddp.surgery.observer import input_structure
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
        self._fit = _Untracked({"inputs": None, "callbacks": None})
        self._softmax_outputs = _Untracked(
            {
                role: [name == "softmax" for name in output_activations(model)]
                for role, model in (("teacher", teacher), ("student", student))
                if model is not None
            }
        )
        self._connect_features()

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The student's trainable variables; the teacher's never train."""
        return self.student.trainable_variables if self.trainable else []

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The student's trainable weights."""
        return self.student.trainable_weights if self.trainable else []

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
        return self._fit["inputs"]

    @property
    def fit_callbacks(self) -> Any:
        """Inside `fit`, the callbacks of the run, else None."""
        return self._fit["callbacks"]

    @property
    def pinned_layers(self) -> dict[str, str]:
        """Student layers whose width a feature loss needs, with the reason."""
        return {
            loss.student_layer_name: (
                f"the loss {type(loss).__name__} matches its output"
            )
            for loss in self.distillation_losses
            if getattr(loss, "student_layer_name", None)
        }

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
        given["callbacks"] = _in_order(given.get("callbacks"))
        rows = _training_rows(x, given.get("validation_split", 0.0))
        self._fit = _Untracked(
            {"inputs": rows, "callbacks": given["callbacks"]}
        )
        try:
            return super().fit(*call.args[1:], **call.kwargs)
        finally:
            self._fit = _Untracked({"inputs": None, "callbacks": None})

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the student's outputs."""
        return self.student(unpacked(inputs)[0], training=training)

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
            soft = keras.ops.cast(
                self._distillation_loss(x, y_pred, sample_weight, training),
                dtype,
            )
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

    def _distillation_loss(
        self, x: Any, y_pred: Any, sample_weight: Any, training: bool
    ) -> Any:
        total: Any = 0.0
        for loss, weight in zip(
            self.distillation_losses,
            self.distillation_loss_weights,
            strict=True,
        ):
            outputs = self._outputs_for(loss, x, y_pred, training)
            loss.validate_outputs(*outputs)
            arguments = weight_argument(loss, sample_weight)
            value = loss.compute_loss(*outputs, **arguments)
            check_scalar(loss, value)
            total += weight * at_least_float32(value)
        return _compat.share_of_replica(total)

    def _outputs_for(
        self, loss: Any, x: Any, y_pred: Any, training: bool
    ) -> tuple[Any, Any]:
        """Returns what a distillation loss compares, the teacher's first."""
        inputs, cached = unpacked(x)
        teacher_layer = getattr(loss, "teacher_layer_name", None)
        student_layer = getattr(loss, "student_layer_name", None)
        if teacher_layer:
            feature = self._features[teacher_layer, True](
                inputs, training=False
            )
            cached = [TeacherOutput(feature, are_probabilities=False)]
        elif not cached:
            cached = self._teacher_outputs(inputs)
        if student_layer:
            student = self._features[student_layer, False](
                inputs, training=training
            )
        else:
            student = y_pred
        is_soft = isinstance(loss, SoftTargets)
        teachers = [
            log_probabilities(output.values)
            if is_soft and output.are_probabilities
            else at_least_float32(output.values)
            for output in cached
        ]
        students = [
            log_probabilities(output)
            if is_soft and is_softmax
            else at_least_float32(output)
            for output, is_softmax in self._with_softmax("student", student)
        ]
        return (
            keras.tree.pack_sequence_as(
                student, [*map(keras.ops.stop_gradient, teachers)]
            ),
            keras.tree.pack_sequence_as(student, students),
        )

    def _teacher_outputs(self, inputs: Any) -> list[TeacherOutput]:
        if self.teacher is None:
            raise ValueError(
                "`x` must carry the outputs of the teacher when teacher=None. "
                "Received plain inputs. Pack them, keras_kddp.TeacherCache("
                "teacher, x).pack(x), the validation data too, or give the "
                "Distiller the teacher."
            )
        outputs = self.teacher(inputs, training=False)
        return [
            TeacherOutput(*pair)
            for pair in self._with_softmax("teacher", outputs)
        ]

    def _with_softmax(self, role: str, outputs: Any) -> list[tuple[Any, bool]]:
        """Pairs each flat output with whether it comes out of a softmax."""
        flat = keras.tree.flatten(outputs)
        flags = self._softmax_outputs[role] or [False] * len(flat)
        return list(zip(flat, flags, strict=True))

    def _connect_features(self) -> None:
        """Makes the models that read the layers which losses match."""
        features: dict[tuple[str, bool], keras.Model] = {}
        for loss in self.distillation_losses:
            for model, attribute in (
                (self.teacher, "teacher_layer_name"),
                (self.student, "student_layer_name"),
            ):
                name = getattr(loss, attribute, None)
                if name and model is not None:
                    features[name, model is self.teacher] = keras.Model(
                        input_structure(model), model.get_layer(name).output
                    )
        self._features = _Untracked(features)

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
            optimizer = getattr(self, "optimizer", None)
            if optimizer is not None and optimizer.built:
                optimizer = carry_optimizer(
                    optimizer, transfers, student.trainable_variables
                )
        _compat.replace_sublayer(self, "student", student)
        self._connect_features()
        if self.compiled:
            self.optimizer = optimizer
            _compat.forget_compiled_functions(self)

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


class _Untracked:
    """A dict that Keras does not look into.

    It would list variables twice, and hand dicts out as a class of its own.
    """

    def __init__(self, items: Mapping[Any, Any]) -> None:
        self._items = items

    def __getitem__(self, key: Any) -> Any:
        return self._items[key]


def _in_order(callbacks: Any) -> Any:
    """Returns callbacks with those first that write for the others."""
    if not isinstance(callbacks, (list, tuple)):
        return callbacks
    flat = keras.tree.flatten(callbacks)
    return sorted(flat, key=lambda x: not getattr(x, "runs_first", False))


def _training_rows(x: Any, validation_split: float) -> Any:
    """Returns arrays given to `fit`, without the validation rows."""
    x, _ = unpacked(x)
    if not are_arrays(x):
        return None
    leaves = keras.tree.flatten(x)
    rows = int(leaves[0].shape[0] * (1 - validation_split))
    return keras.tree.map_structure(lambda leaf: leaf[:rows], x)
