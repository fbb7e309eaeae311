"""Interval bounds of linear layers and of what follows in them."""

from typing import Any

import keras
import numpy as np

from keras_kddp.surgery.bounds import UNBOUNDED, Bounds
from keras_kddp.surgery.rule import float64_value
from keras_kddp.surgery.rules.obstacles import MONOTONE


def linear_bounds(layer: Any, kernel: keras.Variable, inputs: Bounds) -> Bounds:
    """Returns bounds of a Dense layer's or convolution's output.

    Args:
        layer: The layer, for its padding, bias and activation.
        kernel: (..., inputs, units): each unit sums over all but the last.
        inputs: Bounds of what it reads.
    """
    value = float64_value(kernel)
    count = value.shape[-2]
    low, high = (np.broadcast_to(end, (count,)) for end in inputs)
    if getattr(layer, "padding", "valid") != "valid":
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    positions = tuple(range(value.ndim - 2))
    rising = np.maximum(value, 0).sum(axis=positions)
    falling = np.minimum(value, 0).sum(axis=positions)
    with np.errstate(invalid="ignore"):  # 0 times infinity
        ends = [low @ rising + high @ falling, high @ rising + low @ falling]
        largest = np.maximum(np.abs(low), np.abs(high))
        magnitude = np.nan_to_num(largest @ (rising - falling), posinf=0.0)
    bias = float64_value(layer.bias) if layer.use_bias else np.zeros(1)
    bounds = Bounds.of(ends[0] + bias, ends[1] + bias)
    bounds = bounds.widened(magnitude + np.abs(bias))
    return activate_bounds(layer, bounds)


def activate_bounds(layer: Any, bounds: Bounds) -> Bounds:
    """Returns bounds behind the activation of a layer."""
    activation = layer.activation
    if activation is None:
        return bounds
    if activation not in MONOTONE:
        return UNBOUNDED
    ends = [
        keras.ops.convert_to_numpy(
            activation(keras.ops.convert_to_tensor(end, dtype="float32"))
        ).astype("float64")
        for end in bounds
    ]
    return Bounds.of(*ends)
