"""Layers that are random while training and hand on at inference."""

import keras
import numpy as np

from keras_kddp.surgery.bounds import Bounds
from keras_kddp.surgery.channels import Call, Channels, describe
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rule import Precision, Rule, Values

layers = keras.layers


@register_rule(
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
class DropoutRule(Rule):
    """Zeros by chance while training: units pass, observed before it."""

    one_input = True
    is_noise = True
    keeps_signs = True

    def flow(self, call: Call) -> Channels:
        """Keeps the labels, unless `noise_shape` counts the channels."""
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
        """Hands the input's bounds on: nothing is dropped at inference."""
        del call
        return inputs[0]

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Hands all on: in training it is the mean, but at rate 1."""
        if training and call.operation.rate == 1:
            return np.where(values[0] == 0, 0.0, np.nan)
        return values[0]

    def precision(self, call: Call, values: list[Values]) -> np.ndarray | int:
        """Is exact for 0, which any factor leaves alone."""
        if not call.operation.rate:
            return Precision.EXACT
        return np.where(values[0] == 0, Precision.EXACT, Precision.ON_AVERAGE)

    def keeps_means(self, call: Call) -> bool:
        """Keeps them: its factors have the mean 1, whatever they meet."""
        return call.operation.rate != 1


@register_rule(layers.GaussianDropout)
class GaussianDropoutRule(DropoutRule):
    """Noise times each number in training: units pass, observed before it."""

    keeps_signs = False


@register_rule(layers.GaussianNoise)
class GaussianNoiseRule(DropoutRule):
    """Noise on each number in training: units pass, observed before it."""

    keeps_signs = False

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Hands all on: in training it is the mean."""
        del call, training
        return values[0]

    def precision(self, call: Call, values: list[Values]) -> np.ndarray | int:
        """Is a mean in training, when even a 0 gets noise."""
        del values
        if not call.operation.stddev:
            return Precision.EXACT
        return Precision.ON_AVERAGE

    def keeps_means(self, call: Call) -> bool:
        """Keeps them: what it adds has the mean 0."""
        del call
        return True
