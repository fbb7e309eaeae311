"""Layers that read every channel and make units of their own."""

from typing import Any

import keras
import numpy as np

from keras_kddp.surgery.bounds import UNBOUNDED, Bounds
from keras_kddp.surgery.channels import Call, Channels, Labels, describe
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rule import (
    NotFoldableError,
    Rule,
    Values,
    float64_value,
)
from keras_kddp.surgery.rules.intervals import linear_bounds
from keras_kddp.surgery.rules.obstacles import (
    activation_obstacle,
    channel_axis,
    kernel_obstacle,
)

layers = keras.layers


class _MixingRule(Rule):
    """Reads all input channels through a kernel; makes units of its own."""

    one_input = True
    argument = "units"

    def flow(self, call: Call) -> Channels:
        """Makes a label per unit and cuts the kernel's columns and the bias."""
        layer = call.operation
        if obstacle := kernel_obstacle(layer):
            return call.block(obstacle)
        axis = channel_axis(layer, len(call.output_shape))
        units = call.produce(self.argument)
        self.connect(call, call.along(0, axis), units)
        if layer.use_bias:
            call.slice("bias", 0, units)
        if obstacle := activation_obstacle(layer):
            call.pin(units, obstacle)
        return Channels(units, axis)

    def connect(self, call: Call, inputs: Labels, units: Labels) -> None:
        """Says which axes of the kernel inputs and units lie on."""
        rank = len(call.operation.kernel.shape)
        call.consume("kernel", rank - 2, inputs)
        call.slice("kernel", rank - 1, units)


