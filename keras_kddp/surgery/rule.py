"""How a layer class says what it does to channels.

A channel is one position along the last axis of a symbolic tensor. Every
channel carries an integer label; channels with the same label, or with tied
labels, can only leave together.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_kddp._compat import CallNode

Labels = np.ndarray  # (channels,) int64
Values = np.ndarray  # (channels,) float64, NaN where a channel varies


class NotFoldableError(Exception):
    """Says why a constant cannot become part of a consumer's bias."""


class Records:
    """What the rules noted while the labels walked through a graph.

    Attributes:
        size: Number of labels handed out.
        units: Layer name -> labels of its declared units.
        arguments: Layer name -> config argument -> the labels it counts.
        slices: Layer name -> (variable, axis) -> labels along that axis.
        consumed: The (layer name, variable, axis) that read channels.
        ties: Pairs of equally long label arrays that leave together.
        pins: Labels that must stay, with the reason.
        blocked: Operation name -> why it lets nothing through.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self.size = 0
        self.units: dict[str, Labels] = {}
        self.arguments: dict[str, dict[str, Labels]] = {}
        self.slices: dict[str, dict[tuple[str, int], Labels]] = {}
        self.consumed: set[tuple[str, str, int]] = set()
        self.ties: list[tuple[Labels, Labels]] = []
        self.pins: list[tuple[Labels, str]] = []
        self.blocked: dict[str, str] = {}

    def fresh(self, count: int) -> Labels:
        """Returns `count` labels that nothing else carries."""
        self.size += count
        return np.arange(self.size - count, self.size)


class Call:
    """One call of one operation, as a rule sees it.

    Attributes:
        operation: The layer or raw operation.
        inputs: Label arrays of the symbolic inputs, each (channels,).
        input_shapes: Their shapes, batch axis first.
        output_shape: Shape of the first output.
        node: Arguments and symbolic tensors of the call.
    """

    def __init__(
        self, node: CallNode, inputs: list[Labels], records: Records
    ) -> None:
        """Binds a call to the records that its rule may write."""
        self.node = node
        self.operation = node.operation
        self.inputs = inputs
        self.input_shapes = [tuple(x.shape) for x in node.inputs]
        self.output_shape = tuple(node.outputs[0].shape)
        self._records = records

    def produce(self, argument: str) -> Labels:
        """Declares units of this layer.

        Args:
            argument: The config argument that counts them (`"units"`).

        Returns:
            Their labels; the same at every call of a shared layer.
        """
        name = self.operation.name
        units = self._records.units
        if name not in units:
            count = getattr(self.operation, argument)
            units[name] = self._records.fresh(count)
            self._records.arguments[name] = {argument: units[name]}
        return units[name]

    def consume(self, variable: str, axis: int, labels: Labels) -> None:
        """Says that a weight reads the channels along one of its axes."""
        self._records.consumed.add((self.operation.name, variable, axis))
        self.slice(variable, axis, labels)

    def slice(self, variable: str, axis: int, labels: Labels) -> None:
        """Says that a weight has one entry a channel along an axis."""
        slices = self._records.slices.setdefault(self.operation.name, {})
        if (variable, axis) in slices:  # another call of a shared layer
            self.tie(slices[variable, axis], labels)
        else:
            slices[variable, axis] = labels

    def tie(self, first: Labels, second: Labels) -> None:
        """Makes two label arrays leave together, position by position."""
        self._records.ties.append((first, second))

    def pin(self, labels: Labels, reason: str) -> None:
        """Keeps channels in place, with the reason a user will read."""
        self._records.pins.append((labels, reason))

    def block(self, reason: str) -> Labels:
        """Pins every input channel and returns pinned output labels."""
        self._records.blocked.setdefault(self.operation.name, reason)
        for labels in self.inputs:
            self.pin(labels, reason)
        output = self._records.fresh(channel_count(self.output_shape))
        self.pin(output, reason)
        return output


class Rule:
    """What one layer class does to channels.

    Subclass it and register the subclass with `register_rule`.

    Attributes:
        channelwise: The call keeps every channel and every position where it
            is and depends on nothing else, so that the activity of a unit may
            be observed behind it.
        ends_observation: The activity is observed right behind this layer.
    """

    channelwise = False
    ends_observation = False

    def flow(self, call: Call) -> Labels:
        """Notes what the call does and returns the labels of its output."""
        return call.block(
            f"{describe(call.operation)} has a rule that lets nothing through"
        )

    def constant(
        self, node: CallNode, values: list[Values], training: bool
    ) -> Values:
        """Returns what constant input channels are behind the call.

        Args:
            node: The call.
            values: One array a symbolic input; NaN where a channel varies.
            training: The mode the value is asked for.

        Returns:
            One value an output channel; NaN where it varies or is unknown.
        """
        del training
        if self.channelwise:
            return replay(node, values)
        return np.full(channel_count(node.outputs[0].shape), np.nan)

    def fold(self, node: CallNode, values: Values) -> Values | None:
        """Returns what constant inputs add to this layer's bias.

        Args:
            node: The call.
            values: The constants, zero for channels that stay.

        Returns:
            One increment a unit, or None for a layer that does not read
            channels.

        Raises:
            NotFoldableError: If a bias cannot express it.
        """
        del node, values
        return None


_RULES: dict[type | str, Rule] = {}


def register_rule(
    *targets: type | str,
) -> Callable[[type[Rule]], type[Rule]]:
    """Tells the surgeon what a layer class does to channels.

    Args:
        *targets: Layer classes, or class names of raw `keras.ops` operations
            (`"Relu"`).

    Returns:
        A decorator for a `Rule` subclass without constructor arguments.

    Raises:
        TypeError: If a target is neither a layer class nor a string.

    Example:
        ```python
        @keras_kddp.surgery.register_rule(MyScaling)
        class MyScalingRule(keras_kddp.surgery.Rule):
            channelwise = True

            def flow(self, call):
                call.slice("scale", 0, call.inputs[0])
                return call.inputs[0]
        ```
    """
    for target in targets:
        is_layer = isinstance(target, type) and issubclass(
            target, keras.layers.Layer
        )
        if not (is_layer or isinstance(target, str)):
            raise TypeError(
                "`targets` must be layer classes or names of raw operations. "
                f"Received: {target!r}"
            )

    def decorate(rule: type[Rule]) -> type[Rule]:
        for target in targets:
            _RULES[target] = rule()
        return rule

    return decorate


class _Blocking(Rule):
    """Lets nothing through, and says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def flow(self, call: Call) -> Labels:
        return call.block(self.reason)


