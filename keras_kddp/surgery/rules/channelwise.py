"""Layers and operations that keep every channel where it is."""

import keras
import numpy as np

from keras_kddp.surgery.bounds import UNBOUNDED, Bounds
from keras_kddp.surgery.channels import Call, Channels, describe
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rule import Rule, Values, float64_value
from keras_kddp.surgery.rules.intervals import activated
from keras_kddp.surgery.rules.mixing import pads, summed_kernel
from keras_kddp.surgery.rules.obstacles import (
    activation_obstacle,
    channel_axis,
    kernel_obstacle,
)

layers = keras.layers


@register_rule(layers.ReLU, layers.LeakyReLU, layers.ELU)
class ElementwiseRule(Rule):
    """Maps each number by itself: units pass."""

    one_input = True
    channelwise = True
    elementwise = True
    monotone = True

    def flow(self, call: Call) -> Channels:
        return call.channels[0]

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        slopes = [
            getattr(call.operation, name, None) or 0
            for name in ("alpha", "negative_slope")
        ]
        if min(slopes) < 0:  # falls, then rises
            return UNBOUNDED
        return super().bounds(call, inputs)


@register_rule(
    *["Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid"],
    *["HardSigmoid", "LogSigmoid", "Softplus", "Softsign", "Tanh", "HardTanh"],
    *["Negative", "Cbrt", "Exp", "Exp2", "Expm1", "Arctan", "Sinh", "Arcsinh"],
    *["Sign", "Floor", "Ceil", "Round", "Trunc", "StopGradient", "Copy"],
)
class MonotoneOperationRule(ElementwiseRule):
    """A raw operation that maps each number by itself: units pass."""


@register_rule(
    *["SparseSigmoid", "SoftShrink", "SparsePlus", "Silu", "Squareplus"],
    *["HardSilu", "Gelu", "TanhShrink", "HardShrink", "Threshold"],
    *["Abs", "Absolute", "Fabs", "Square", "Sqrt", "Reciprocal"],
    *["Log", "Log10", "Log1p", "Log2", "Cosh", "Arccosh", "Arctanh"],
    *["Sin", "Cos", "Tan", "Arcsin", "Arccos"],
    *["NanToNum", "Cast", "SaturateCast"],
)
class ElementwiseOperationRule(MonotoneOperationRule):
    """A raw operation that maps each number by itself: units pass."""

    monotone = False


@register_rule("Clip")
class ClipRule(ElementwiseRule):
    """Clips by two numbers: units pass."""

    def flow(self, call: Call) -> Channels:
        operation = call.operation
        if np.ndim(operation.x_min) or np.ndim(operation.x_max):
            return call.block(
                f"the operation {operation.name} clips each channel by "
                "numbers of its own"
            )
        return call.channels[0]


@register_rule(layers.Activation)
class ActivationRule(ElementwiseRule):
    """An activation by name or function: units pass if it is elementwise."""

    elementwise = False  # as an activation it would have to be looked into

    def flow(self, call: Call) -> Channels:
        if obstacle := activation_obstacle(call.operation):
            return call.block(obstacle)
        return call.channels[0]

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        return activated(call.operation, inputs[0])


@register_rule(layers.Identity, layers.ActivityRegularization)
class IdentityRule(ElementwiseRule):
    """Hands everything on: units pass."""

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        del call, training
        return values[0]

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        del call
        return inputs[0]


@register_rule(layers.InputLayer)
class NestedInputRule(IdentityRule):
    """The input of a model: stays; of a nested model: units pass."""

    def flow(self, call: Call) -> Channels:
        channels = call.channels[0]
        shape = call.operation.batch_shape
        if channels.axis is not None and shape[channels.axis] is not None:
            call.count("batch_shape", channels.labels, channels.axis)
        return channels


@register_rule(layers.Rescaling)
class RescalingRule(ElementwiseRule):
    """Scale and offset for all channels alike: units pass."""

    elementwise = False  # where each channel has its own

    def flow(self, call: Call) -> Channels:
        layer = call.operation
        if np.ndim(layer.scale) or np.ndim(layer.offset):
            return call.block(
                f"{describe(layer)} scales each channel by a number of its own"
            )
        return call.channels[0]


@register_rule(layers.BatchNormalization)
class BatchNormalizationRule(Rule):
    """Scales and shifts each channel: units pass, its entries are cut."""

    one_input = True
    channelwise = True

    def flow(self, call: Call) -> Channels:
        axis = call.operation.axis % len(call.output_shape)
        labels = call.along(0, axis)
        for variable in call.operation.weights:
            call.slice(variable.name, 0, labels)
        return Channels(labels, axis)

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        layer, value = call.operation, values[0]
        mean, variance = (
            float64_value(layer.moving_mean),
            float64_value(layer.moving_variance),
        )
        if training and layer.trainable:
            # A constant is its own batch mean: only the shift remains.
            mean = value
        scaled = (value - mean) / np.sqrt(variance + layer.epsilon)
        if layer.scale:
            scaled = scaled * float64_value(layer.gamma)
        return scaled + (float64_value(layer.beta) if layer.center else 0.0)

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
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


@register_rule(layers.PReLU)
class PReLURule(Rule):
    """A slope for each channel or number: units pass, slopes are cut."""

    one_input = True
    channelwise = True

    def flow(self, call: Call) -> Channels:
        channels, alpha = call.channels[0], call.operation.alpha
        if channels.axis is not None:
            axis = channels.axis - 1
            if alpha.shape[axis] == len(channels.labels):
                call.slice("alpha", axis, channels.labels)
        return channels

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
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
    """A kernel a channel: units pass with theirs, observed behind it."""

    one_input = True
    channelwise = True

    def flow(self, call: Call) -> Channels:
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


@register_rule(
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
class DropoutRule(Rule):
    """Zeros by chance while training: units pass, observed before it."""

    one_input = True

    def flow(self, call: Call) -> Channels:
        layer, channels = call.operation, call.channels[0]
        shape = getattr(layer, "noise_shape", None)
        if channels.axis is None or not shape:
            return channels
        missing = len(call.output_shape) - len(shape)
        size = shape[channels.axis - missing] if channels.axis >= missing else 1
        if size not in (None, 1):
            return call.block(
                f"{describe(layer)} has a noise_shape with {size} channels"
            )
        return channels

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        del call
        return inputs[0]

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        if not training or not call.operation.rate:
            return values[0]
        return np.where(values[0] == 0, 0.0, np.nan)


@register_rule(layers.GaussianDropout)
class GaussianDropoutRule(DropoutRule):
    """Noise times each number in training: units pass, observed before it."""


@register_rule(layers.GaussianNoise)
class GaussianNoiseRule(DropoutRule):
    """Noise on each number in training: units pass, observed before it."""

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        if not training or not call.operation.stddev:
            return values[0]
        return np.full(len(values[0]), np.nan)