@register_rule(layers.Dense)
class DenseRule(_MixingRule):
    """Units are cut; reads its input's units. On tensors of any rank."""

    def fold(self, call: Call, values: Values) -> Values:
        """Returns the constants times the kernel, (units,)."""
        return values @ float64_value(call.operation.kernel)

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Sums the smallest and the largest products, then activates."""
        return linear_bounds(call.operation, call.operation.kernel, inputs[0])


@register_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
class ConvolutionRule(_MixingRule):
    """Filters are cut; reads its input's. With groups: whole groups only."""

    argument = "filters"

    def connect(self, call: Call, inputs: Labels, units: Labels) -> None:
        """Ties inputs and filters of a group to one label, if it has groups."""
        groups = call.operation.groups
        if groups == 1:
            super().connect(call, inputs, units)
            return
        labels = call.fresh(groups)
        call.count("groups", labels)
        call.tie(np.repeat(labels, len(inputs) // groups), inputs)
        call.tie(np.repeat(labels, len(units) // groups), units)
        call.slice("kernel", len(call.operation.kernel.shape) - 1, units)

    def fold(self, call: Call, values: Values) -> Values:
        """Returns the constants times the kernel's sum over its positions."""
        layer = call.operation
        if layer.groups > 1:
            # Only whole groups go, with every filter that reads one.
            return np.zeros(layer.filters)
        if pads(layer) and values.any():
            is_causal = layer.padding == "causal"
            raise NotFoldableError(
                padding_reason(layer),
                None if is_causal else lambda: _inside_of(call, values),
            )
        return values @ summed_kernel(layer.kernel)

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Sums products over all positions; with groups nothing is known."""
        layer = call.operation
        if layer.groups > 1:
            return UNBOUNDED
        return linear_bounds(layer, layer.kernel, inputs[0])


@register_rule(
    layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose
)
class TransposedConvolutionRule(_MixingRule):
    """Filters are cut; reads its input's, zeros only: no constant folds."""

    argument = "filters"

    def connect(self, call: Call, inputs: Labels, units: Labels) -> None:
        """Reads along the kernel's last axis; units lie on the one before."""
        rank = len(call.operation.kernel.shape)
        call.consume("kernel", rank - 1, inputs)
        call.slice("kernel", rank - 2, units)

    def fold(self, call: Call, values: Values) -> Values:
        """Refuses: how often kernels overlap differs between positions."""
        raise NotFoldableError(
            f"behind {describe(call.operation)} a constant differs from "
            "position to position"
        )


@register_rule(layers.SeparableConv1D, layers.SeparableConv2D)
class SeparableConvolutionRule(_MixingRule):
    """Filters are cut; reads its input's, depthwise and pointwise."""

    argument = "filters"

    def connect(self, call: Call, inputs: Labels, units: Labels) -> None:
        """Cuts the depthwise kernel and both axes of the pointwise one."""
        layer = call.operation
        rank = len(layer.depthwise_kernel.shape)
        multiplied = np.repeat(inputs, layer.depth_multiplier)
        call.slice("depthwise_kernel", rank - 2, inputs)
        call.consume("pointwise_kernel", rank - 2, multiplied)
        call.slice("pointwise_kernel", rank - 1, units)

    def fold(self, call: Call, values: Values) -> Values:
        """Sends the constants through both kernels, summed over positions."""
        layer = call.operation
        if pads(layer) and values.any():
            raise NotFoldableError(padding_reason(layer))
        depthwise = summed_kernel(layer.depthwise_kernel)
        pointwise = float64_value(layer.pointwise_kernel)
        between = (values[:, None] * depthwise).reshape(-1)
        return between @ pointwise.reshape(-1, pointwise.shape[-1])


@register_rule(layers.Embedding)
class EmbeddingRule(Rule):
    """Entries of the vectors are cut; what it looks up stays."""

    one_input = True

    def flow(self, call: Call) -> Labels | Channels:
        """Makes a label per entry of the vectors; pins what is looked up."""
        layer = call.operation
        if obstacle := kernel_obstacle(layer):
            return call.block(obstacle)
        for channels in call.channels:
            call.pin(channels.labels, f"{describe(layer)} looks it up")
        units = call.produce("output_dim")
        call.slice("embeddings", 1, units)
        return units


@register_rule(layers.LSTM, layers.GRU, layers.SimpleRNN)
class RecurrentRule(Rule):
    """Its units stay, for now; the units that it reads may go."""

    def flow(self, call: Call) -> Channels:
        """Cuts the input kernel's rows; lets no unit of its own go."""
        layer = call.operation
        reason = f"{describe(layer)} ties its units by their recurrence"
        if len(call.channels) > 1 or kernel_obstacle(layer):
            return call.block(reason)
        call.consume("kernel", 0, call.along(0, -1))
        return call.stop(reason)


def pads(layer: Any) -> bool:
    """Says whether a convolution reads zeros beyond the border."""
    return layer.padding != "valid" and max(layer.kernel_size) > 1


def padding_reason(layer: Any) -> str:
    """Returns why a constant does not stay one in a padded convolution."""
    return (
        f"{describe(layer)} pads with zeros (padding='{layer.padding}'), so a "
        "constant input looks different at the border"
    )


def summed_kernel(kernel: keras.Variable) -> np.ndarray:
    """Returns a kernel summed over its positions, (inputs, outputs)."""
    value = float64_value(kernel)
    return np.asarray(value.sum(axis=tuple(range(value.ndim - 2))))


def _inside_of(call: Call, values: Values) -> tuple[np.ndarray, float]:
    """Returns what constants add away from the border, and the error at it."""
    layer = call.operation
    increments = values @ summed_kernel(layer.kernel)
    shape = list(call.input_shapes[0][1:])
    del shape[channel_axis(layer, len(call.output_shape)) - 1]
    reaches = np.multiply(layer.kernel_size, layer.dilation_rate)
    sizes = [
        size or 4 * int(reach)
        for size, reach in zip(shape, reaches, strict=True)
    ]
    # In channels_last: TensorFlow convolves nothing else on a CPU.
    response = keras.ops.conv(
        keras.ops.convert_to_tensor(
            np.broadcast_to(values, (1, *sizes, len(values))),
            dtype=layer.compute_dtype,
        ),
        layer.kernel.value,
        strides=list(layer.strides),
        padding=layer.padding,
        data_format="channels_last",
        dilation_rate=layer.dilation_rate,
    )
    outputs = keras.ops.convert_to_numpy(response)
    return increments, float(np.abs(outputs - increments).max())