def rule_for(operation: Any) -> Rule:
    """Returns the rule of an operation; a blocking one where there is none.

    A subclass inherits the rule of its base only while it does not override
    `call`, nor `convolution_op`, which Keras offers for overriding: what a
    changed call does to channels is not known.
    """
    if not isinstance(operation, keras.layers.Layer):
        built_in = type(operation).__module__.startswith("keras.")
        rule = _RULES.get(type(operation).__name__) if built_in else None
        return rule or _Blocking(
            f"the operation {operation.name} ({type(operation).__name__}) has "
            "no surgery rule"
        )
    for base in type(operation).__mro__:
        if base in _RULES:
            return _RULES[base]
        if not vars(base).keys().isdisjoint({"call", "convolution_op"}):
            break
    reason = "has no surgery rule (see `register_rule`)"
    if isinstance(operation, keras.Model):
        reason = "is a nested model"
    return _Blocking(f"{describe(operation)} {reason}")


def channel_count(shape: tuple[int | None, ...]) -> int:
    """Returns the size of the last axis, 0 for a scalar or an unknown size."""
    return (shape[-1] or 0) if shape else 0


def describe(operation: Any) -> str:
    """Returns `name (Class)`."""
    return f"{operation.name} ({type(operation).__name__})"


def float64_value(variable: Any) -> np.ndarray:
    """Returns a variable's value in float64."""
    return np.asarray(
        keras.ops.convert_to_numpy(variable.value), dtype="float64"
    )


def replay(node: CallNode, values: list[Values]) -> Values:
    """Runs a channelwise call on one position that holds `values`."""
    tensors = {
        id(symbol): keras.ops.convert_to_tensor(
            value.reshape((1,) * (len(symbol.shape) - 1) + (-1,)),
            dtype=symbol.dtype,
        )
        for symbol, value in zip(node.inputs, values, strict=True)
    }
    args, kwargs = keras.tree.map_structure(
        lambda leaf: tensors.get(id(leaf), leaf), (node.args, node.kwargs)
    )
    # `call`, not `__call__`: no new nodes in the user's graph. The scope
    # catches the losses and the state that a layer of the user may write.
    with keras.StatelessScope():
        output = node.operation.call(*args, **kwargs)
    return np.asarray(
        keras.ops.convert_to_numpy(output), dtype="float64"
    ).reshape(-1)
