"""The channels of symbolic tensors, and what a rule may say about them.

A channel is one position along one axis of a symbolic tensor, most often the
last. Every channel carries an integer label; channels with the same label, or
with tied labels, can only leave together.
"""

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kddp._compat import CallNode
from keras_kddp.surgery.masks import read_tensors, takes_mask

Labels = np.ndarray  # (channels,) int64


class Channels(NamedTuple):
    """The channels of one symbolic tensor.

    Attributes:
        labels: One label per channel, (channels,) int64.
        axis: The axis they lie on, counted from the batch axis, 0. None where
            no part of the tensor can go along any axis.
        reason: Why none can go; "" where `axis` is a number.
        pieces: The number of runs of channels that hold one and the same
            number at each position, such as a mask that was spread over all
            channels; 0 where channels differ. Each run keeps a channel.
    """

    labels: Labels
    axis: int | None
    reason: str = ""
    pieces: int = 0

    @classmethod
    def fixed(cls, reason: str) -> "Channels":
        """Returns the channels of a tensor that must stay whole."""
        return cls(np.zeros(0, dtype=int), None, reason)


class Records:
    """What the rules noted while the labels walked through a graph.

    Attributes:
        size: Number of labels handed out.
        units: Layer name -> labels of its declared units.
        arguments: Layer name -> (config argument, position in it or None) ->
            the labels it counts.
        slices: Layer name -> (variable, axis) -> labels along that axis.
        consumed: The (layer name, variable, axis) that read channels.
        ties: Pairs of equally long label arrays that leave together.
        pins: Labels that must stay, with the reason.
        blocked: Operation name -> why it lets nothing through.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self.size = 0
        self.units: dict[str, Labels] = {}
        self.arguments: dict[str, dict[tuple[str, int | None], Labels]] = {}
        self.slices: dict[str, dict[tuple[str, int], Labels]] = {}
        self.consumed: set[tuple[str, str, int]] = set()
        self.ties: list[tuple[Labels, Labels]] = []
        self.pins: list[tuple[Labels, str]] = []
        self.blocked: dict[str, str] = {}

    def fresh(self, count: int) -> Labels:
        """Returns `count` labels that nothing else carries."""
        self.size += count
        return np.arange(self.size - count, self.size)


class Call:
    """One call of one operation, as a rule sees it.

    Attributes:
        operation: The layer or raw operation.
        name: Its name; "outer/inner" inside a nested model.
        tensors: The symbolic inputs; a mask is none of them.
        channels: The channels of each symbolic input.
        input_shapes: The shapes of the inputs, batch axis first.
        masked: Whether each symbolic input may come with a mask that the
            operation could look at.
        masks: The channels of each symbolic tensor given as a mask.
        reads_mask: Whether what it is called with may carry a mask.
        takes_mask: Whether the outcome may depend on a mask.
        output_shape: Shape of the first output.
        output: Channels of the first output, once the rule has said them.
        crossed: Inputs that were read along another axis than their channels
            lie on.
        node: Arguments and symbolic tensors of the call.
    """

    def __init__(
        self,
        node: CallNode,
        channels: Mapping[int, Channels],
        records: Records,
        masked: Container[int] = (),
    ) -> None:
        """Binds a call to the records that its rule may write.

        Args:
            node: Arguments and symbolic tensors of the call.
            channels: `id(symbolic tensor)` -> its channels.
            records: What the rules note.
            masked: The `id` of each symbolic tensor that may carry a mask.
        """
        read = read_tensors(node)
        self.node = node
        self.operation = node.operation
        self.name = node.name
        self.tensors = read.data
        self.channels = [channels[id(x)] for x in read.data]
        self.input_shapes = [tuple(x.shape) for x in read.data]
        self.masks = [channels[id(x)] for x in read.masks]
        is_layer = isinstance(node.operation, keras.layers.Layer)
        self.masked = [is_layer and id(x) in masked for x in read.data]
        is_given = any(mask is not None for mask in read.given)
        self.reads_mask = is_given or any(id(x) in masked for x in read.data)
        self.takes_mask = is_given or (
            any(self.masked) and takes_mask(node.operation)
        )
        self.output_shape = tuple(node.outputs[0].shape)
        self.output = Channels.fixed("its rule has not run")
        self.crossed: set[int] = set()
        self._records = records

    @property
    def inputs(self) -> list[Labels]:
        """Labels along the last axis of each input, each (channels,)."""
        return [self.along(i, -1) for i in range(len(self.channels))]

    def along(self, index: int, axis: int) -> Labels:
        """Returns the labels along an axis of an input.

        Channels that lie along another axis are pinned by this, and the
        labels returned are pinned too.

        Args:
            index: Which symbolic input.
            axis: Its axis; negative counts from the end.
        """
        channels, shape = self.channels[index], self.input_shapes[index]
        axis %= max(len(shape), 1)
        if channels.axis == axis:
            return channels.labels
        reason = channels.reason or (
            f"{describe(self.operation)} reads axis {axis} of a tensor with "
            f"channels on axis {channels.axis}"
        )
        self.crossed.add(index)
        self.pin(channels.labels, reason)
        labels = self._records.fresh(_size(shape, axis))
        self.pin(labels, reason)
        return labels

    def produce(self, argument: str) -> Labels:
        """Declares units of this layer.

        Args:
            argument: The config argument that counts them (`"units"`).

        Returns:
            Their labels; the same at every call of a shared layer.
        """
        units = self._records.units
        if self.name not in units:
            count = getattr(self.operation, argument)
            units[self.name] = self._records.fresh(count)
            self.count(argument, units[self.name])
        return units[self.name]

    def count(
        self, argument: str, labels: Labels, position: int | None = None
    ) -> None:
        """Says that a config argument is the number of some channels.

        Args:
            argument: Its name (`"filters"`).
            labels: The channels.
            position: Where in the argument the number stands, if that is a
                tuple (`target_shape`).
        """
        counted = self._records.arguments.setdefault(self.name, {})
        self._note(counted, (argument, position), labels)

    def consume(self, variable: str, axis: int, labels: Labels) -> None:
        """Says that a weight reads the channels along one of its axes."""
        self._records.consumed.add((self.name, variable, axis))
        self.slice(variable, axis, labels)

    def slice(self, variable: str, axis: int, labels: Labels) -> None:
        """Says that a weight has one entry per channel along an axis."""
        slices = self._records.slices.setdefault(self.name, {})
        self._note(slices, (variable, axis), labels)

    def _note(self, notes: dict[Any, Labels], key: Any, labels: Labels) -> None:
        if key in notes:  # another call of a shared layer
            self.tie(notes[key], labels)
        else:
            notes[key] = labels

    def tie(self, first: Labels, second: Labels) -> None:
        """Makes two label arrays leave together, position by position.

        Arrays of different length, of an axis whose size is not known, stay.
        """
        if len(first) == len(second):
            self._records.ties.append((first, second))
            return
        for labels in (first, second):
            self.pin(
                labels,
                f"{describe(self.operation)} joins axes of sizes that are not "
                "known to be the same",
            )

    def pin(self, labels: Labels, reason: str) -> None:
        """Keeps channels in place, with the reason a user will read."""
        self._records.pins.append((labels, reason))

    def fresh(self, count: int) -> Labels:
        """Returns labels that nothing else carries, to tie others to."""
        return self._records.fresh(count)

    def block(self, reason: str) -> Channels:
        """Pins every input channel; the output must stay whole."""
        for channels in self.channels:
            self.pin(channels.labels, reason)
        return self.stop(reason)

    def stop(self, reason: str) -> Channels:
        """Says that the output must stay whole; the inputs may go."""
        self._records.blocked.setdefault(self.name, reason)
        return Channels.fixed(reason)


def _size(shape: tuple[int | None, ...], axis: int) -> int:
    """Returns the size of an axis, 0 for a scalar or an unknown size."""
    return (shape[axis] or 0) if shape else 0


def describe(operation: Any) -> str:
    """Returns `name (Class)`."""
    return f"{operation.name} ({type(operation).__name__})"
