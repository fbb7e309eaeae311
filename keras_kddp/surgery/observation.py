"""Where the activity of a layer's units is observed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_kddp._compat import CallNode
from keras_kddp.model_io import Tensor
from keras_kddp.surgery.channels import Call, Channels, describe
from keras_kddp.surgery.rule import Precision, Rule, Values


class ObservationPoints:
    """Finds the tensors of a graph at which units are observed.

    Args:
        nodes: The calls of the model, inputs first.
        rules: The rule of each call.
        calls: Each call as its rule saw it; None for an input of the model.
        channels: `id(symbolic tensor)` -> its channels.
        outputs: The symbolic outputs of the model.

    Attributes:
        hiding: Layer name -> noise behind which its activation is hidden, of
            the layers that were asked for.
    """

    def __init__(
        self,
        nodes: Sequence[CallNode],
        rules: Sequence[Rule],
        calls: Sequence[Call | None],
        channels: Mapping[int, Channels],
        outputs: Collection[Tensor],
    ) -> None:
        """Finds out who reads what."""
        self._nodes, self._rules, self._calls = nodes, rules, calls
        self._channels = channels
        self._outputs = {*map(id, outputs)}
        self._indices: dict[str, list[int]] = {}  # positions of its calls
        self._readers: dict[int, list[int]] = {}  # id(tensor) -> positions
        for index, node in enumerate(nodes):
            self._indices.setdefault(node.name, []).append(index)
            for key in {id(x) for x in node.inputs}:
                self._readers.setdefault(key, []).append(index)
        # (call that is observed, noise before it) -> calls between
        self._behind_noise: dict[tuple[int, int], list[int]] = {}
        self._passable: dict[tuple[int, ...], bool] = {}
        self.hiding: dict[str, str] = {}

    def of(self, layer_name: str, units: int) -> list[Tensor]:
        """Returns where the units of a layer are observed.

        Args:
            layer_name: The layer.
            units: How many it has.

        Returns:
            Symbolic tensors, (batch, ..., units), one per call of the layer.
        """
        points = {}
        for index in self._indices[layer_name]:
            way: list[int] = []  # from noise to the activation behind it
            is_active = _has_activation(self._nodes[index].operation)
            while not self._rules[index].ends_observation:
                following = self._following(index, units)
                if following is None:
                    break
                if self._rules[following].channelwise:
                    index = following
                elif not is_active:
                    way = self._way_through_noise(following, units)
                    if not way or not self._may_pass(way, units):
                        way = []
                        break
                    index = way[-1]
                else:
                    break
                is_active = is_active or self._bends(index)
            tensor = self._nodes[index].outputs[0]
            points[id(tensor)] = tensor
            if way:
                self._behind_noise[index, way[0]] = way
            elif not is_active:
                self._note_hidden(layer_name, index, units)
        return list(points.values())

    def _following(self, index: int, units: int) -> int | None:
        """Returns the one call that reads an output, if it keeps channels."""
        tensor = self._nodes[index].outputs[0]
        readers = self._readers.get(id(tensor), [])
        if id(tensor) in self._outputs or len(readers) != 1:
            return None
        if self._leaves_shared_model(index, readers[0]):
            return None
        rule = self._rules[readers[0]]
        behind = self._channels[id(self._nodes[readers[0]].outputs[0])]
        if not (rule.channelwise or rule.is_noise) or (
            len(behind.labels) != units
        ):
            return None  # a depth multiplier, or one channel for many
        return readers[0]

    def _leaves_shared_model(self, index: int, following: int) -> bool:
        """Says whether two calls lie on the two sides of a shared border.

        Of a nested model that is called several times: a penalty inside it
        would charge all its calls, whatever follows them outside.
        """
        names = [self._nodes[i].name for i in (index, following)]
        if len({name.rpartition("/")[0] for name in names}) == 1:
            return False
        return any(len(self._indices[name]) > 1 for name in names)

    def _note_hidden(self, layer_name: str, index: int, units: int) -> None:
        """Notes noise that hides the activation behind a tensor."""
        following = self._following(index, units)
        if following is not None and self._way_through_noise(following, units):
            self.hiding[layer_name] = self._nodes[following].name

    def _way_through_noise(self, noise: int, units: int) -> list[int]:
        """Returns the calls from noise on to the first activation behind it.

        Empty where the call is no noise, or none follows.
        """
        if not self._rules[noise].is_noise:
            return []
        way = [noise]
        while not self._bends(way[-1]):
            following = self._following(way[-1], units)
            if following is None or self._rules[following].ends_observation:
                return []
            way.append(following)
        return way if len(self._nodes[way[-1]].inputs) == 1 else []

    def _may_pass(self, way: Sequence[int], units: int) -> bool:
        """Says whether a unit shows behind noise what it is.

        So it does at inference, when noise is nothing; but not where other
        layers may make something of the zeros of Dropout.
        """
        key = tuple(way)
        if key not in self._passable:
            operations = [self._nodes[index].operation for index in way]
            are_alone = all(len(self._nodes[i].inputs) == 1 for i in way)
            self._passable[key] = (
                are_alone
                and all(map(_is_fixed, operations))
                and not self._of_zeros(way, units).any()
            )
        return self._passable[key]

    def _bends(self, index: int) -> bool:
        """Says whether a call is an activation that is not linear."""
        call, rule = self._calls[index], self._rules[index]
        if call is None or rule.is_noise:
            return False
        return not rule.keeps_means(call)

    def _of_zeros(self, way: Sequence[int], units: int) -> Values:
        """Returns what calls make of zeros at inference."""
        values = np.zeros(units)
        for index in way:
            call = self._calls[index]
            if call is not None:
                values = self._rules[index].constant(call, [values], False)
        return values

    def spoilt_by_noise(
        self, tensor: Tensor, held: Values
    ) -> tuple[Values, str]:
        """Returns of which units noise changes what they are in training.

        Args:
            tensor: Where they are observed, behind noise perhaps.
            held: What they are held at, (units,).

        Returns:
            (units,) bool; and a description of the activation that makes
            another mean of the noise.
        """
        spoilt, activation = np.zeros(len(held), bool), ""
        for (index, _), way in self._behind_noise.items():
            noises = [i for i in way if self._is_noisy(i, len(held))]
            if self._nodes[index].outputs[0] is tensor and noises:
                is_safe = all(self._rules[i].keeps_signs for i in noises)
                spoilt |= (held != 0) | (not is_safe)
                activation = describe(self._nodes[way[-1]].operation)
        return spoilt, activation

    def _is_noisy(self, index: int, units: int) -> bool:
        call, rule = self._calls[index], self._rules[index]
        if call is None or not rule.is_noise:
            return False
        precision = rule.precision(call, [np.ones(units)])
        return bool(np.any(precision != Precision.EXACT))


def _has_activation(operation: Any) -> bool:
    activation = getattr(operation, "activation", None)
    return activation not in (None, keras.activations.linear)


def _is_fixed(operation: Any) -> bool:
    """Says whether training leaves what an operation makes of zeros."""
    weights = getattr(operation, "weights", ())
    return not weights or isinstance(operation, keras.layers.PReLU)
