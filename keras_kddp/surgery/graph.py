"""Which units of a model can leave, and which only together."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_kddp import _compat
from keras_kddp._compat import CallNode
from keras_kddp.surgery.rule import (
    Call,
    Labels,
    Records,
    Rule,
    channel_count,
    float64_value,
    rule_for,
)


class SurgeryError(ValueError):
    """Says what cannot be taken out of a model, and why."""


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
        nodes: Its calls, inputs first.
        rules: The rule of each call.
        labels: `id(symbolic tensor)` -> labels along its last axis.
        roots: Label -> number of its group.
        units: Layer name -> labels of its declared units.
        reasons: Group number -> why it must stay.
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
        _require_graph(model)
        self.model = model
        self.nodes = _compat.call_nodes(model)
        self._layers = _by_name(self.nodes)
        self.rules: list[Rule] = [rule_for(n.operation) for n in self.nodes]
        self.labels: dict[int, Labels] = {}
        self.records = Records()
        for node, rule in zip(self.nodes, self.rules, strict=True):
            self._walk(node, rule)
        self._check_slices()
        for tensor in model.outputs:
            self._pin(tensor, "it is an output of the model")
        for node in self.nodes:
            reason = (pinned or {}).get(node.operation.name)
            if reason:
                self._pin(node.outputs[0], reason)
        self.units = self.records.units
        self.roots = self._roots()
        self.reasons = self._reasons()
        self._members = self._collect_members()

    def _walk(self, node: CallNode, rule: Rule) -> None:
        if not node.inputs:
            for tensor in node.outputs:
                size = tensor.shape[-1] if len(tensor.shape) > 1 else 0
                self.labels[id(tensor)] = self.records.fresh(size or 0)
                self._pin(tensor, "it is an input of the model")
            return
        inputs = [self.labels[id(x)] for x in node.inputs]
        call = Call(node, inputs, self.records)
        if len(node.outputs) != 1:
            call.block(f"{node.operation.name} has several outputs")
            for tensor in node.outputs:
                count = channel_count(tensor.shape)
                self.labels[id(tensor)] = self.records.fresh(count)
                self._pin(tensor, f"{node.operation.name} has several outputs")
            return
        self.labels[id(node.outputs[0])] = rule.flow(call)

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

    def _pin(self, tensor: Any, reason: str) -> None:
        self.records.pins.append((self.labels[id(tensor)], reason))

    def _roots(self) -> np.ndarray:
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
            for root in np.unique(self.roots[labels]).tolist():
                reasons.setdefault(root, reason)
        return reasons

    def _collect_members(self) -> dict[int, list[tuple[str, int]]]:
        members: dict[int, list[tuple[str, int]]] = {}
        for name, labels in self.units.items():
            for unit, root in enumerate(self.roots[labels].tolist()):
                members.setdefault(root, []).append((name, unit))
        return members

    def groups(self) -> dict[int, UnitGroup]:
        """Returns every group that has units, by its number."""
        return {
            root: UnitGroup(tuple(members), self.reasons.get(root, ""))
            for root, members in self._members.items()
        }

    def removable_layers(self) -> list[str]:
        """Returns the layers that have a unit which can go, inputs first."""
        return [
            name
            for name, labels in self.units.items()
            if any(r not in self.reasons for r in self.roots[labels].tolist())
        ]

    def partners(self, layer_name: str) -> list[str]:
        """Returns the other layers whose units leave together with its."""
        roots = set(self.roots[self.units[layer_name]].tolist())
        return [
            name
            for name, labels in self.units.items()
            if name != layer_name and not roots.isdisjoint(self.roots[labels])
        ]

    def observation_points(self, layer_name: str) -> list[Any]:
        """Returns where the activity of a layer's units is observed.

        It is the last channelwise tensor before the first operation that
        mixes channels, changes positions or branches, or the first penalty.

        Args:
            layer_name: A layer that has units.

        Returns:
            Symbolic tensors, (batch, ..., units), one a call of the layer.
        """
        rules = dict(zip(map(id, self.nodes), self.rules, strict=True))
        consumers: dict[int, list[CallNode]] = {}
        for node in self.nodes:
            for key in {id(x) for x in node.inputs}:
                consumers.setdefault(key, []).append(node)
        outputs = {id(x) for x in self.model.outputs}
        points = {}
        for node in self.nodes:
            if node.operation.name != layer_name:
                continue
            while not rules[id(node)].ends_observation:
                tensor = node.outputs[0]
                following = consumers.get(id(tensor), [])
                if id(tensor) in outputs or len(following) != 1:
                    break
                if not rules[id(following[0])].channelwise:
                    break
                node = following[0]
            points[id(node.outputs[0])] = node.outputs[0]
        return list(points.values())

    def outgoing_norms(self) -> dict[str, np.ndarray]:
        """Returns the norm of the weights that read each unit's group.

        Returns:
            Layer name -> (units,) float64; Euclidean, over every kernel that
            reads the unit or one that it leaves together with.
        """
        squares = np.zeros(self.records.size)
        for name, variable, axis in sorted(self.records.consumed):
            labels = self.records.slices[name][variable, axis]
            np.add.at(
                squares,
                self.roots[labels],
                self._square_sums(name, variable, axis),
            )
        return {
            name: np.sqrt(squares[self.roots[labels]])
            for name, labels in self.units.items()
        }

    def incoming_norms(self) -> dict[str, np.ndarray]:
        """Returns the norm of the weights that each unit reads its input with.

        Returns:
            Layer name -> (units,) float64; Euclidean, without the bias.
        """
        return {
            name: np.sqrt(
                sum(
                    self._square_sums(name, variable, axis)
                    for (variable, axis), found in slices.items()
                    if found is self.units[name] and axis > 0
                )
                + np.zeros(len(self.units[name]))
            )
            for name, slices in self.records.slices.items()
            if name in self.units
        }

    def _square_sums(self, name: str, variable: str, axis: int) -> np.ndarray:
        """Returns the sum of squares of a weight for each entry of an axis."""
        value = float64_value(variable_named(self._layers[name], variable))
        others = tuple(i for i in range(value.ndim) if i != axis)
        return np.asarray(np.square(value).sum(axis=others))


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


def variable_named(layer: keras.Layer, name: str) -> keras.Variable:
    """Returns the one weight of a layer that has this name."""
    found = [v for v in layer.weights if v.name == name]
    if len(found) != 1:
        raise SurgeryError(
            f"The rule of layer '{layer.name}' names a weight '{name}', which "
            f"must exist once. Received weights: "
            f"{[v.name for v in layer.weights]}. Mend the registered rule."
        )
    return found[0]


def _require_graph(model: keras.Model) -> None:
    if not isinstance(model, keras.Model):
        raise SurgeryError(
            f"`model` must be a keras.Model. Received: {type(model).__name__}."
        )
    if isinstance(model, keras.distillation.Distiller):
        raise SurgeryError(
            "`model` must be a student. Received a Distiller. Pass "
            "`distiller.student`."
        )
    if _compat.functional_graph(model) is None:
        kind = (
            "a Sequential model that is not built: give it an Input or call "
            "it once"
            if isinstance(model, keras.Sequential)
            else f"the subclassed model {type(model).__name__}: write it as a "
            "Functional or Sequential model"
        )
        raise SurgeryError(
            "`model` must be a built Sequential or Functional model, whose "
            f"graph of layers can be read. Received: {kind}."
        )


def _by_name(nodes: list[CallNode]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for node in nodes:
        operation = node.operation
        if named.setdefault(operation.name, operation) is not operation:
            raise SurgeryError(
                "Layers must have different names. Received two called "
                f"'{operation.name}'. Rename one."
            )
    return named
