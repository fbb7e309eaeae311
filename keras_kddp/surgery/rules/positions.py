"""Layers and operations that move, pool or fill positions."""

import math

import keras
import numpy as np

from keras_kddp.surgery.bounds import UNBOUNDED, Bounds
from keras_kddp.surgery.channels import Call, Channels, describe
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rule import Rule, Values
from keras_kddp.surgery.rules.channelwise import IdentityRule
from keras_kddp.surgery.rules.joining import keep_agreed
from keras_kddp.surgery.rules.obstacles import carry_channels, channel_axis

layers = keras.layers

_MAXIMA = (
    *[layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D],
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.AdaptiveMaxPooling1D,
    layers.AdaptiveMaxPooling2D,
    layers.AdaptiveMaxPooling3D,
)


@register_rule(
    *[layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D],
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.AdaptiveMaxPooling1D,
    layers.AdaptiveMaxPooling2D,
    layers.AdaptiveMaxPooling3D,
    layers.AdaptiveAveragePooling1D,
    layers.AdaptiveAveragePooling2D,
    layers.AdaptiveAveragePooling3D,
    *[layers.Cropping1D, layers.Cropping2D, layers.Cropping3D],
    *[layers.UpSampling1D, layers.UpSampling3D],
)
class PoolingRule(IdentityRule):
    """Picks, averages or repeats positions: units pass."""

    channelwise = False
    elementwise = False

    def flow(self, call: Call) -> Channels:
        """Carries the labels from the channel axis before to that behind."""
        layer = call.operation
        return carry_channels(
            call,
            channel_axis(layer, len(call.input_shapes[0])),
            channel_axis(layer, len(call.output_shape)),
        )

    def keeps_means(self, call: Call) -> bool:
        """Keeps them, unless it picks the largest of several positions."""
        return not isinstance(call.operation, _MAXIMA)


@register_rule(layers.UpSampling2D)
class UpSampling2DRule(PoolingRule):
    """Picks, averages or repeats positions: units pass."""

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Hands the bounds on, unless bicubic curves leave them."""
        if call.operation.interpolation not in ("nearest", "bilinear"):
            return UNBOUNDED  # bicubic curves overshoot
        return super().bounds(call, inputs)


@register_rule(layers.RepeatVector)
class RepeatVectorRule(PoolingRule):
    """The same vector at several positions: units pass."""


@register_rule(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
class ZeroPaddingRule(PoolingRule):
    """Puts zeros around: units pass; of constants only 0."""

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Stretches the bounds to hold the 0 of the border."""
        del call
        low, high = inputs[0]
        return Bounds(np.minimum(low, 0), np.maximum(high, 0))

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Keeps only 0, since any other constant differs from the border."""
        del call, training
        return np.where(values[0] == 0, 0.0, np.nan)


@register_rule("Max", "Amax", "Min", "Amin", "Mean")
class ReductionRule(IdentityRule):
    """Reduces axes of positions: units pass. The axis of channels: blocks."""

    channelwise = False
    elementwise = False

    def flow(self, call: Call) -> Channels:
        """Moves the labels past the axes that vanish; blocks if theirs does."""
        channels, operation = call.channels[0], call.operation
        rank = len(call.input_shapes[0])
        if channels.axis is None:
            return channels
        axes = range(rank) if operation.axis is None else operation.axis
        axes = {a % rank for a in np.atleast_1d(axes).tolist()}
        if getattr(operation, "initial", None) is not None:
            return call.block(
                f"the operation {operation.name} has an `initial`"
            )
        if axes & {0, channels.axis}:
            return call.block(
                f"the operation {operation.name} reduces the axis of channels"
            )
        gone = 0 if operation.keepdims else sum(a < channels.axis for a in axes)
        return channels._replace(axis=channels.axis - gone)

    def keeps_means(self, call: Call) -> bool:
        """Keeps them where it adds up, not where it picks one number."""
        return type(call.operation).__name__ in ("Mean", "Sum")


@register_rule("Sum")
class SumRule(ReductionRule):
    """Sums axes of positions: units pass. The axis of channels: blocks."""

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Knows nothing: the sum grows with the number of positions."""
        del call, inputs
        return UNBOUNDED

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Keeps only 0, whose sum does not depend on how many there are."""
        del call, training
        return np.where(values[0] == 0, 0.0, np.nan)


@register_rule(layers.Permute)
class PermuteRule(IdentityRule):
    """Changes the order of axes: units pass."""

    channelwise = False
    elementwise = False

    def flow(self, call: Call) -> Channels:
        """Carries the labels to their axis's place in `dims`."""
        return _permuted(call, [0, *call.operation.dims])


