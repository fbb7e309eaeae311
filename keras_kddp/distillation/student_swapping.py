"""A model whose student can be replaced while it trains."""

import contextlib
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp._compat.memory import forgotten_gradients
from keras_kddp.distillation.feature_losses import find_pinned_layers
from keras_kddp.distillation.student_state import Snapshot, StudentState
from keras_kddp.distillation.traced_training import (
    Trained,
    check_trainable_unchanged,
    trained_now,
)
from keras_kddp.distillation.trained_part import TrainedPart
from keras_kddp.surgery.lineage import Lineage
from keras_kddp.surgery.plan import RemovalPlan


class StudentSwapping(TrainedPart):
    """The part of `keras_kddp.Distiller` that puts another student in place.

    Stands before the Keras class.
    """

    _traced: Trained | None = None

    @property
    def pinned_layers(self) -> dict[str, str]:
        """Student layers whose width a feature loss needs, with the reason."""
        return find_pinned_layers(self.distillation_losses, self.student)

    def build_optimizer(self) -> None:
        """Makes the optimizer's state, if the first step has not yet.

        Raises:
            ValueError: If there is no optimizer.
        """
        state = self.training_state()
        if state.optimizer is None:
            raise ValueError(
                "The optimizer's state must be made after `compile`. Received "
                "a Distiller that was not compiled. Call compile() first."
            )
        if not state.optimizer.built:
            with self._scope():
                state.optimizer.build(state.trainable_variables)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the step that `fit` repeats, and before it what it needs.

        An optimizer that is built inside of a compiled step may not start as
        it should: ScheduleFreeAdamW would begin anew at each of them.

        Args:
            force: Also where there is a step.
        """
        model: Any = self
        keras_model: Any = super()
        layers = [self.student, *_compat.all_layers(self.student)]
        is_built = all(layer.built for layer in layers)
        if is_built and getattr(model, "optimizer", None) is not None:
            self.build_optimizer()
        if force or model.train_function is None:
            self._traced = None
        return keras_model.make_train_function(force)

    def train_step(self, *args: Any) -> Any:
        """Does one step, and notes what it trains; compiled steps just once."""
        self._traced = trained_now(self.training_state())
        keras_model: Any = super()
        with forgotten_gradients():
            return keras_model.train_step(*args)

    def replace_student(self, plan: RemovalPlan) -> None:
        """Puts the smaller student of a plan in place and trains on with it.

        At an epoch boundary, inside or outside `fit`. Weights, the
        optimizer's state and seed states go along; the next step traces anew.
        A constant that is folded into a bias is folded into what the optimizer
        keeps for it too, and one that cannot take it exactly is warned of.

        Args:
            plan: Made for `self.student` by `keras_kddp.plan_removal`.

        Raises:
            ValueError: If the plan is for another model, or takes units from
                a layer that a feature loss matches, or layers were frozen or
                unfrozen since training began, which Keras does not see.
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
        self.check_trainable()
        with self._scope():
            plan = plan.as_of_now()
            student = plan.build_as_planned()
            self._check_pinned(student)
            state = self.training_state().cut(
                plan, student, self.distillation_losses
            )
        self.put_state(state)

    def check_trainable(self) -> None:
        """Checks that no layer was frozen or unfrozen since training began.

        Raises:
            ValueError: If one was, of which Keras knows nothing until it
                compiles again: a removal would train on otherwise.
        """
        check_trainable_unchanged(self, self.training_state(), self._traced)

    def snapshot(self) -> Snapshot:
        """Returns the student and its optimizer as they are now."""
        if self.training_state().optimizer is not None:
            self.build_optimizer()  # else its state would not go back
        return Snapshot.of(self.training_state())

    def restore(self, snapshot: Snapshot) -> None:
        """Goes back to a student that was there before.

        At an epoch boundary, inside or outside `fit`.

        Args:
            snapshot: What `snapshot` of this Distiller returned.

        Raises:
            ValueError: If it was taken before `compile`, and this is after.
        """
        model: Any = self
        if snapshot.state.optimizer is None and model.compiled:
            raise ValueError(
                "`snapshot` must hold an optimizer once the Distiller is "
                "compiled. Received one taken before `compile`. Take it after."
            )
        if snapshot.student is not self.student:
            self.put_state(snapshot.state)
        snapshot.restore_values()

    def state_of(self, lineage: Lineage, start: StudentState) -> StudentState:
        """Returns a new state of a lineage, whose values are yet to come.

        Args:
            lineage: What left by then.
            start: A state before it; left as it is.

        Raises:
            SurgeryError: If the lineage does not begin with the start.
        """
        with self._scope():
            return start.shaped_like(lineage, self.distillation_losses)

    def put_state(self, state: StudentState) -> None:
        """Trains on with another student, its projections and optimizer.

        At an epoch boundary, inside or outside `fit`.
        """
        model: Any = self
        _compat.replace_sublayer(model, "student", state.student)
        for name, layer in state.projections.items():
            _compat.replace_sublayer(model, name, layer)
        self._lineage = state.lineage
        self._connect()
        if model.compiled:
            model.optimizer = state.optimizer
            _compat.forget_compiled_functions(model)

    def _connect(self) -> None:
        """Has the losses compare the present student."""

    def _scope(self) -> Any:
        if keras.backend.backend() != "tensorflow":
            return contextlib.nullcontext()
        model: Any = self
        return model.distribute_strategy.scope()

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
