"""What a removal folds into biases, for any values of the weights."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import keras
import numpy as np

from keras_kddp.surgery.calls import layers_by_path
from keras_kddp.surgery.checks import variable_named
from keras_kddp.surgery.folding import fold_constants
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.plan import RemovalPlan
from keras_kddp.surgery.request import requested_groups


class RaisedBias(NamedTuple):
    """A bias that takes a constant in.

    Attributes:
        layer: Name of its layer.
        weights: The trained weights of the larger layer that the constant
            goes through, each with its successor.
        bias: That of the smaller layer, raised.
        is_new: The larger layer had none.
    """

    layer: str
    weights: list[tuple[keras.Variable, keras.Variable]]
    bias: keras.Variable
    is_new: bool


class BiasFolds:
    """The folds of a removal, as a function of the larger model's weights.

    A removed unit that is held at the constant c adds `c @ kernel` to what its
    consumer computes. The same goes for what an optimizer keeps beside a
    kernel: where that is a sum of weights or of steps, it adds `c @` that.

    Args:
        plan: A removal; its model is only read.
        new_model: What the plan built, just now.

    Attributes:
        biases: The biases that take constants in.
    """

    def __init__(self, plan: RemovalPlan, new_model: keras.Model) -> None:
        """Finds the biases; reads the graph where something is folded."""
        self._plan = plan
        self.biases: list[RaisedBias] = []
        if not plan.folds:
            return
        self._graph = ChannelGraph(plan.model)
        self._groups = requested_groups(
            self._graph, plan.removed, plan.constants
        )
        old_layers = layers_by_path(plan.model)
        new_layers = layers_by_path(new_model)
        successors = {id(o): n for o, n, _ in plan.transfers(new_model)}
        for name in self.increments(()):
            old = old_layers[name]
            weights = [w for w in old.trainable_weights if w.name != "bias"]
            self.biases.append(
                RaisedBias(
                    name,
                    [(weight, successors[id(weight)]) for weight in weights],
                    variable_named(new_layers[name], "bias"),
                    all(weight.name != "bias" for weight in old.weights),
                )
            )

    def increments(
        self, values: Iterable[tuple[keras.Variable, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        """Returns what biases gain if weights have other values.

        Args:
            values: Weights of the larger model and what stands in for them,
                in their shapes; the others are as they are.

        Returns:
            Layer name -> (units of the smaller layer,) float64; without the
            layers that gain nothing.
        """
        tensors = [
            (weight, keras.ops.convert_to_tensor(value, dtype=weight.dtype))
            for weight, value in values
        ]
        with keras.StatelessScope(tensors):
            folding = fold_constants(
                self._graph,
                self._groups,
                self._plan.constants,
                training=False,
                approximate=True,
            )
        return {
            name: np.delete(gained, self._plan.removed.get(name, ()))
            for name, gained in folding.increments.items()
        }

    def through(
        self, values: Mapping[int, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns how biases move where the weights before them move.

        Args:
            values: `id(weight of the larger model)` -> how it moves, in its
                shape; the others stay.

        Returns:
            Layer name -> (units of the smaller layer,) float64.
        """
        waiting = {
            raised.layer: [w for w, _ in raised.weights if id(w) in values]
            for raised in self.biases
        }
        moves = {x.layer: np.zeros(tuple(x.bias.shape)) for x in self.biases}
        while any(waiting.values()):  # once, but for products of two kernels
            moved = {name: w.pop() for name, w in waiting.items() if w}
            gained = self.increments((w, values[id(w)]) for w in moved.values())
            for name in moved.keys() & gained.keys():
                moves[name] += gained[name]
        return moves
