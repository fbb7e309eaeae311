"""What the constants of held units are, on their way to who reads them."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_kddp.model_io import Tensor
from keras_kddp.surgery.channels import Call, describe
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.rule import (
    NotFoldableError,
    Precision,
    Rule,
    Values,
)

Constants = Mapping[str, Mapping[int, float]]


class ConstantWalk:
    """One pass of constants through a graph, in one mode.

    Args:
        graph: The channels of the model.
        removed: Numbers of the groups that are held.
        constants: Layer name -> unit -> value at the observation point; 0
            where nothing is said.
        training: The mode.
        approximate: Fold what is exact but for the border of an image too.

    Attributes:
        increments: Layer name -> what its bias gains, (units,) float64.
        refusals: Group number -> why its constant cannot be folded.
        errors: Layer name -> how far an approximate fold is off at most.
        precisions: Group number -> how exact its fold is in training, where
            that is not exactly.
        arriving: (call, input) -> what arrives at a layer that reads it.
        arriving_groups: (call, input) -> the groups of these channels.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        removed: set[int],
        constants: Constants,
        *,
        training: bool = False,
        approximate: bool = False,
    ) -> None:
        """Follows the constants through every call."""
        self._graph = graph
        self._approximate = approximate
        self.errors: dict[str, float] = {}
        self._is_removed = np.zeros(graph.records.size, dtype=bool)
        self._is_removed[list(removed)] = True
        self.refusals: dict[int, str] = {}
        self._training = training
        self._held = self._held_values(constants)
        self._values: dict[int, Values] = {}
        self._noisy: dict[int, np.ndarray] = {}  # id(tensor) -> precisions
        self._spoilt: dict[int, np.ndarray] = {}  # id(tensor) -> unknown by it
        self.precisions: dict[int, Precision] = {}
        self._readers = {name for name, _, _ in graph.records.consumed}
        self._readers.update(graph.units)
        self.increments: dict[str, Values] = {}
        self.arriving: dict[tuple[int, int], Values] = {}
        self.arriving_groups: dict[tuple[int, int], np.ndarray] = {}
        self._first: dict[tuple[str, int], int] = {}
        for index in range(len(graph.nodes)):
            self._visit(index)

    def _held_values(self, constants: Constants) -> dict[int, Values]:
        """Returns what is given for observed tensors, NaN where nothing is."""
        graph = self._graph
        held: dict[int, Values] = {}
        for name in graph.removable_layers():
            groups = graph.group_numbers[graph.units[name]]
            gone = self._is_removed[groups]
            if not gone.any():
                continue
            given = np.full(len(groups), np.nan)
            for unit, value in constants.get(name, {}).items():
                given[unit] = value
            for tensor in graph.observation_points(name):
                known = held.get(id(tensor), given)
                differs = gone & (np.abs(given - known) > 0)
                for unit in np.flatnonzero(differs).tolist():
                    self._refuse(
                        int(groups[unit]),
                        "they are observed at the same tensor, which cannot "
                        f"be held at {known[unit]:.4g} and {given[unit]:.4g}",
                    )
                held[id(tensor)] = np.where(np.isnan(known), given, known)
                if self._training:
                    self._refuse_spoilt(tensor, held[id(tensor)], gone)
        return held

    def _refuse_spoilt(
        self, tensor: Tensor, held: Values, gone: np.ndarray
    ) -> None:
        """Refuses what noise in front of it lets be another in training."""
        values = np.nan_to_num(held)
        spoilt, activation = self._graph.points.spoilt_by_noise(tensor, values)
        for group in self._groups(tensor)[gone & spoilt].tolist():
            self._refuse(
                group,
                "the noise of training gives it another mean behind "
                f"{activation}",
            )

    def _visit(self, index: int) -> None:
        node, rule = self._graph.nodes[index], self._graph.rules[index]
        call = self._graph.calls[index]
        if call is None:
            for tensor in node.outputs:
                self._values[id(tensor)] = self._unknown(tensor)
            return
        inputs = [self._values[id(x)] for x in call.tensors]
        self._read(index, call, inputs)
        if len(node.outputs) != 1 or all(np.isnan(v).all() for v in inputs):
            outputs = [self._unknown(x) for x in node.outputs]
        else:
            outputs = [rule.constant(call, inputs, self._training)]
            if self._training:
                outputs = [self._with_noise(rule, call, inputs, outputs[0])]
        for tensor, values in zip(node.outputs, outputs, strict=True):
            held = self._held.get(id(tensor))
            if held is not None:
                gone = self._is_removed[self._groups(tensor)]
                values = np.where(gone, np.nan_to_num(held), values)
                if id(tensor) in self._noisy:
                    self._noisy[id(tensor)][gone] = Precision.EXACT
            self._values[id(tensor)] = values

    def _with_noise(
        self, rule: Rule, call: Call, inputs: list[Values], values: Values
    ) -> Values:
        """Returns constants in training, NaN where noise changes their mean."""
        (tensor,) = call.node.outputs
        groups = self._groups(tensor)
        carried = np.zeros(len(groups), int)
        for source in call.tensors:
            noisy = self._noisy.get(id(source))
            for level in (Precision.NEARLY, Precision.ON_AVERAGE):
                if noisy is not None and (noisy == level).any():
                    met = np.isin(groups, self._groups(source)[noisy == level])
                    carried[met] = np.maximum(carried[met], level)
        levels = np.maximum(carried, rule.precision(call, inputs))
        if levels.any():
            self._noisy[id(tensor)] = levels
        if rule.keeps_means(call):
            return values
        spoilt = (carried == Precision.ON_AVERAGE) & ~np.isnan(values)
        self._spoilt[id(tensor)] = spoilt
        return np.where(spoilt, np.nan, values)

    def _labels(self, tensor: object) -> np.ndarray:
        return self._graph.channels[id(tensor)].labels

    def _unknown(self, tensor: object) -> Values:
        return np.full(len(self._labels(tensor)), np.nan)

    def _groups(self, tensor: object) -> np.ndarray:
        return self._graph.group_numbers[self._labels(tensor)]

    def _obstacle(self, tensor: object, group: int) -> str:
        """Returns where a removed channel of a tensor became unknown."""
        node = self._graph.maker(tensor)
        spoilt = self._spoilt.get(id(tensor))
        if spoilt is not None and spoilt[self._groups(tensor) == group].any():
            return (
                "the noise of training gives it another mean behind "
                f"{describe(node.operation)}"
            )
        for source in node.inputs:
            unknown = np.isnan(self._values[id(source)])
            if (unknown & (self._groups(source) == group)).any():
                return self._obstacle(source, group)
        return f"its value is no constant behind {describe(node.operation)}"

    def _read(self, index: int, call: Call, inputs: list[Values]) -> None:
        """Lets a mixing layer take constants into its bias."""
        if call.name not in self._readers:
            return
        for position, tensor in enumerate(call.tensors):
            groups = self._groups(tensor)
            gone = self._is_removed[groups]
            if not gone.any():
                continue
            for group in groups[gone & np.isnan(inputs[position])].tolist():
                self._refuse(group, self._obstacle(tensor, group))
            self._note_precision(tensor, groups, gone)
            values = np.where(gone, np.nan_to_num(inputs[position]), 0.0)
            self._check_shared(call, position, values, groups)
            self.arriving[index, position] = values
            self.arriving_groups[index, position] = groups
            self._first.setdefault((call.name, position), index)
            try:
                self._fold(index, call, values)
            except NotFoldableError as error:
                if self._approximate and error.closest:
                    increments, distance = error.closest()
                    self.increments[call.name] = increments
                    largest = max(distance, self.errors.get(call.name, 0.0))
                    self.errors[call.name] = largest
                    continue
                for group in groups[values != 0].tolist():
                    self._refuse(group, str(error))

    def _note_precision(
        self, tensor: object, groups: np.ndarray, gone: np.ndarray
    ) -> None:
        noisy = self._noisy.get(id(tensor))
        if noisy is None:
            return
        for level in (Precision.NEARLY, Precision.ON_AVERAGE):
            for group in groups[gone & (noisy == level)].tolist():
                known = self.precisions.get(group, level)
                self.precisions[group] = max(known, level)

    def _fold(self, index: int, call: Call, values: Values) -> None:
        if not values.any():
            return
        rule = self._graph.rules[index]
        increments = rule.fold(call, values) if len(call.tensors) == 1 else None
        if increments is None:
            raise NotFoldableError(
                f"{describe(call.operation)} cannot take a constant into a bias"
            )
        if not increments.any():
            return
        if self._training and _constrains_bias(call.operation):
            raise NotFoldableError(
                f"the bias_constraint of {describe(call.operation)} would "
                "change the constant"
            )
        self.increments[call.name] = increments

    def _check_shared(
        self, call: Call, position: int, values: Values, groups: np.ndarray
    ) -> None:
        """Refuses what differs between calls of a layer: it has one bias."""
        first = self._first.get((call.name, position))
        if first is None:
            return
        other = self.arriving[first, position]
        for group in groups[~np.isclose(values, other, rtol=1e-12, atol=0)]:
            self._refuse(
                int(group),
                f"layer '{call.name}' is called twice, with constants that "
                "differ",
            )

    def _refuse(self, group: int, reason: str) -> None:
        self.refusals.setdefault(group, reason)


def _constrains_bias(layer: Any) -> bool:
    """Says whether each step of training puts a constraint on a bias.

    On one that folding would add, too.
    """
    bias = getattr(layer, "bias", None)
    if isinstance(bias, keras.Variable):
        return bias.trainable and bias.constraint is not None
    is_constrained = getattr(layer, "bias_constraint", None) is not None
    return layer.trainable and is_constrained
