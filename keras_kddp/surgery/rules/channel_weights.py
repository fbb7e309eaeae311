"""Layers that have weights of their own for each channel."""

from typing import Any

import keras
import numpy as np

from keras_kddp.surgery.bounds import Bounds
from keras_kddp.surgery.channels import Call, Channels
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rule import Precision, Rule, Values, float64_value
from keras_kddp.surgery.rules.mixing import pads, summed_kernel
from keras_kddp.surgery.rules.obstacles import (
    activation_obstacle,
    channel_axis,
    kernel_obstacle,
)

layers = keras.layers

# In standard deviations. The mean of a batch of B examples is itself off by
# 1 / sqrt(B) of one: by 0.06 for 256.
_SETTLED = 0.05
_EQUAL = 1e-6


@register_rule(layers.BatchNormalization)
class BatchNormalizationRule(Rule):
    """Scales and shifts each channel: units pass, its entries are cut."""

    one_input = True
    channelwise = True

    def flow(self, call: Call) -> Channels:
        """Cuts gamma, beta and both moving averages along the one axis."""
        axis = call.operation.axis % len(call.output_shape)
        labels = call.along(0, axis)
        for variable in call.operation.weights:
            call.slice(variable.name, 0, labels)
        return Channels(labels, axis)

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Normalizes a constant; in training only beta is left of it.

        Where the moving averages have all but reached the constant, what they
        make of it counts in training too. Of a mask's steps Keras takes a mean
        that is not quite theirs, except for 0: it adds a small number to how
        many they are.
        """
        layer = call.operation
        scaled = _deviations(layer, values[0])
        if training and layer.trainable:
            # A constant is its own batch mean: only the shift remains.
            scaled = np.where(np.abs(scaled) > _SETTLED, 0.0, scaled)
            if call.takes_mask:
                scaled = np.where(values[0] == 0, scaled, np.nan)
        if layer.scale:
            scaled = scaled * float64_value(layer.gamma)
        return scaled + (float64_value(layer.beta) if layer.center else 0.0)

    def precision(self, call: Call, values: list[Values]) -> np.ndarray | int:
        """Is exact where the moving averages have reached the constant."""
        if not call.operation.trainable:
            return Precision.EXACT
        away = np.abs(_deviations(call.operation, values[0]))
        return np.where(away > _EQUAL, Precision.NEARLY, Precision.EXACT)

    def keeps_means(self, call: Call) -> bool:
        """Keeps them: the mean of a batch is taken off, noise and all."""
        del call
        return True

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Normalizes both ends, with a margin for the mean and the shift."""
        layer = call.operation
        count = len(call.output.labels)
        ends = [np.broadcast_to(end, (count,)) for end in inputs[0]]
        ends = [self.constant(call, [end], training=False) for end in ends]
        scale = 1 / np.sqrt(float64_value(layer.moving_variance))
        if layer.scale:
            scale = scale * float64_value(layer.gamma)
        shift = np.abs(float64_value(layer.moving_mean) * scale)
        if layer.center:
            shift = shift + np.abs(float64_value(layer.beta))
        return Bounds.of(*ends).widened(shift)


def _deviations(layer: Any, values: Values) -> Values:
    """Returns how many moving deviations values are from the moving mean."""
    variance = float64_value(layer.moving_variance)
    distance = values - float64_value(layer.moving_mean)
    return np.asarray(distance / np.sqrt(variance + layer.epsilon))


@register_rule(layers.PReLU)
class PReLURule(Rule):
    """A slope for each channel or number: units pass, slopes are cut."""

    one_input = True
    channelwise = True

    def flow(self, call: Call) -> Channels:
        """Cuts the slopes along the channels' axis, if not shared there.

        Slopes of a tensor that must stay whole stay whole.
        """
        channels, alpha = call.channels[0], call.operation.alpha
        if channels.axis is not None:
            axis = channels.axis - 1
            if alpha.shape[axis] == len(channels.labels):
                call.slice("alpha", axis, channels.labels)
            return channels
        for axis, size in enumerate(alpha.shape):  # nor in another call
            labels = call.fresh(size)
            call.pin(labels, channels.reason)
            call.slice("alpha", axis, labels)
        return channels

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Multiplies negatives by the slope; varies where positions differ."""
        del training
        alpha = float64_value(call.operation.alpha)
        alpha = np.moveaxis(alpha, (call.channels[0].axis or 0) - 1, -1)
        slopes = alpha.reshape(-1, alpha.shape[-1])
        slopes = np.broadcast_to(slopes, (len(slopes), len(values[0])))
        negative = values[0] * slopes[0]
        negative[(slopes != slopes[0]).any(axis=0)] = np.nan  # by position
        return np.where(values[0] < 0, negative, values[0])


@register_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
class DepthwiseConvolutionRule(Rule):
    """A kernel per channel: units pass with theirs, observed behind it."""

    one_input = True
    channelwise = True

    def flow(self, call: Call) -> Channels:
        """Cuts kernel and bias; copies of a channel share its label."""
        layer = call.operation
        if obstacle := kernel_obstacle(layer):
            return call.block(obstacle)
        axis = channel_axis(layer, len(call.output_shape))
        inputs = call.along(0, axis)
        outputs = np.repeat(inputs, layer.depth_multiplier)
        call.slice("kernel", len(layer.kernel.shape) - 2, inputs)
        if layer.use_bias:
            call.slice("bias", 0, outputs)
        if obstacle := activation_obstacle(layer):
            call.pin(outputs, obstacle)
        return Channels(outputs, axis)

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Multiplies by the kernel's sum; of padded inputs only 0 is known."""
        del training
        layer, value = call.operation, values[0]
        if pads(layer):
            value = np.where(value == 0, 0.0, np.nan)
        result = (value[:, None] * summed_kernel(layer.kernel)).reshape(-1)
        if layer.use_bias:
            result = result + float64_value(layer.bias)
        if layer.activation is None:
            return result
        dtype = layer.compute_dtype
        tensor = keras.ops.convert_to_tensor(result, dtype=dtype)
        with keras.StatelessScope():
            output = layer.activation(tensor)
        return np.asarray(keras.ops.convert_to_numpy(output), "float64")

    def keeps_means(self, call: Call) -> bool:
        """Keeps them, unless it ends in an activation."""
        linear = (None, keras.activations.linear)
        return call.operation.activation in linear
