"""What one optimizer keeps for biases that take constants in."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kddp._compat.optimizers import optimized_weights
from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.bias_folds import BiasFolds, RaisedBias

ValuesByWeight = Mapping[
    int, np.ndarray
]  # id(weight of the larger model) -> values


class Slot(NamedTuple):
    """What an optimizer keeps for a weight.

    Attributes:
        name: What the optimizer calls it: "momentum", "average".
        optimizer: The successor that keeps it, one of several perhaps.
        weight: The weight of the smaller model.
        variable: The slot.
        old_weight: The weight that was cut; None for a bias that was not
            there.
        old_variable: The slot that was cut, or None.
    """

    name: str
    optimizer: Any
    weight: keras.Variable
    variable: keras.Variable
    old_weight: keras.Variable | None
    old_variable: keras.Variable | None


class FoldedSlots:
    """The slots that one optimizer has for folded weights and their biases.

    Args:
        optimizer: The optimizer in use.
        successor: Its successor.
        slots: Those of the successor, carried over, and of others.
        folds: The folds.

    Attributes:
        optimizer: The optimizer in use.
        successor: Its successor.
        biases: The folded biases that it trains.
    """

    def __init__(
        self,
        optimizer: Any,
        successor: Any,
        slots: list[Slot],
        folds: BiasFolds,
    ) -> None:
        """Sorts the slots by weight and name."""
        self.optimizer = optimizer
        self.successor = successor
        self._folds = folds
        self._slots = {
            (id(slot.weight), slot.name): slot
            for slot in slots
            if slot.optimizer is successor
        }
        self._known = {id(weight) for weight in optimized_weights(successor)}
        self.biases = [x for x in folds.biases if self.trains(x.bias)]

    def trains(self, weight: keras.Variable) -> bool:
        """Says whether the optimizer moves a weight of the smaller model."""
        return id(weight) in self._known

    @property
    def kept(self) -> list[keras.Variable]:
        """Everything that is kept but clock, averages and gradients."""
        given = ("average", "gradient_accumulator")
        known = {
            id(slot.variable)
            for slot in self._slots.values()
            if slot.name in given
        }
        return [
            variable
            for variable in self.successor.variables
            if variable.name not in ("iteration", "learning_rate")
            and id(variable) not in known
        ]

    def averages(self) -> list[tuple[keras.Variable, np.ndarray]]:
        """Returns each weight of the larger model and its moving average."""
        return [
            (slot.old_weight, to_numpy(slot.old_variable))
            for slot in self._slots.values()
            if slot.name == "average"
            and slot.old_weight is not None
            and slot.old_variable is not None
        ]

    def moves(self, values: ValuesByWeight) -> dict[str, np.ndarray]:
        """Returns how biases move where the weights before them move."""
        return self._folds.through(values)

    def gains(self, values: ValuesByWeight) -> Mapping[str, np.ndarray]:
        """Returns what biases gain from weights that have these values."""
        weights = {
            id(old): old for raised in self.biases for old, _ in raised.weights
        }
        return self._folds.increments(
            (weights[key], value) for key, value in values.items()
        )

    def old_values(self, name: str) -> ValuesByWeight:
        """Returns a slot of all folded weights as it was, in float64."""
        found = {}
        for raised in self.biases:
            for old, new in raised.weights:
                slot = self._slots.get((id(new), name))
                if slot is not None and slot.old_variable is not None:
                    value = to_numpy(slot.old_variable)
                    found[id(old)] = value.astype("float64")
        return found

    def bias_slots(
        self, name: str
    ) -> Iterator[tuple[RaisedBias, keras.Variable, np.ndarray]]:
        """Yields each bias with its slot and what that holds, in float64."""
        for raised in self.biases:
            slot = self._slots.get((id(raised.bias), name))
            if slot is not None:
                value = to_numpy(slot.variable).astype("float64")
                yield raised, slot.variable, value

    def add(
        self, name: str, gained: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Adds to a slot that is a sum of weights or of steps.

        Args:
            name: Of the slot.
            gained: Layer name -> what is added, (units,); None: what goes
                through the slots of the weights.
        """
        if gained is None:
            gained = self.moves(self.old_values(name))
        for raised, slot, value in self.bias_slots(name):
            start = 0.0 if raised.is_new else value  # it may copy the bias
            slot.assign(start + gained.get(raised.layer, 0.0))

    def estimate(self, *names: str) -> None:
        """Gives new biases the mean of what the weights of a unit have.

        Squared gradients say how large the steps are to be: from nothing, the
        first ones would be many times those of the other weights.
        """
        for name in names:
            for raised, slot, _ in self.bias_slots(name):
                for _, weight in raised.weights[-1:] if raised.is_new else ():
                    kept = self._slots.get((id(weight), name))
                    if kept is None:
                        continue
                    value = to_numpy(kept.variable)
                    if value.shape[-1:] == slot.shape:
                        slot.assign(value.mean(tuple(range(value.ndim - 1))))

    def add_steps(
        self, squares: str, divisor: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        """Adds to a momentum whose steps are divided by another slot.

        Args:
            squares: Name of that slot.
            divisor: Says what the next step is divided by.
        """
        momenta = self.old_values("momentum")
        steps = {}
        for weight, value in self.old_values(squares).items():
            scale, none = divisor(value), np.zeros_like(value)
            steps[weight] = np.divide(
                momenta[weight], scale, none, where=scale > 0
            )
        gained = self.moves(steps)
        for raised, _, value in self.bias_slots(squares):
            gained[raised.layer] = divisor(value) * gained[raised.layer]
        self.add("momentum", gained)
