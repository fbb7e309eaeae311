"""Layers and operations that bring several tensors together."""

import keras
import numpy as np

from keras_kddp.surgery.bounds import Bounds
from keras_kddp.surgery.channels import Call, Channels, Labels, describe
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rule import Rule, Values, replay
from keras_kddp.surgery.rules.obstacles import has_array_argument

layers = keras.layers

_SUMS = (layers.Subtract, layers.Average)


@register_rule(
    *[layers.Subtract, layers.Average],
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
        own = [x.pieces for x in call.channels if x.axis is not None]
        return Channels(joined, axis, pieces=int({*own} == {1}))

    def keeps_means(self, call: Call) -> bool:
        """Keeps them in sums and differences, not in products and extremes."""
        return isinstance(call.operation, _SUMS) or (
            type(call.operation).__name__ in ("Subtract", "CustomScaleLayer")
        )


@register_rule(layers.Maximum, layers.Minimum)
class ExtremumRule(JoiningRule):
    """Joins tensors number by number: the units on all sides go together."""

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Joins; where masks may leave a side out, only what all agree on."""
        result = super().constant(call, values, training)
        if not any(call.masked):
            return result
        return keep_agreed(np.stack(_sides(values, len(result))))


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
        """Multiplies; a 0 on one side is 0 whatever the other side is.

        Unless a mask leaves that side out: the other one is left then.
        """
        result = super().constant(call, values, training)
        zeros = [side == 0 for side in _sides(values, len(result))]
        if any(call.masked):
            result = np.where(np.all(zeros, axis=0), 0.0, np.nan)
        for is_zero, may_be_left_out in zip(zeros, call.masked, strict=True):
            if not may_be_left_out:
                result = np.where(is_zero, 0.0, result)
        return result

    def keeps_means(self, call: Call) -> bool:
        """Keeps them behind a number: two tensors may share their noise."""
        return len(call.channels) == 1


@register_rule("Power")
class ByNumberRule(JoiningRule):
    """Raises to one number: units pass."""

    monotone = False

    def flow(self, call: Call) -> Channels:
        """Keeps the labels where the other operand is a plain number."""
        if len(call.channels) != 1 or has_array_argument(call.node):
            return call.block(
                f"{describe(call.operation)} takes a tensor where surgery "
                "only follows a number"
            )
        return call.channels[0]


@register_rule("Divide", "TrueDivide")
class DivisionRule(ByNumberRule):
    """Divides by one number for all channels: units pass."""

    def flow(self, call: Call) -> Channels:
        """Keeps the labels where all channels have the same divisor."""
        if _is_spread(call, 1):
            return JoiningRule.flow(self, call)
        return super().flow(call)

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Divides; 0 stays 0, as a sum over the steps of a mask does."""
        result = super().constant(call, values, training)
        if len(call.tensors) == 1:
            return result
        return np.where(values[0] == 0, 0.0, result)

    def keeps_means(self, call: Call) -> bool:
        """Keeps them where a number divides, not where one is divided."""
        arguments = [*call.node.args, *call.node.kwargs.values()]
        is_dividend = isinstance(arguments[0], keras.KerasTensor)
        return is_dividend and len(call.channels) == 1


@register_rule("Where")
class ChoiceRule(JoiningRule):
    """Takes from one of two tensors: the units on all sides go together."""

    monotone = False

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Keeps what is the same whichever is taken."""
        del training
        if not isinstance(call.node.args[0], keras.KerasTensor):
            return np.full(len(call.output.labels), np.nan)
        results = [
            replay(call, [np.array([choice]), *values[1:]])
            for choice in (0.0, 1.0)
        ]
        return keep_agreed(np.stack(results))


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
        own = [channels.pieces for channels in call.channels]
        if call.operation.axis % len(call.output_shape) == axis:
            pieces = sum(own) if all(own) else 0
            return Channels(np.concatenate(labels), axis, pieces=pieces)
        for other in labels[1:]:
            call.tie(labels[0], other)
        return Channels(labels[0], axis, pieces=int({*own} == {1}))

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


def _sides(values: list[Values], count: int) -> list[Values]:
    """Returns constants of all sides, NaN for a side that is spread."""
    return [
        side if len(side) == count else np.full(count, np.nan)
        for side in values
    ]


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


def _is_spread(call: Call, index: int) -> bool:
    """Says whether an input holds one fixed number for all channels.

    Args:
        call: A call that joins two tensors.
        index: The input; the other one has channels.
    """
    if len(call.channels) != 2 or call.channels[index].axis is not None:
        return False
    axis, shape = call.channels[1 - index].axis, call.input_shapes[index]
    if axis is None:
        return False
    behind = len(call.input_shapes[1 - index]) - axis
    return len(shape) < behind or shape[-behind] == 1


def _common_axis(call: Call) -> int | None:
    """Returns the axis of the output that channels lie on, None if all stay."""
    for channels, shape in zip(call.channels, call.input_shapes, strict=True):
        if channels.axis is not None and shape[channels.axis] != 1:
            return channels.axis + len(call.output_shape) - len(shape)
    for channels, shape in zip(call.channels, call.input_shapes, strict=True):
        if channels.axis is not None:
            return channels.axis + len(call.output_shape) - len(shape)
    return None
