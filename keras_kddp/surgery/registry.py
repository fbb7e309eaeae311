"""Which rule belongs to which layer class or raw operation."""

from collections.abc import Callable
from typing import Any

import keras

from keras_kddp.surgery.channels import Call, Channels, describe
from keras_kddp.surgery.rule import Rule

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


class BlockingRule(Rule):
    """Lets nothing through, and says why."""

    def __init__(self, reason: str) -> None:
        """Keeps what follows the name of the layer in the reason."""
        self.reason = reason

    def flow(self, call: Call) -> Channels:
        """Pins what the call reads, for the reason given."""
        return call.block(f"{describe(call.operation)} {self.reason}")


def block_class(layer_class: type, reason: str) -> None:
    """Says that a layer class lets nothing through for now, and why."""
    _RULES[layer_class] = BlockingRule(reason)


def rules() -> dict[type | str, Rule]:
    """Returns the rules, by layer class or name of a raw operation."""
    return dict(_RULES)


def rule_for(operation: Any) -> Rule:
    """Returns the rule of an operation; a blocking one where there is none.

    A subclass inherits the rule of its base only while it does not override
    `call`, nor `convolution_op`, which Keras offers for overriding: what a
    changed call does to channels is not known.
    """
    if not isinstance(operation, keras.layers.Layer):
        built_in = type(operation).__module__.startswith("keras.")
        rule = _RULES.get(type(operation).__name__) if built_in else None
        return rule or BlockingRule("has no surgery rule")
    if type(operation).__module__.startswith("keras.src.applications"):
        rule = _RULES.get(type(operation).__name__)  # no public class
        if rule:
            return rule
    for base in type(operation).__mro__:
        if base in _RULES:
            return _RULES[base]
        if not vars(base).keys().isdisjoint({"call", "convolution_op"}):
            break
    if isinstance(operation, keras.Model):
        return BlockingRule(
            "is a nested model that surgery cannot look into: it has a `call` "
            "or config of its own, or is called with tensors of another rank"
        )
    return BlockingRule("has no surgery rule (see `register_rule`)")