@register_rule("Transpose")
class TransposeRule(IdentityRule):
    """Changes the order of axes: units pass."""

    channelwise = False
    elementwise = False

    def flow(self, call: Call) -> Channels:
        """Carries the labels to their axis's place in `axes`, or reversed."""
        rank = len(call.output_shape)
        return _permuted(call, list(call.operation.axes or range(rank)[::-1]))


def _permuted(call: Call, order: list[int]) -> Channels:
    channels = call.channels[0]
    if channels.axis is None:
        return channels
    order = [axis % len(order) for axis in order]
    if order[0] != 0:
        return call.block(f"{describe(call.operation)} moves the batch axis")
    return channels._replace(axis=order.index(channels.axis))


@register_rule(layers.Flatten, "ExpandDims", "Squeeze")
class FlattenRule(Rule):
    """Same numbers, other axes: units pass, once per position."""

    one_input = True

    def flow(self, call: Call) -> Channels:
        """Gives each output its channel's label; ties what merges into one."""
        channels = call.channels[0]
        if channels.axis is None:
            return channels
        if getattr(call.operation, "axis", 0) is None:
            return call.block(
                f"{describe(call.operation)} drops whatever axis has one entry"
            )
        found = _channel_sources(call)
        if found is None:
            return call.block(
                f"{describe(call.operation)} takes channels apart or does not "
                f"know the size of its input {call.input_shapes[0]}"
            )
        axis, sources = found
        for row in sources[1:]:
            call.tie(channels.labels[sources[0]], channels.labels[row])
        return Channels(channels.labels[sources[0]], axis)

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Copies each channel's constant; varies where merged ones differ."""
        del training
        found = _channel_sources(call)
        if call.output.axis is None or found is None:
            return super().constant(call, values, False)
        return keep_agreed(values[0][found[1]])

    def keeps_means(self, call: Call) -> bool:
        """Moves them."""
        del call
        return True

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Spans the bounds of all channels that merge into one."""
        low, high = inputs[0]
        found = None if call.output.axis is None else _channel_sources(call)
        if not low.ndim or found is None:
            return Bounds(low.min(), high.max())
        return Bounds(low[found[1]].min(axis=0), high[found[1]].max(axis=0))


@register_rule(layers.Reshape, "Reshape")
class ReshapeRule(FlattenRule):
    """Same numbers, other axes: units pass, those of one channel together."""

    def flow(self, call: Call) -> Channels:
        """Cuts the target shape too, where the number of channels is given."""
        channels = super().flow(call)
        operation = call.operation
        is_layer = isinstance(operation, keras.layers.Layer)
        argument = "target_shape" if is_layer else "newshape"
        if channels.axis is not None:
            position = channels.axis - is_layer
            if getattr(operation, argument)[position] != -1:
                call.count(argument, channels.labels, position)
        return channels


def _channel_sources(call: Call) -> tuple[int, np.ndarray] | None:
    """Follows channels through a change of shape.

    Returns:
        The output's axis of channels, and (positions, channels of the output)
        indices of the input channels that each output channel holds; all
        rows have to leave together. None if channels are taken apart.
    """
    before, after = list(call.input_shapes[0]), list(call.output_shape)
    axis = call.channels[0].axis or 0
    is_first = getattr(call.operation, "data_format", "") == "channels_first"
    if is_first and len(before) > 2:  # Flatten then moves axis 1 to the end
        before = [before[0], *before[2:], before[1]]
        axis = len(before) - 1 if axis == 1 else axis - 1
    inside = before[axis + 1 :]
    count = before[axis]
    if None in inside or count is None:
        return None
    inner = math.prod(inside)
    for new_axis in range(len(after) - 1, 0, -1):
        behind, size = after[new_axis + 1 :], after[new_axis]
        if None in behind or size is None:
            return None
        step = math.prod(behind)
        repeat = inner // step
        if inner % step == 0 and size % (repeat * count) == 0:
            # Outer positions that stay outside are the same for all.
            return new_axis, (np.arange(size) // repeat % count)[None]
        if inner == step and size > 1 and count % size == 0:
            return new_axis, np.arange(count).reshape(-1, size)
    return None
