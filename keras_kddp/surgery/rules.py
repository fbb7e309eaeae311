"""What each Keras layer class does to channels."""

import inspect
from typing import Any

import keras
import numpy as np

from keras_kddp._compat import CallNode
from keras_kddp.surgery.rule import (
    Call,
    Labels,
    NotFoldableError,
    Rule,
    Values,
    describe,
    float64_value,
    register_rule,
    rule_for,
)

_MIXING_ACTIVATIONS = {"softmax", "log_softmax", "sparsemax", "glu"}
_ELEMENTWISE = {
    function
    for name, function in inspect.getmembers(
        keras.activations, inspect.isfunction
    )
    if name not in _MIXING_ACTIVATIONS | {"get", "serialize", "deserialize"}
}


def _activation_obstacle(layer: Any) -> str:
    """Returns why an activation is not elementwise, "" if it is."""
    activation = layer.activation
    if activation is None or activation in _ELEMENTWISE:
        return ""
    is_layer = isinstance(activation, keras.layers.Layer)
    if is_layer and type(rule_for(activation)) is ElementwiseRule:
        return ""
    name = getattr(activation, "__name__", type(activation).__name__)
    return (
        f"{describe(layer)} ends in the activation {name}, which is not known "
        "to act on each channel alone"
    )


def _layout_obstacle(layer: Any) -> str:
    """Returns why a layer's channels are not on the last axis, "" if so."""
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return f"{describe(layer)} is channels_first"
    return ""


def _kernel_obstacle(layer: Any) -> str:
    """Returns why a kernel cannot be cut, "" if it can."""
    if getattr(layer, "quantization_mode", None) is not None:
        return f"{describe(layer)} is quantized"
    if getattr(layer, "lora_enabled", False):
        return f"{describe(layer)} carries LoRA weights"
    if getattr(layer, "groups", 1) != 1:
        return f"{describe(layer)} is a grouped convolution"
    return _layout_obstacle(layer)


class _MixingRule(Rule):
    """Reads all input channels through `kernel`; makes units of its own."""

    argument = "units"

    def flow(self, call: Call) -> Labels:
        layer = call.operation
        if obstacle := _kernel_obstacle(layer):
            return call.block(obstacle)
        units = call.produce(self.argument)
        rank = len(layer.kernel.shape)
        call.consume("kernel", rank - 2, call.inputs[0])
        call.slice("kernel", rank - 1, units)
        if layer.use_bias:
            call.slice("bias", 0, units)
        if obstacle := _activation_obstacle(layer):
            call.pin(units, obstacle)
        return units


@register_rule(keras.layers.Dense)
class DenseRule(_MixingRule):
    """Dense on any rank."""

    def fold(self, node: CallNode, values: Values) -> Values:
        kernel = float64_value(node.operation.kernel)
        return values @ kernel


@register_rule(keras.layers.Conv1D, keras.layers.Conv2D)
class ConvolutionRule(_MixingRule):
    """An ungrouped convolution."""

    argument = "filters"

    def fold(self, node: CallNode, values: Values) -> Values:
        layer = node.operation
        if layer.padding != "valid" and max(layer.kernel_size) > 1:
            raise NotFoldableError(
                f"{describe(layer)} pads with zeros "
                f"(padding='{layer.padding}'), so a constant input looks "
                "different at the border"
            )
        kernel = float64_value(layer.kernel)
        return values @ kernel.sum(axis=tuple(range(kernel.ndim - 2)))


@register_rule(keras.layers.BatchNormalization)
class BatchNormalizationRule(Rule):
    """Scales and shifts each channel; the shift depends on the mode."""

    channelwise = True

    def flow(self, call: Call) -> Labels:
        layer = call.operation
        rank = len(call.output_shape)
        if layer.axis not in (-1, rank - 1):
            return call.block(
                f"{describe(layer)} normalizes axis {layer.axis}, not the last"
            )
        labels = call.inputs[0]
        for variable in layer.weights:
            call.slice(variable.name, 0, labels)
        return labels

    def constant(
        self, node: CallNode, values: list[Values], training: bool
    ) -> Values:
        layer, value = node.operation, values[0]
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


