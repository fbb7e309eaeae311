"""How large a student will be once some of its units have left."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kddp.profiling import is_kernel, multiplied_positions
from keras_kddp.pruning.budget.planned_arena import PlannedArena
from keras_kddp.surgery.graph import ChannelGraph

# For each output channel, an int8 file keeps a bias (4 bytes) and, for its
# weights and its bias each, a scale (4) and a zero point (8).
_BYTES_PER_CHANNEL = 28


class Line(NamedTuple):
    """What is measured of the int8 file, from what is planned of it.

    Attributes:
        base: Bytes beside what is planned.
        slope: Bytes a planned byte.
    """

    base: float = 0.0
    slope: float = 1.0

    def at(self, planned: float) -> float:
        """Returns the bytes that will be measured."""
        return self.base + self.slope * planned


class _Weight(NamedTuple):
    """A weight as removals see it.

    Attributes:
        shape: Its shape.
        labels: Axis -> the channel labels along it.
        positions: How often its entries are multiplied, for one example.
        file_bytes: What an int8 file keeps for an entry.
    """

    shape: tuple[int, ...]
    labels: Mapping[int, np.ndarray]
    positions: int
    file_bytes: int


class PlannedSizes:
    """The size of a student without some groups of units.

    Parameters and multiply-accumulates are those that `keras_kddp.profile`
    counts in the smaller student, which is not built for it.

    Args:
        graph: The channels of the student.
        lines: What else is wanted: `"bytes"` and `"arena_bytes"` of the int8
            file, each with its line.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        lines: Mapping[str, Line] | None = None,
    ) -> None:
        self._lines = dict(lines or {})
        self._arena = None
        if "arena_bytes" in self._lines:
            self._arena = PlannedArena(graph)
        self._weights = _weights(graph)

    def without(self, gone: np.ndarray) -> dict[str, float]:
        """Returns the size by measure.

        Args:
            gone: (labels,) bool: the channels that leave.

        Returns:
            `"parameters"`, `"macs"` and what there are lines of.
        """
        parameters = macs = raw = 0
        for shape, labels, positions, file_bytes in self._weights:
            kept = list(shape)
            for axis, found in labels.items():
                kept[axis] = int(np.count_nonzero(~gone[found]))
            entries = math.prod(kept)
            parameters += entries
            macs += entries * positions
            raw += entries * file_bytes
        planned: dict[str, float] = {"bytes": raw}
        if self._arena is not None:
            planned["arena_bytes"] = self._arena.without(gone)
        predicted = {
            measure: line.at(planned[measure])
            for measure, line in self._lines.items()
        }
        return {"parameters": parameters, "macs": macs, **predicted}


def _weights(graph: ChannelGraph) -> list[_Weight]:
    """Returns the weights of a graph; a shared layer's count once."""
    positions: dict[int, int] = {}
    layers: dict[int, tuple[str, Any]] = {}
    for node in graph.nodes:
        key = id(node.operation)
        layers[key] = node.name, node.operation
        positions[key] = positions.get(key, 0) + multiplied_positions(node)
    return [
        _Weight(
            shape=tuple(weight.shape),
            labels={
                axis: found
                for (variable, axis), found in graph.records.slices.get(
                    name, {}
                ).items()
                if variable == weight.name
            },
            positions=positions[key] if is_kernel(weight) else 0,
            file_bytes=_file_bytes(weight),
        )
        for key, (name, layer) in layers.items()
        for weight in getattr(layer, "weights", ())
        if weight.name != "penalty_strength"
    ]


def _file_bytes(weight: keras.Variable) -> int:
    if len(weight.shape) != 1:
        return 1
    # Normalizations are folded into the biases.
    return _BYTES_PER_CHANNEL if weight.name in ("bias", "beta") else 0
