"""How much memory a student will need on a microcontroller."""

from typing import NamedTuple

import numpy as np

from keras_kddp._compat import CallNode
from keras_kddp.model_io import Tensor
from keras_kddp.profiling import TRANSPOSED, multiplied_positions, num_entries
from keras_kddp.surgery.graph import ChannelGraph

# For each output channel of a Dense layer or a convolution, TFLM keeps a
# multiplier and a shift as long as it runs, and two zero points, of weight and
# bias, while it prepares.
_KEPT_BYTES = 8
_PREPARING_BYTES = 8
_SUM_BYTES = 4  # that a transposed convolution adds up in
_NO_ACTIVATION = (None, "linear")
_RENAMING = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise"),
    *("ActivityPenalty", "ActivityRegularization", "Identity"),
    *("Flatten", "Reshape", "ExpandDims", "Squeeze"),
)


class _Buffer(NamedTuple):
    """Memory of an activation in int8, for one example.

    Attributes:
        positions: Bytes per channel.
        labels: Its channels; None where they cannot leave.
        first: Step that writes it.
        last: Last step that reads it.
    """

    positions: int
    labels: np.ndarray | None
    first: int
    last: int


class PlannedArena:
    """The int8 arena of a student without some groups of units, about.

    The largest sum of activations alive at a time, where what is fused or
    only renamed shares its input's memory; and what TFLM keeps per channel.
    What it needs beside is measured: this tells students of one kind apart.

    Args:
        graph: The channels of the student.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._buffers = _buffers(graph)
        first = np.array([buffer.first for buffer in self._buffers])
        last = np.array([buffer.last for buffer in self._buffers])
        steps = np.arange(2 * len(graph.nodes))[:, None]
        self._alive = ((first <= steps) & (steps <= last)).astype(float)
        self._outputs = [
            graph.channels[id(node.outputs[0])].labels
            for node in graph.nodes
            if multiplied_positions(node)
        ]

    def without(self, gone: np.ndarray) -> float:
        """Returns bytes that grow as the arena does.

        Args:
            gone: (labels,) bool: the channels that leave.
        """
        sizes = [
            buffer.positions * _kept(buffer.labels, gone)
            for buffer in self._buffers
        ]
        channels = [_kept(labels, gone) for labels in self._outputs]
        running = float((self._alive @ np.array(sizes)).max(initial=0))
        preparing = _PREPARING_BYTES * max(channels, default=0)
        return _KEPT_BYTES * sum(channels) + max(running, preparing)


def _kept(labels: np.ndarray | None, gone: np.ndarray) -> int:
    return 1 if labels is None else int(np.count_nonzero(~gone[labels]))


def _buffers(graph: ChannelGraph) -> list[_Buffer]:
    """Returns what is kept; a call takes two steps, the second to activate."""
    owners: dict[int, int] = {}  # tensor -> the one whose memory it shares
    buffers: dict[int, _Buffer] = {}
    beside = []
    for number, node in enumerate(graph.nodes):
        step = 2 * number
        for tensor in node.inputs:
            owner = owners[id(tensor)]
            buffers[owner] = buffers[owner]._replace(last=step)
        if _shares_memory(graph, node):
            owners[id(node.outputs[0])] = owners[id(node.inputs[0])]
            continue
        for tensor in node.outputs:
            owners[id(tensor)] = id(tensor)
            output = _output_buffer(graph, tensor, step)
            if isinstance(node.operation, TRANSPOSED):
                sums = output.positions * _SUM_BYTES
                beside.append(output._replace(positions=sums))
            if not _has_fused_activation(node):
                beside.append(output._replace(last=step + 1))
                output = output._replace(first=step + 1, last=step + 1)
            buffers[id(tensor)] = output
    for tensor in graph.outputs:
        owner = owners[id(tensor)]
        buffers[owner] = buffers[owner]._replace(last=2 * len(graph.nodes))
    return [*buffers.values(), *beside]


def _output_buffer(graph: ChannelGraph, tensor: Tensor, step: int) -> _Buffer:
    labels = graph.channels[id(tensor)].labels
    size = num_entries(tensor.shape[1:])
    if not len(labels):
        return _Buffer(size, None, step, step)
    return _Buffer(size // len(labels), labels, step, step)


def _shares_memory(graph: ChannelGraph, node: CallNode) -> bool:
    """Says whether a call is fused into the one before, or only renames."""
    if len(node.inputs) != 1 or len(node.outputs) != 1:
        return False
    kind = type(node.operation).__name__
    if kind in _RENAMING:
        return True
    before = graph.maker(node.inputs[0])
    if kind == "BatchNormalization":
        is_linear = _activation(before) in _NO_ACTIVATION
        return multiplied_positions(before) > 0 and is_linear
    is_activation = kind in ("Activation", "ReLU", "Relu", "Relu6")
    return is_activation and _has_fused_activation(node)


def _has_fused_activation(node: CallNode) -> bool:
    return _activation(node) in (*_NO_ACTIVATION, "relu", "relu6")


def _activation(node: CallNode) -> str | None:
    function = getattr(node.operation, "activation", None)
    return getattr(function, "__name__", None)