@register_rule(keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
class ElementwiseRule(Rule):
    """Maps each number by itself."""

    channelwise = True

    def flow(self, call: Call) -> Labels:
        return call.inputs[0]


@register_rule(
    *["Relu", "Relu6", "Sigmoid", "SparseSigmoid", "Softplus", "Softsign"],
    *["SoftShrink", "SparsePlus", "Silu", "Squareplus", "LogSigmoid"],
    *["LeakyRelu", "HardSigmoid", "HardSilu", "Elu", "Selu", "Gelu", "Celu"],
    *["TanhShrink", "HardTanh", "HardShrink", "Threshold", "Tanh", "Exp"],
    *["Abs", "Absolute", "Negative", "Square"],
)
class ElementwiseOperationRule(ElementwiseRule):
    """A raw operation of one tensor that maps each number by itself."""

    def flow(self, call: Call) -> Labels:
        if len(call.inputs) != 1:
            return call.block(
                f"the operation {call.operation.name} has several inputs"
            )
        return call.inputs[0]


@register_rule(keras.layers.Activation)
class ActivationRule(ElementwiseRule):
    """An activation given by name or function."""

    def flow(self, call: Call) -> Labels:
        if obstacle := _activation_obstacle(call.operation):
            return call.block(obstacle)
        return call.inputs[0]


@register_rule(keras.layers.PReLU)
class PReLURule(Rule):
    """A slope for negative numbers, of each channel or of each number."""

    channelwise = True

    def flow(self, call: Call) -> Labels:
        alpha = call.operation.alpha
        axis = len(alpha.shape) - 1
        if alpha.shape[axis] == len(call.inputs[0]):
            call.slice("alpha", axis, call.inputs[0])
        return call.inputs[0]

    def constant(
        self, node: CallNode, values: list[Values], training: bool
    ) -> Values:
        del training
        alpha = float64_value(node.operation.alpha)
        slopes = alpha.reshape(-1, alpha.shape[-1])
        slopes = np.broadcast_to(slopes, (len(slopes), len(values[0])))
        negative = values[0] * slopes[0]
        negative[(slopes != slopes[0]).any(axis=0)] = np.nan  # by position
        return np.where(values[0] < 0, negative, values[0])


@register_rule(keras.layers.Rescaling)
class RescalingRule(ElementwiseRule):
    """Scale and offset for all channels alike."""

    def flow(self, call: Call) -> Labels:
        layer = call.operation
        if np.ndim(layer.scale) or np.ndim(layer.offset):
            return call.block(
                f"{describe(layer)} scales each channel by a number of its own"
            )
        return call.inputs[0]


@register_rule(keras.layers.Identity)
class IdentityRule(ElementwiseRule):
    """Hands everything on."""

    def constant(
        self, node: CallNode, values: list[Values], training: bool
    ) -> Values:
        del node, training
        return values[0]


@register_rule(keras.layers.Add, "Add")
class AddRule(Rule):
    """Adds tensors channel by channel: the units on all sides go together."""

    channelwise = True

    def flow(self, call: Call) -> Labels:
        first, *others = call.inputs
        shapes = call.input_shapes
        if any(
            len(shape) != len(shapes[0]) or shape[-1] != shapes[0][-1]
            for shape in shapes
        ) or not _no_array_argument(call.node):
            return call.block(
                f"{describe(call.operation)} adds tensors of different shapes"
            )
        for other in others:
            call.tie(first, other)
        return first


@register_rule("Concatenate", keras.layers.Concatenate)
class ConcatenateRule(Rule):
    """Puts the channels of several tensors side by side."""

    def flow(self, call: Call) -> Labels:
        axis, rank = call.operation.axis, len(call.output_shape)
        if axis not in (-1, rank - 1):
            return call.block(
                f"{describe(call.operation)} joins along axis {axis}, not "
                "the last"
            )
        if not _no_array_argument(call.node):
            return call.block(
                f"{describe(call.operation)} joins an array to its inputs"
            )
        return np.concatenate(call.inputs)

    def constant(
        self, node: CallNode, values: list[Values], training: bool
    ) -> Values:
        del node, training
        return np.concatenate(values)


@register_rule(
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
)
class DropoutRule(Rule):
    """Sets numbers to zero by chance while training."""

    def flow(self, call: Call) -> Labels:
        layer = call.operation
        channels = (layer.noise_shape or (None,))[-1]
        if channels not in (None, 1):
            return call.block(
                f"{describe(layer)} has a noise_shape with {channels} channels"
            )
        return call.inputs[0]

    def constant(
        self, node: CallNode, values: list[Values], training: bool
    ) -> Values:
        if not training or not node.operation.rate:
            return values[0]
        return np.where(values[0] == 0, 0.0, np.nan)


@register_rule(
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
)
class PoolingRule(IdentityRule):
    """Maximum or mean over positions: a constant stays what it is."""

    channelwise = False

    def flow(self, call: Call) -> Labels:
        if obstacle := _layout_obstacle(call.operation):
            return call.block(obstacle)
        return call.inputs[0]


@register_rule(keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D)
class ZeroPaddingRule(Rule):
    """Puts zeros around: only a zero stays constant."""

    def flow(self, call: Call) -> Labels:
        if obstacle := _layout_obstacle(call.operation):
            return call.block(obstacle)
        return call.inputs[0]

    def constant(
        self, node: CallNode, values: list[Values], training: bool
    ) -> Values:
        del node, training
        return np.where(values[0] == 0, 0.0, np.nan)


@register_rule(keras.layers.Flatten)
class FlattenRule(Rule):
    """Repeats the channels once a position."""

    def flow(self, call: Call) -> Labels:
        layer, shape = call.operation, call.input_shapes[0]
        if obstacle := _layout_obstacle(layer):
            return call.block(obstacle)
        if None in shape[1:]:
            return call.block(
                f"{describe(layer)} flattens an input of unknown size {shape}"
            )
        return np.tile(call.inputs[0], int(np.prod(shape[1:-1])))

    def constant(
        self, node: CallNode, values: list[Values], training: bool
    ) -> Values:
        del training
        positions = np.prod(node.inputs[0].shape[1:-1], dtype=int)
        return np.tile(values[0], positions)


def _no_array_argument(node: CallNode) -> bool:
    """Says whether every argument is a symbolic tensor or a plain number."""
    return all(
        isinstance(leaf, keras.KerasTensor) or np.ndim(leaf) == 0
        for leaf in keras.tree.flatten((node.args, node.kwargs))
        if leaf is not None
    )
