"""What has left a model since it was first there, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_kddp.surgery.bias_folds import RaisedBias
from keras_kddp.surgery.calls import layers_by_path
from keras_kddp.surgery.checks import SurgeryError
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.plan import RemovalPlan, plan_on


@dataclass(frozen=True)
class Lineage:
    """All removals from a model, as one.

    Holds no model: a copy of the first one becomes the present one by it, but
    for the values of its weights.

    Attributes:
        removed: Layer name -> the units that left, by their indices in the
            first model, in increasing order.
        folded: Names of the layers whose biases took constants in.
    """

    removed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    folded: tuple[str, ...] = ()

    def after(self, plan: RemovalPlan) -> "Lineage":
        """Returns the lineage of what a plan for the present model builds."""
        removed = dict(self.removed)
        for name, units in plan.removed.items():
            gone = removed.get(name, ())
            left = _left(plan.widths[name] + len(gone), gone)
            removed[name] = tuple(sorted([*gone, *(left[i] for i in units)]))
        return Lineage(removed, tuple(sorted({*self.folded, *plan.folds})))

    def plan_from(self, earlier: "Lineage", model: keras.Model) -> RemovalPlan:
        """Returns the removal that leads to this lineage from an earlier one.

        Args:
            earlier: That of the model.
            model: A model; only read.

        Returns:
            To be built by `build_unfolded`.

        Raises:
            SurgeryError: If more has left the model already, or something can
                not leave it.
        """
        graph = ChannelGraph(model)
        units: dict[str, list[int]] = {}
        for name, gone in self.removed.items():
            before = earlier.removed.get(name, ())
            count = len(graph.units.get(name, ())) + len(before)
            places = {u: i for i, u in enumerate(_left(count, before))}
            new = sorted({*gone} - {*before})
            if not {*before} <= {*gone} or not {*new} <= places.keys():
                raise _not_the_start(model)
            if new:
                units[name] = [places[unit] for unit in new]
        if not earlier.removed.keys() <= self.removed.keys():
            raise _not_the_start(model)
        return plan_on(graph, units, folds=dict.fromkeys(self.folded, ()))

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields by name, for JSON."""
        return {
            "removed": {n: list(units) for n, units in self.removed.items()},
            "folded": list(self.folded),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Lineage":
        """Returns the lineage from `as_dict()`."""
        removed = {n: tuple(x) for n, x in stored["removed"].items()}
        return cls(removed, tuple(stored["folded"]))


def gained_biases(
    plan: RemovalPlan, new_model: keras.Model
) -> list[RaisedBias]:
    """Returns the biases that a smaller model has and the larger one lacks.

    Args:
        plan: What led to it.
        new_model: What it built.
    """
    old_layers, new_layers = map(layers_by_path, (plan.model, new_model))
    successors = {id(o): n for o, n, _ in plan.transfers(new_model)}
    gained = []
    for name in plan.folds:
        old = old_layers[name]
        biases = [x for x in new_layers[name].weights if x.name == "bias"]
        if biases and all(weight.name != "bias" for weight in old.weights):
            pairs = [(x, successors[id(x)]) for x in old.trainable_weights]
            gained.append(RaisedBias(name, pairs, biases[0], is_new=True))
    return gained


def _left(count: int, gone: Sequence[int]) -> list[int]:
    """Returns which of the first units are left, in order."""
    away = {*gone}
    return [unit for unit in range(count) if unit not in away]


def _not_the_start(model: keras.Model) -> SurgeryError:
    return SurgeryError(
        "The model must be what all removals began with. Received "
        f"'{model.name}', from which other units have left. Make it anew."
    )
