"""The optimizer that follows another one, for the weights of a copy."""

from typing import Any

import keras

from keras_kddp._compat.optimizers import (
    carry_weight_decay_exclusions,
    hidden_schedule,
    optimized_weights,
)
from keras_kddp.surgery.bias_folds import RaisedBias
from keras_kddp.surgery.cuts import Slices

Transfer = tuple[keras.Variable, keras.Variable, Slices]
"""Old weight, new weight and kept indices."""


def clock_variables(optimizer: Any) -> list[keras.Variable]:
    """Returns the state of an optimizer that goes with time, not weights.

    Steps, learning rate and loss scale, in an order that is the same for two
    optimizers of one kind.
    """
    names = ("iteration", "learning_rate", "step_counter", "dynamic_scale")
    return [v for v in optimizer.variables if v.name in names]


def optimizer_parts(optimizer: Any) -> list[Any]:
    """Returns an optimizer and those that it delegates to, in one order."""
    inner = getattr(optimizer, "inner_optimizer", None)  # loss scale
    inside = getattr(optimizer, "optimizers", []) if inner is None else [inner]
    return [optimizer, *(part for x in inside for part in optimizer_parts(x))]


def loose_variables(part: Any) -> list[keras.Variable]:
    """Returns state that an optimizer does not track (Nadam's product).

    Args:
        part: One of `optimizer_parts`.
    """
    tracked = {id(variable) for variable in part.variables}
    return [
        value
        for _, value in sorted(vars(part).items())
        if isinstance(value, keras.Variable) and id(value) not in tracked
    ]


def all_variables(optimizer: Any) -> list[keras.Variable]:
    """Returns the whole state of an optimizer, tracked or not."""
    loose = {
        id(v): v
        for part in optimizer_parts(optimizer)
        for v in loose_variables(part)
    }
    tracked = {id(v) for v in optimizer.variables}
    return [
        *optimizer.variables,
        *(v for key, v in loose.items() if key not in tracked),
    ]


def built_successor(
    optimizer: Any,
    transfers: list[Transfer],
    trainable_variables: list[keras.Variable],
    biases: list[RaisedBias],
) -> Any:
    """Returns a built optimizer that has yet to be given its state.

    Args:
        optimizer: A built optimizer; left as it is.
        transfers: Those of every weight.
        trainable_variables: The new trainable weights, in training order.
        biases: Biases of the new weights that the old ones lack.
    """
    successor = unbuilt_successor(optimizer, transfers, biases)
    successor.build(
        optimized_successors(optimizer, transfers, trainable_variables, biases)
    )
    return successor


def unbuilt_successor(
    optimizer: Any, transfers: list[Transfer], biases: list[RaisedBias]
) -> Any:
    """Returns an optimizer of the same class and settings."""
    inner = getattr(optimizer, "inner_optimizer", None)
    scheduled = optimizer if inner is None else inner
    with hidden_schedule(scheduled) as schedule:
        config = optimizer.get_config()
    if inner is not None:
        config["inner_optimizer"] = unbuilt_successor(inner, transfers, biases)
        return type(optimizer)(**config)
    if schedule is not None:
        config["learning_rate"] = schedule
    successor = type(optimizer).from_config(config)
    pairs = [(old, new) for old, new, _ in transfers]
    for raised in biases:  # a new bias decays where its kernel does
        if raised.is_new:
            pairs += [(old, raised.bias) for old, _ in raised.weights]
    for old, new in zip(
        optimizer_parts(optimizer), optimizer_parts(successor), strict=True
    ):
        carry_weight_decay_exclusions(old, new, pairs)
    return successor


def optimized_successors(
    optimizer: Any,
    transfers: list[Transfer],
    trainable_variables: list[keras.Variable],
    biases: list[RaisedBias],
) -> list[keras.Variable]:
    """Returns what a successor is built for, in training order.

    The successors of all weights that the optimizer was built for, some of
    which may be frozen by now, and the biases that folding adds to them.
    """
    successors = {id(old): new for old, new, _ in transfers}
    weights = [
        successors[id(weight)]
        for weight in optimized_weights(optimizer)
        if id(weight) in successors  # else it is refused for its slots
    ]
    for raised in biases:
        places = [
            place + 1
            for place, weight in enumerate(weights)
            if any(weight is new for _, new in raised.weights)
        ]
        if raised.is_new and places:
            weights.insert(max(places), raised.bias)
    if {*map(id, weights)} == {*map(id, trainable_variables)}:
        return trainable_variables
    return weights
