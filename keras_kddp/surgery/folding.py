"""What removed units leave behind: constants, folded into biases."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np

from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.calls import layers_by_path
from keras_kddp.surgery.channels import Call, describe
from keras_kddp.surgery.checks import variable_named
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.rule import NotFoldableError, Values

Constants = Mapping[str, Mapping[int, float]]


def of_leaving_units(
    constants: Constants, units: Mapping[str, Sequence[int]]
) -> dict[str, dict[int, float]]:
    """Returns the constants of the units that leave."""
    return {
        name: {unit: x for unit, x in values.items() if unit in units[name]}
        for name, values in constants.items()
        if name in units
    }


def raise_biases(
    model: keras.Model,
    new_model: keras.Model,
    increments: Mapping[str, Sequence[float]],
    removed: Mapping[str, Sequence[int]],
) -> None:
    """Adds to biases what the removed units leave behind.

    Args:
        model: The model as it was.
        new_model: The model without the units, its weights taken over; changed.
        increments: Layer name -> what its bias gains, one number per unit of
            the layer as it was.
        removed: Layer name -> indices of the units that went.
    """
    old_layers, new_layers = layers_by_path(model), layers_by_path(new_model)
    for name, gained in increments.items():
        gone = set(removed.get(name, ()))
        kept = [g for i, g in enumerate(gained) if i not in gone]
        had_bias = any(v.name == "bias" for v in old_layers[name].weights)
        bias = variable_named(new_layers[name], "bias")
        # A gained bias holds what its initializer drew.
        bias.assign((to_numpy(bias) if had_bias else 0) + np.asarray(kept))


class Folding(NamedTuple):
    """The outcome of holding groups of units at constants.

    Attributes:
        increments: Layer name -> what its bias gains, (units,) float64.
        refusals: Group number -> why its constant cannot be folded.
        errors: Layer name -> how far an approximate fold is off at most,
            before the layer's activation.
    """

    increments: dict[str, Values]
    refusals: dict[int, str]
    errors: dict[str, float]


def fold_constants(
    graph: ChannelGraph,
    removed: set[int],
    constants: Constants,
    *,
    training: bool,
    approximate: bool = False,
) -> Folding:
    """Follows held units to their consumers.

    The observed tensors of the removed units are held at `constants` (0 by
    default), and everything behind them is computed from there.

    Args:
        graph: The channels of the model.
        removed: Numbers of the groups that go.
        constants: Layer name -> unit -> value at the observation point.
        training: Also refuse what is exact at inference only.
        approximate: Fold what is exact but for the border of an image too.

    Returns:
        The increments of the consumers' biases, and what was refused.
    """
    walk = _Walk(graph, removed, constants, approximate=approximate)
    if not training:
        return Folding(walk.increments, walk.refusals, walk.errors)
    trained = _Walk(graph, removed, constants, training=True)
    refusals = trained.refusals | walk.refusals
    for key, values in walk.arriving.items():
        other = trained.arriving[key]
        for position in np.flatnonzero(~np.isclose(values, other, 1e-6)):
            group = int(walk.arriving_groups[key][position])
            refusals.setdefault(
                group,
                "the constant it leaves behind is "
                f"{other[position]:.4g} in training and "
                f"{values[position]:.4g} at inference",
            )
    return Folding(walk.increments, refusals, walk.errors)


class _Walk:
    """One pass of constants through the graph, in one mode."""

    def __init__(
        self,
        graph: ChannelGraph,
        removed: set[int],
        constants: Constants,
        *,
        training: bool = False,
        approximate: bool = False,
    ) -> None:
        self._graph = graph
        self._approximate = approximate
        self.errors: dict[str, float] = {}
        self._is_removed = np.zeros(graph.records.size, dtype=bool)
        self._is_removed[list(removed)] = True
        self.refusals: dict[int, str] = {}
        self._held = self._held_values(constants)
        self._training = training
        self._values: dict[int, Values] = {}
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
        return held

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
        for tensor, values in zip(node.outputs, outputs, strict=True):
            held = self._held.get(id(tensor))
            if held is not None:
                gone = self._is_removed[self._groups(tensor)]
                values = np.where(gone, np.nan_to_num(held), values)
            self._values[id(tensor)] = values

    def _labels(self, tensor: object) -> np.ndarray:
        return self._graph.channels[id(tensor)].labels

    def _unknown(self, tensor: object) -> Values:
        return np.full(len(self._labels(tensor)), np.nan)

    def _groups(self, tensor: object) -> np.ndarray:
        return self._graph.group_numbers[self._labels(tensor)]

    def _obstacle(self, tensor: object, group: int) -> str:
        """Returns where a removed channel of a tensor became unknown."""
        node = self._graph.maker(tensor)
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

    def _fold(self, index: int, call: Call, values: Values) -> None:
        if not values.any():
            return
        rule = self._graph.rules[index]
        increments = rule.fold(call, values) if len(call.tensors) == 1 else None
        if increments is None:
            raise NotFoldableError(
                f"{describe(call.operation)} cannot take a constant into a bias"
            )
        if increments.any():
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
