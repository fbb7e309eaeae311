"""A student, its projections and its optimizer, as one value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from keras_kddp.distillation.feature_losses import projected_losses
from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.bias_folds import BiasFolds
from keras_kddp.surgery.lineage import Lineage, gained_biases
from keras_kddp.surgery.optimizer_state import carry_optimizer
from keras_kddp.surgery.optimizer_successors import (
    Transfer,
    all_variables,
    built_successor,
)
from keras_kddp.surgery.plan import RemovalPlan


@dataclass(frozen=True, eq=False)
class StudentState:
    """What a Distiller trains.

    Attributes:
        student: The student.
        projections: The projections of feature losses, by name.
        optimizer: Trains both; None before `compile`.
        lineage: What left the student since there was a Distiller.
    """

    student: keras.Model
    projections: Mapping[str, keras.layers.Dense]
    optimizer: Any
    lineage: Lineage = field(default_factory=Lineage)

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables that the optimizer moves, in its order."""
        kernels = [layer.kernel for layer in self.projections.values()]
        return [*self.student.trainable_variables, *kernels]

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, the optimizer's last."""
        kernels = [layer.kernel for layer in self.projections.values()]
        slots = [] if self.optimizer is None else all_variables(self.optimizer)
        return [*self.student.variables, *kernels, *slots]

    def cut(
        self, plan: RemovalPlan, student: keras.Model, losses: Sequence[Any]
    ) -> "StudentState":
        """Returns the state that trains on after a removal.

        Args:
            plan: The removal.
            student: What it builds.
            losses: Distillation losses, those of the projections among them.
        """
        smaller, transfers = self._without_units(plan, student, losses)
        if not self._is_optimized:
            return smaller
        optimizer = carry_optimizer(
            self.optimizer,
            transfers,
            smaller.trainable_variables,
            BiasFolds(plan, student),
        )
        return replace(smaller, optimizer=optimizer)

    def shaped_like(
        self, lineage: Lineage, losses: Sequence[Any]
    ) -> "StudentState":
        """Returns a new state of a later lineage, whose values are yet to come.

        This one is left as it is.

        Args:
            lineage: That of the new state.
            losses: Distillation losses, those of the projections among them.

        Raises:
            SurgeryError: If the lineage does not begin with this state.
        """
        plan = lineage.plan_from(self.lineage, self.student)
        student = plan.build_unfolded()
        smaller, transfers = self._without_units(plan, student, losses)
        if self._is_optimized:
            optimizer = built_successor(
                self.optimizer,
                transfers,
                smaller.trainable_variables,
                gained_biases(plan, student),
            )
            smaller = replace(smaller, optimizer=optimizer)
        return replace(smaller, lineage=lineage)

    @property
    def _is_optimized(self) -> bool:
        return self.optimizer is not None and self.optimizer.built

    def _without_units(
        self, plan: RemovalPlan, student: keras.Model, losses: Sequence[Any]
    ) -> tuple["StudentState", list[Transfer]]:
        """Returns the state with this optimizer, and where its weights went."""
        transfers = list(plan.transfers(student))
        projections = {}
        by_name = projected_losses(losses)
        for name, old in self.projections.items():
            new, kept = by_name[name].cut_projection(old, plan, student)
            projections[name] = new
            transfers.append((old.kernel, new.kernel, {0: kept}))
        smaller = replace(
            self,
            student=student,
            projections=projections,
            lineage=self.lineage.after(plan),
        )
        return smaller, transfers


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A state with the values that it had at one moment.

    Attributes:
        state: Student, projections and optimizer.
        values: Each of their variables with its value.
    """

    state: StudentState
    values: Sequence[tuple[keras.Variable, np.ndarray]]

    @classmethod
    def of(cls, state: StudentState) -> "Snapshot":
        """Returns the state as it is now."""
        return cls(state, [(v, to_numpy(v)) for v in state.variables])

    @property
    def student(self) -> keras.Model:
        """The student; its present values may be others."""
        return self.state.student

    def restore_values(self) -> None:
        """Gives the variables back what they had."""
        for variable, value in self.values:
            variable.assign(value)


def built_state(model: Any) -> StudentState:
    """Returns what a model trains, with the state of its optimizer made.

    Args:
        model: A built and compiled model; of a Distiller, its student counts.
    """
    if hasattr(model, "training_state"):
        model.build_optimizer()
        state: StudentState = model.training_state()
        return state
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return StudentState(model, {}, model.optimizer)


def put_back(model: Any, snapshot: Snapshot) -> None:
    """Gives a model what it had, and a Distiller the student that it had.

    Args:
        model: As `built_state` took it.
        snapshot: Of its state.
    """
    if hasattr(model, "training_state"):
        model.restore(snapshot)
    else:
        snapshot.restore_values()
