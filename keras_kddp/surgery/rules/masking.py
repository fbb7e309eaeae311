"""Operations that masks are computed with, by Keras itself too."""

import numpy as np

from keras_kddp.surgery.bounds import UNBOUNDED, Bounds
from keras_kddp.surgery.channels import Call, Channels
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rule import Rule, Values
from keras_kddp.surgery.rules.joining import JoiningRule
from keras_kddp.surgery.rules.positions import ReductionRule


class _UnknownValues(Rule):
    """Knows labels alone: nothing is observed behind it, no constant folds."""

    channelwise = False
    monotone = False

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Knows nothing."""
        del values, training
        return np.full(len(call.output.labels), np.nan)

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Knows nothing."""
        del call, inputs
        return UNBOUNDED


@register_rule("ZerosLike", "OnesLike")
class FilledRule(_UnknownValues):
    """Reads a shape alone: units pass."""

    def flow(self, call: Call) -> Channels:
        """Keeps the labels; all channels hold the same number."""
        return call.channels[0]._replace(pieces=1)


@register_rule(
    *["Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"],
    *["LogicalAnd", "LogicalOr", "LogicalXor", "LogicalNot"],
)
class ComparisonRule(_UnknownValues, JoiningRule):
    """Compares number by number: the units on all sides go together."""


@register_rule("Any", "All")
class TruthRule(_UnknownValues, ReductionRule):
    """Reduces axes of positions, and of channels that are all alike."""

    def flow(self, call: Call) -> Channels:
        """Lets channels vanish where any that stays says the same."""
        channels, operation = call.channels[0], call.operation
        if channels.axis is None:
            return channels
        axes = np.atleast_1d(
            range(len(call.input_shapes[0]))
            if operation.axis is None
            else operation.axis
        )
        if channels.axis not in axes % len(call.input_shapes[0]):
            return super().flow(call)
        if channels.pieces:
            return Channels.fixed("it is a mask")
        return call.block(
            f"the operation {operation.name} computes a mask from all its "
            "channels"
        )
