"""Layers and operations that keep every channel where it is."""

import keras
import numpy as np

from keras_kddp.surgery.bounds import UNBOUNDED, Bounds
from keras_kddp.surgery.channels import Call, Channels, describe
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rule import Rule, Values
from keras_kddp.surgery.rules.intervals import activate_bounds
from keras_kddp.surgery.rules.obstacles import activation_obstacle

layers = keras.layers

_LINEAR = ("Negative", "StopGradient", "Copy", "Cast", "SaturateCast")


@register_rule(layers.ReLU, layers.LeakyReLU, layers.ELU)
class ElementwiseRule(Rule):
    """Maps each number by itself: units pass."""

    one_input = True
    channelwise = True
    elementwise = True
    monotone = True

    def flow(self, call: Call) -> Channels:
        """Keeps the labels where they are: number by number, nothing mixes."""
        return call.channels[0]

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Maps both ends; knows nothing where a negative slope makes a bend."""
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

    def keeps_means(self, call: Call) -> bool:
        """Keeps them where it is linear."""
        return type(call.operation).__name__ in _LINEAR


@register_rule(
    *["SparseSigmoid", "SoftShrink", "SparsePlus", "Silu", "Squareplus"],
    *["HardSilu", "Gelu", "TanhShrink", "HardShrink", "Threshold"],
    *["Abs", "Absolute", "Fabs", "Square", "Sqrt", "Reciprocal"],
    *["Log", "Log10", "Log1p", "Log2", "Cosh", "Arccosh", "Arctanh"],
    *["Sin", "Cos", "Tan", "Arcsin", "Arccos"],
    *["NanToNum", "Cast", "SaturateCast", "ConvertToTensor"],
)
class ElementwiseOperationRule(MonotoneOperationRule):
    """A raw operation that maps each number by itself: units pass."""

    monotone = False


@register_rule("Clip")
class ClipRule(ElementwiseRule):
    """Clips by two numbers: units pass."""

    def flow(self, call: Call) -> Channels:
        """Keeps the labels, unless the limits are arrays: one per channel."""
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
        """Keeps the labels of an activation that is known to be elementwise."""
        if obstacle := activation_obstacle(call.operation):
            return call.block(obstacle)
        return call.channels[0]

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Puts the ends through the activation, if it rises everywhere."""
        return activate_bounds(call.operation, inputs[0])


@register_rule(layers.Identity, layers.ActivityRegularization)
class IdentityRule(ElementwiseRule):
    """Hands everything on: units pass."""

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Hands constants on, in training as at inference."""
        del call, training
        return values[0]

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Hands the input's bounds on."""
        del call
        return inputs[0]

    def keeps_means(self, call: Call) -> bool:
        """Hands them on."""
        del call
        return True


@register_rule(layers.InputLayer)
class NestedInputRule(IdentityRule):
    """The input of a model: stays; of a nested model: units pass."""

    def flow(self, call: Call) -> Channels:
        """Keeps the labels; they are counted in the model's `batch_shape`."""
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
        """Keeps the labels, unless scale or offset is an array."""
        layer = call.operation
        if np.ndim(layer.scale) or np.ndim(layer.offset):
            return call.block(
                f"{describe(layer)} scales each channel by a number of its own"
            )
        return call.channels[0]

    def keeps_means(self, call: Call) -> bool:
        """Scales them."""
        del call
        return True
