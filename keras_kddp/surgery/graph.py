"""Which units of a model can leave, and which only together."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_kddp._compat import CallNode
from keras_kddp.model_io import Tensor
from keras_kddp.surgery.calls import Origin, flat_calls
from keras_kddp.surgery.channels import Call, Channels, Records, describe
from keras_kddp.surgery.checks import (
    SurgeryError,
    operations_by_name,
    require_graph,
    variable_named,
)
from keras_kddp.surgery.layer_state import pin_own_state
from keras_kddp.surgery.masks import carries_mask
from keras_kddp.surgery.observation import ObservationPoints
from keras_kddp.surgery.registry import rule_for
from keras_kddp.surgery.rule import Rule


class UnitGroup(NamedTuple):
    """Units that can only leave together.

    Attributes:
        members: `(layer_name, unit_index)` of each.
        reason: Why they must stay; empty if they can go.
    """

    members: tuple[tuple[str, int], ...]
    reason: str


class ChannelGraph:
    """The channels of a model, labelled, and the groups they form.

    Attributes:
        model: The model; it is only read.
        nodes: Its calls, inputs first, those in nested models among them.
        outputs: Its symbolic outputs.
        rules: The rule of each call.
        calls: Each call as its rule saw it; None for an input of the model.
        channels: `id(symbolic tensor)` -> its channels.
        group_numbers: Label -> number of its group, (labels,) integers.
        units: Layer name -> labels of its declared units.
        blocked: Operation name -> why it lets nothing through.
        reasons: Group number -> why it must stay.
        points: Where units are observed.
        masked: The `id` of each symbolic tensor that may carry a mask.
    """

    def __init__(
        self, model: keras.Model, pinned: Mapping[str, str] | None = None
    ) -> None:
        """Reads the graph of a model.

        Args:
            model: A built Sequential or Functional model.
            pinned: Layer name -> why the width of its output must stay.

        Raises:
            SurgeryError: If the model has no graph of layers, or a rule names
                a weight that does not fit.
        """
        require_graph(model)
        self.model = model
        self.nodes, self.outputs, self._origins = flat_calls(model)
        self._layers = operations_by_name(self.nodes)
        self.rules: list[Rule] = [rule_for(n.operation) for n in self.nodes]
        self.calls: list[Call | None] = []
        self.channels: dict[int, Channels] = {}
        self.masked: set[int] = set()
        self.records = Records()
        for node, rule in zip(self.nodes, self.rules, strict=True):
            self.calls.append(self._walk(node, rule))
        self._check_slices()
        pin_own_state(self.records, self._layers)
        self._pin_ends(pinned or {})
        self.units = self.records.units
        self.blocked = self.records.blocked
        self.group_numbers = self._number_groups()
        self.reasons = self._reasons()
        self._members = self._collect_members()
        self._makers = {id(x): n for n in self.nodes for x in n.outputs}
        self.points = ObservationPoints(
            self.nodes, self.rules, self.calls, self.channels, self.outputs
        )

    def _walk(self, node: CallNode, rule: Rule) -> Call | None:
        if not node.inputs:
            for tensor in node.outputs:
                self.channels[id(tensor)] = Channels.fixed(
                    "it is an input of the model"
                )
            return None
        call = Call(node, self.channels, self.records, self.masked)
        for channels in call.masks:
            reason = f"{describe(node.operation)} takes it as a mask"
            call.pin(channels.labels, reason)
        if carries_mask(node.operation, reads_mask=call.reads_mask):
            self.masked.update(map(id, node.outputs))
        if len(node.outputs) != 1:
            fixed = call.block(f"{node.operation.name} has several outputs")
            self.channels |= {id(tensor): fixed for tensor in node.outputs}
            return call
        is_puzzling = rule.one_input and len(call.tensors) > 1
        result = (
            call.block(f"{node.operation.name} is called with several tensors")
            if is_puzzling
            else rule.flow(call)
        )
        if not isinstance(result, Channels):
            result = Channels(result, len(call.output_shape) - 1)
        if isinstance(node.operation, keras.layers.Layer):
            result = result._replace(pieces=0)  # Dropout, PReLU: they differ
        call.output = self.channels[id(node.outputs[0])] = result
        return call

    def _check_slices(self) -> None:
        for name, slices in self.records.slices.items():
            for (variable, axis), labels in slices.items():
                shape = variable_named(self._layers[name], variable).shape
                if axis >= len(shape) or shape[axis] != len(labels):
                    raise SurgeryError(
                        f"The rule of layer '{name}' counts {len(labels)} "
                        f"channels on axis {axis} of weight '{variable}'. "
                        f"Received a weight of shape {tuple(shape)}. Mend the "
                        "registered rule."
                    )

    def _pin_ends(self, pinned: Mapping[str, str]) -> None:
        """Pins the outputs of the model and of the layers that must stay."""
        for tensor in self.outputs:
            self._pin(tensor, "it is an output of the model")
        for node in self.nodes:
            if reason := pinned.get(node.name):
                self._pin(node.outputs[0], reason)

    def _pin(self, tensor: Tensor, reason: str) -> None:
        labels = self.channels[id(tensor)].labels
        self.records.pins.append((labels, reason))

    def _number_groups(self) -> np.ndarray:
        size = self.records.size
        ties = self.records.ties
        first = np.concatenate([[], *(a for a, _ in ties)]).astype(int)
        second = np.concatenate([[], *(b for _, b in ties)]).astype(int)
        edges = coo_array(
            (np.ones(len(first), dtype=bool), (first, second)),
            shape=(size, size),
        )
        return connected_components(edges, directed=False)[1]

    def _reasons(self) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for labels, reason in self.records.pins:
            for group in np.unique(self.group_numbers[labels]).tolist():
                reasons.setdefault(group, reason)
        return reasons

    def _collect_members(self) -> dict[int, list[tuple[str, int]]]:
        members: dict[int, list[tuple[str, int]]] = {}
        for name, labels in self.units.items():
            for unit, group in enumerate(self.group_numbers[labels].tolist()):
                members.setdefault(group, []).append((name, unit))
        return members

    def groups(self) -> dict[int, UnitGroup]:
        """Returns every group that has units, by its number."""
        return {
            group: UnitGroup(tuple(members), self.reasons.get(group, ""))
            for group, members in self._members.items()
        }

    def removable_layers(self) -> list[str]:
        """Returns the layers that have a unit which can go, inputs first."""
        return [
            name
            for name, labels in self.units.items()
            if any(
                group not in self.reasons
                for group in self.group_numbers[labels].tolist()
            )
        ]

    def partners(self, layer_name: str) -> list[str]:
        """Returns the other layers whose units leave together with its."""
        names = {
            name
            for group in set(
                self.group_numbers[self.units[layer_name]].tolist()
            )
            for name, _ in self._members[group]
        }
        return [name for name in self.units if name in names - {layer_name}]

    def operation(self, name: str) -> Any:
        """Returns the layer or operation of a name ("outer/inner")."""
        return self._layers[name]

    def maker(self, tensor: Tensor) -> CallNode:
        """Returns the call that makes a symbolic tensor of the graph."""
        return self._makers[id(tensor)]

    def origin(self, tensor: Tensor) -> Origin:
        """Returns where a symbolic tensor comes from, nested or not."""
        return self._origins[id(tensor)]

    def observation_points(self, layer_name: str) -> list[Tensor]:
        """Returns where the activity of a layer's units is observed.

        It is the last channelwise tensor before the first operation that
        mixes channels, changes positions or branches, or the first penalty.
        Noise that an activation follows is passed: it is nothing at inference.

        Args:
            layer_name: A layer that has units.

        Returns:
            Symbolic tensors, (batch, ..., units), one per call of the layer.
        """
        return self.points.of(layer_name, len(self.units[layer_name]))


def unit_groups(model: keras.Model) -> list[UnitGroup]:
    """Returns the groups of units of a model.

    Args:
        model: A built Sequential or Functional model.

    Returns:
        One `UnitGroup` per set of units that can only leave together, in the
        order of the graph; `reason` is empty where they can go.

    Raises:
        SurgeryError: If the model has no graph of layers (subclassed).
    """
    return list(ChannelGraph(model).groups().values())
