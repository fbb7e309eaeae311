"""Layers and operations that bring several tensors together."""

import keras
import numpy as np

from keras_kddp.surgery.bounds import Bounds
from keras_kddp.surgery.channels import Call, Channels, Labels, describe
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rule import Rule, Values
from keras_kddp.surgery.rules.obstacles import has_array_argument

layers = keras.layers

_SUMS = (layers.Subtract, layers.Average)


@register_rule(
    *[layers.Subtract, layers.Average, layers.Maximum, layers.Minimum],
    *["Subtract", "Maximum", "Minimum"],
    "CustomScaleLayer",  # a scaled sum in keras.applications
)
class JoiningRule(Rule):
    """Joins tensors number by number: the units on all sides go together."""

    channelwise = True
    monotone = True  # of one tensor and a number

    def flow(self, call: Call) -> Channels:
        """Ties the labels of all inputs; pins those that are broadcast."""
        if has_array_argument(call.node):
            return call.block(
                f"{describe(call.operation)} joins an array to its input"
            )
        axis = _common_axis(call)
        if axis is None:
            return call.channels[0]
        joined = _tied_inputs(call, axis)
        if joined is None or len(joined) != call.output_shape[axis]:
            return call.block(
                f"{describe(call.operation)} joins tensors of shapes that "
                "surgery cannot follow"
            )
        return Channels(joined, axis)

    def keeps_means(self, call: Call) -> bool:
        """Keeps them in sums and differences, not in products and extremes."""
        return isinstance(call.operation, _SUMS) or (
            type(call.operation).__name__ in ("Subtract", "CustomScaleLayer")
        )


@register_rule(layers.Add, "Add")
class AdditionRule(JoiningRule):
    """Adds tensors: the units on all sides go together."""

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Adds the ends, with a margin for the float32 sum."""
        if len(inputs) == 1:
            return super().bounds(call, inputs)
        low, high = inputs[0]
        for other in inputs[1:]:
            low, high = low + other.low, high + other.high
        magnitude = sum(np.abs(end) for pair in inputs for end in pair)
        return Bounds(low, high).widened(np.nan_to_num(magnitude, posinf=0.0))

    def keeps_means(self, call: Call) -> bool:
        """Adds them."""
        del call
        return True


@register_rule(layers.Multiply, "Multiply")
class MultiplicationRule(JoiningRule):
    """Multiplies tensors: the units on all sides go together."""

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Multiplies; a 0 on one side is 0 whatever the other side is."""
        result = super().constant(call, values, training)
        for value in values:  # 0 times whatever varies is 0
            if len(value) == len(result):
                result = np.where(value == 0, 0.0, result)
        return result

    def keeps_means(self, call: Call) -> bool:
        """Keeps them behind a number: two tensors may share their noise."""
        return len(call.channels) == 1


@register_rule("Divide", "TrueDivide", "Power")
class ByNumberRule(JoiningRule):
    """Divides by, or raises to, one number: units pass."""

    monotone = False

    def flow(self, call: Call) -> Channels:
        """Keeps the labels where the other operand is a plain number."""
        if len(call.channels) != 1 or has_array_argument(call.node):
            return call.block(
                f"{describe(call.operation)} takes a tensor where surgery "
                "only follows a number"
            )
        return call.channels[0]


@register_rule(layers.Concatenate, "Concatenate")
class ConcatenateRule(Rule):
    """Side by side: units pass; along positions they go together."""

    def flow(self, call: Call) -> Channels:
        """Strings the labels together along channels; ties them elsewhere."""
        if has_array_argument(call.node):
            return call.block(
                f"{describe(call.operation)} joins an array to its inputs"
            )
        axis = _common_axis(call)
        if axis is None:
            return call.channels[0]
        labels = [call.along(i, axis) for i in range(len(call.channels))]
        if call.operation.axis % len(call.output_shape) == axis:
            return Channels(np.concatenate(labels), axis)
        for other in labels[1:]:
            call.tie(labels[0], other)
        return Channels(labels[0], axis)

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Strings constants together, or keeps those on which all agree."""
        del training
        axis = call.output.axis or 0
        values = [
            value
            if channels.axis == axis
            else np.full(shape[axis] or 0, np.nan)
            for value, channels, shape in zip(
                values, call.channels, call.input_shapes, strict=True
            )
        ]
        if call.operation.axis % len(call.output_shape) == axis:
            return np.concatenate(values)
        return keep_agreed(np.stack(values))

    def keeps_means(self, call: Call) -> bool:
        """Strings them together."""
        del call
        return True


def keep_agreed(values: np.ndarray) -> Values:
    """Returns the first of several rows, NaN where the others differ."""
    return np.where((values == values[0]).all(axis=0), values[0], np.nan)


def _tied_inputs(call: Call, axis: int) -> Labels | None:
    """Ties the channels of all inputs, and pins those that are broadcast.

    Args:
        call: The call that joins them.
        axis: The axis of its output that the channels lie on.

    Returns:
        The labels of the first input that is not broadcast, None without one.
    """
    size = call.output_shape[axis]
    joined = None
    for index, shape in enumerate(call.input_shapes):
        own = axis - (len(call.output_shape) - len(shape))
        if own < 1 or (shape[own] == 1 and size != 1):
            call.pin(
                call.channels[index].labels,
                f"{describe(call.operation)} spreads it over all channels",
            )
            continue
        labels = call.along(index, own)
        if joined is None:
            joined = labels
        else:
            call.tie(joined, labels)
    return joined


def _common_axis(call: Call) -> int | None:
    """Returns the axis of the output that channels lie on, None if all stay."""
    for channels, shape in zip(call.channels, call.input_shapes, strict=True):
        if channels.axis is not None and shape[channels.axis] != 1:
            return channels.axis + len(call.output_shape) - len(shape)
    for channels, shape in zip(call.channels, call.input_shapes, strict=True):
        if channels.axis is not None:
            return channels.axis + len(call.output_shape) - len(shape)
    return None
