"""How much memory a student will need on a microcontroller."""

from typing import NamedTuple

import numpy as np

from keras_kddp._compat import CallNode
from keras_kddp.profiling import multiplied_positions, num_entries
from keras_kddp.surgery.graph import ChannelGraph

# For each output channel of a Dense layer or a convolution, TFLM keeps a
# multiplier and a shift as long as it runs, and two zero points, of weight and
# bias, while it prepares.
_KEPT_BYTES = 8
_PREPARING_BYTES = 8


class _Buffer(NamedTuple):
    """Memory of an activation in int8, for one example.

    Attributes:
        positions: Bytes a channel.
        labels: Its channels; None where they cannot leave.
        first: Number of the call that writes it.
        last: Number of the last call that reads it.
    """

    positions: int
    labels: np.ndarray | None
    first: int
    last: int


class PlannedArena:
    """The int8 arena of a student without some groups of units, all but exact.

    The largest sum of activations alive at a time, where what is fused or
    only renamed shares its input's memory; and what TFLM keeps a channel. What
    it needs beside is measured: this tells students of one kind apart.

    Args:
        graph: The channels of the student.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._buffers = _buffers(graph)
        first = np.array([buffer.first for buffer in self._buffers])
        last = np.array([buffer.last for buffer in self._buffers])
        calls = np.arange(len(graph.nodes))[:, None]
        self._alive = ((first <= calls) & (calls <= last)).astype(float)
        self._outputs = [
            graph.channels[id(node.outputs[0])].labels
            for node in graph.nodes
            if multiplied_positions(node)
        ]

    def without(self, gone: np.ndarray) -> float:
        """Returns bytes that differ from the arena by a constant.

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
    owners: dict[int, int] = {}  # tensor -> the one whose memory it shares
    buffers: dict[int, _Buffer] = {}
    for number, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            owner = owners[id(tensor)]
            buffers[owner] = buffers[owner]._replace(last=number)
        for tensor in node.outputs:
            if _shares_memory(node):
                owners[id(tensor)] = owners[id(node.inputs[0])]
                continue
            owners[id(tensor)] = id(tensor)
            labels = graph.channels[id(tensor)].labels
            size = num_entries(tensor.shape[1:])
            buffers[id(tensor)] = (
                _Buffer(size // len(labels), labels, number, number)
                if len(labels)
                else _Buffer(size, None, number, number)
            )
    for tensor in graph.outputs:
        owner = owners[id(tensor)]
        buffers[owner] = buffers[owner]._replace(last=len(graph.nodes))
    return list(buffers.values())


def _shares_memory(node: CallNode) -> bool:
    """Says whether a call is fused into the one before, or renames."""
    if len(node.inputs) != 1 or len(node.outputs) != 1:
        return False
    read, made = (
        num_entries(x.shape[1:]) for x in (*node.inputs, *node.outputs)
    )
    return read == made and not multiplied_positions(node)
