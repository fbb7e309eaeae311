"""Layers that read every channel and make units of their own."""

from typing import Any

import keras
import numpy as np

from keras_kddp.surgery.rule import (
    Call,
    Channels,
    Labels,
    NotFoldableError,
    Rule,
    Values,
    describe,
    float64_value,
    register_rule,
)
from keras_kddp.surgery.rules.obstacles import (
    activation_obstacle,
    channel_axis,
    kernel_obstacle,
)

layers = keras.layers


class _MixingRule(Rule):
    """Reads all input channels through a kernel; makes units of its own."""

    argument = "units"

    def flow(self, call: Call) -> Channels:
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
        return values @ float64_value(call.operation.kernel)


@register_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
class ConvolutionRule(_MixingRule):
    """Filters are cut; reads its input's. With groups: whole groups only."""

    argument = "filters"

    def connect(self, call: Call, inputs: Labels, units: Labels) -> None:
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
        layer = call.operation
        kernel = summed_kernel(layer, layer.kernel, values)
        if layer.groups == 1:
            return values @ kernel
        # Only whole groups go, and with them every filter that reads one.
        return np.zeros(kernel.shape[-1])


@register_rule(
    layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose
)
class TransposedConvolutionRule(_MixingRule):
    """Filters are cut; reads its input's, zeros only: no constant folds."""

    argument = "filters"

    def connect(self, call: Call, inputs: Labels, units: Labels) -> None:
        rank = len(call.operation.kernel.shape)
        call.consume("kernel", rank - 1, inputs)
        call.slice("kernel", rank - 2, units)

    def fold(self, call: Call, values: Values) -> Values:
        raise NotFoldableError(
            f"behind {describe(call.operation)} a constant differs from "
            "position to position"
        )


@register_rule(layers.SeparableConv1D, layers.SeparableConv2D)
class SeparableConvolutionRule(_MixingRule):
    """Filters are cut; reads its input's, depthwise and pointwise."""

    argument = "filters"

    def connect(self, call: Call, inputs: Labels, units: Labels) -> None:
        layer = call.operation
        rank = len(layer.depthwise_kernel.shape)
        multiplied = np.repeat(inputs, layer.depth_multiplier)
        call.slice("depthwise_kernel", rank - 2, inputs)
        call.consume("pointwise_kernel", rank - 2, multiplied)
        call.slice("pointwise_kernel", rank - 1, units)

    def fold(self, call: Call, values: Values) -> Values:
        layer = call.operation
        depthwise = summed_kernel(layer, layer.depthwise_kernel, values)
        pointwise = float64_value(layer.pointwise_kernel)
        between = (values[:, None] * depthwise).reshape(-1)
        return between @ pointwise.reshape(-1, pointwise.shape[-1])


@register_rule(layers.Embedding)
class EmbeddingRule(Rule):
    """Entries of the vectors are cut; what it looks up stays."""

    def flow(self, call: Call) -> Labels | Channels:
        layer = call.operation
        if obstacle := kernel_obstacle(layer):
            return call.block(obstacle)
        units = call.produce("output_dim")
        call.slice("embeddings", 1, units)
        return units


@register_rule(layers.LSTM, layers.GRU, layers.SimpleRNN)
class RecurrentRule(Rule):
    """Its units stay, for now; the units that it reads may go."""

    def flow(self, call: Call) -> Channels:
        layer = call.operation
        reason = f"{describe(layer)} ties its units by their recurrence"
        if len(call.channels) > 1 or kernel_obstacle(layer):
            return call.block(reason)
        call.consume("kernel", 0, call.along(0, -1))
        return call.stop(reason)

    def fold(self, call: Call, values: Values) -> Values:
        raise NotFoldableError(
            f"{describe(call.operation)} cannot take a constant into a bias"
        )


def summed_kernel(layer: Any, kernel: Any, values: Values) -> np.ndarray:
    """Returns a kernel summed over its positions, (inputs, outputs).

    Raises:
        NotFoldableError: If a constant other than 0 meets padding with zeros.
    """
    if layer.padding != "valid" and max(layer.kernel_size) > 1 and values.any():
        raise NotFoldableError(
            f"{describe(layer)} pads with zeros (padding='{layer.padding}'), "
            "so a constant input looks different at the border"
        )
    value = float64_value(kernel)
    return np.asarray(value.sum(axis=tuple(range(value.ndim - 2))))
