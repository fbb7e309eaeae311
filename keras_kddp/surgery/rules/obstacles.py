"""What keeps a layer of a known class from being cut."""

from typing import Any

import keras

from keras_kddp._compat import CallNode
from keras_kddp.surgery.channels import Call, Channels, describe
from keras_kddp.surgery.registry import rule_for

_RISING = (
    *["elu", "exponential", "hard_sigmoid", "hard_tanh", "leaky_relu"],
    *["linear", "log_sigmoid", "relu", "relu6", "selu", "sigmoid", "softplus"],
    *["softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "tanh"],
)
_OTHERS = (
    *["celu", "gelu", "hard_shrink", "hard_silu", "hard_swish", "mish"],
    *["silu", "soft_shrink", "swish", "tanh_shrink", "threshold"],
)
MONOTONE = [getattr(keras.activations, name) for name in _RISING]
_ELEMENTWISE = MONOTONE + [getattr(keras.activations, name) for name in _OTHERS]


def activation_obstacle(layer: Any) -> str:
    """Returns why an activation is not elementwise, "" if it is."""
    activation = layer.activation
    if activation is None or activation in _ELEMENTWISE:
        return ""
    is_layer = isinstance(activation, keras.layers.Layer)
    if is_layer and rule_for(activation).elementwise:
        return ""
    name = getattr(activation, "__name__", type(activation).__name__)
    return (
        f"{describe(layer)} ends in the activation {name}, which is not known "
        "to act on each channel alone"
    )


def kernel_obstacle(layer: Any) -> str:
    """Returns why the weights cannot be cut, "" if they can."""
    if getattr(layer, "quantization_mode", None) is not None:
        return f"{describe(layer)} is quantized"
    if getattr(layer, "lora_enabled", False):
        return f"{describe(layer)} carries LoRA weights"
    return ""


def channel_axis(layer: Any, rank: int) -> int:
    """Returns the axis that a layer takes channels from, of `rank` axes."""
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return 1 if first else rank - 1


def carry_channels(call: Call, axis: int, output_axis: int) -> Channels:
    """Returns the first input's channels, carried from axis to axis."""
    channels = call.channels[0]
    if channels.axis is None:
        return channels
    return Channels(call.along(0, axis), output_axis)


def has_array_argument(node: CallNode) -> bool:
    """Says whether an argument is neither symbolic nor a plain number."""
    values = [*node.args, *node.kwargs.values()]
    if len(values) == 1 and isinstance(values[0], (list, tuple)):
        values = list(values[0])  # the list that a merging layer takes
    return any(
        not isinstance(value, (keras.KerasTensor, str, int, float, type(None)))
        and getattr(value, "ndim", 1) != 0
        for value in values
    )
