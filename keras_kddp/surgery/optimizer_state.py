"""The state of an optimizer, carried through a removal."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import keras

from keras_kddp._compat.optimizers import factored_slots
from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.bias_folds import BiasFolds
from keras_kddp.surgery.cuts import Slices, take
from keras_kddp.surgery.folded_slots import FoldedSlots, Slot
from keras_kddp.surgery.optimizer_folds import fold_averages, fold_into
from keras_kddp.surgery.optimizer_successors import (
    Transfer,
    loose_variables,
    optimized_successors,
    optimizer_parts,
    unbuilt_successor,
)

_LOOKING_AT_MATRICES = (keras.optimizers.Adafactor, keras.optimizers.Muon)

_UNKNOWN_SLOTS = (
    "An optimizer must say which weight each slot belongs to, or it cannot be "
    "cut with it. Received: {}, whose slots have no weight of their shape, or "
    "several. Make them in its `build` by `add_variable_from_reference`."
)


def carry_optimizer(
    optimizer: keras.optimizers.Optimizer,
    transfers: Iterable[Transfer],
    trainable_variables: list[keras.Variable],
    folds: BiasFolds,
) -> keras.optimizers.Optimizer:
    """Returns a successor that goes on where an optimizer stopped.

    Iterations, learning rate or schedule, slots, moving averages, accumulated
    gradients and the loss scale are carried; slots are cut like the weights
    they belong to. Exact for elementwise optimizers and Lamb. Warns where it
    is not: Adafactor and Muon look at whole matrices. What constants in biases
    mean for each optimizer is in `optimizer_folds`.

    Args:
        optimizer: A built optimizer; left as it is.
        transfers: Old weight, new weight and kept indices, of every weight.
        trainable_variables: The new trainable weights, in training order.
        folds: What the removal folds into biases.

    Returns:
        A built optimizer of the same class, for the successors of all weights
        that the old one was built for, and for new biases.

    Raises:
        ValueError: If it cannot be told what belongs to which weight.
    """
    transfers = list(transfers)
    successor = unbuilt_successor(optimizer, transfers, folds.biases)
    weights = optimized_successors(
        optimizer, transfers, trainable_variables, folds.biases
    )
    made = _build_recording(successor, weights)
    for part in optimizer_parts(successor):
        if isinstance(part, _LOOKING_AT_MATRICES):
            _warn(
                part,
                "the removed units had a part in it that cannot be told apart",
            )
    slots = _carry_variables(optimizer, successor, made, transfers)
    every = []
    for old, new in zip(
        optimizer_parts(optimizer), optimizer_parts(successor), strict=True
    ):
        for state, successor_state in zip(
            loose_variables(old), loose_variables(new), strict=True
        ):
            successor_state.assign(to_numpy(state))
        if len(optimizer_parts(new)) == 1:  # it delegates to no other
            every.append(FoldedSlots(old, new, slots, folds))
    if not folds.biases:
        return successor
    fold_averages(every, folds)
    for part in every:
        for reason in fold_into(part):
            _warn(part.optimizer, f"it takes in a constant and {reason}")
    return successor


def _warn(optimizer: Any, reason: str) -> None:
    """Warns where state is not exact, as of who replaced the student."""
    warnings.warn(
        f"The state of {type(optimizer).__name__} goes on, but {reason}: its "
        "next steps are not quite those of the larger student.",
        stacklevel=5,
    )


class _Made(NamedTuple):
    """A slot as an optimizer makes it."""

    name: str
    optimizer: Any
    weight: keras.Variable
    lacking: tuple[int, ...] = ()  # axes of the weight


def _build_recording(
    optimizer: Any, trainable_variables: list[keras.Variable]
) -> dict[int, _Made]:
    """Builds an optimizer and learns which slot belongs to which weight.

    Returns:
        `id(slot) -> how it was made`.
    """
    made: dict[int, _Made] = {}

    def recording(part: Any) -> Any:
        make = part.add_variable_from_reference

        def add(
            reference_variable: keras.Variable,
            name: str | None = None,
            *args: Any,
            **kwargs: Any,
        ) -> keras.Variable:
            slot = make(reference_variable, name, *args, **kwargs)
            made[id(slot)] = _Made(name or "", part, reference_variable)
            return slot

        return add

    parts = optimizer_parts(optimizer)
    for part in parts:
        part.add_variable_from_reference = recording(part)
    try:
        optimizer.build(trainable_variables)
    finally:
        for part in parts:
            del part.add_variable_from_reference
    for part in parts:
        for slot, weight, lacking in factored_slots(part):
            made[id(slot)] = _Made("", part, weight, lacking)
    return made


def _carry_variables(
    optimizer: Any,
    successor: Any,
    made: Mapping[int, _Made],
    transfers: list[Transfer],
) -> list[Slot]:
    """Gives a built successor the state of an optimizer, cut.

    Args:
        optimizer: What the state is of.
        successor: Its built successor.
        made: How the slots of the successor were made.
        transfers: Old weight, new weight and kept indices, of every weight.

    Returns:
        The slots.
    """
    origins = {id(new): (old, axes) for old, new, axes in transfers}
    added = {
        slot for slot, how in made.items() if id(how.weight) not in origins
    }  # those of biases that folding adds
    carried = [x for x in successor.variables if id(x) not in added]
    if len(carried) != len(optimizer.variables):
        raise ValueError(_UNKNOWN_SLOTS.format(type(optimizer).__name__))
    before = {}
    for old, new in zip(optimizer.variables, carried, strict=True):
        how = made.get(id(new))
        if how is None:
            axes = _axes_by_shape(optimizer, old, new, transfers)
        else:
            axes = _without(origins[id(how.weight)][1], how.lacking)
        new.assign(take(to_numpy(old), axes))
        before[id(new)] = old
    slots = []
    for variable in successor.variables:
        if how := made.get(id(variable)):
            old_weight, _ = origins.get(id(how.weight), (None, {}))
            old = before.get(id(variable))
            slots.append(
                Slot(
                    how.name,
                    how.optimizer,
                    how.weight,
                    variable,
                    old_weight,
                    old,
                )
            )
    return slots


def _axes_by_shape(
    optimizer: Any,
    old: keras.Variable,
    new: keras.Variable,
    transfers: list[Transfer],
) -> Slices:
    """Returns how to cut what was made without saying for which weight.

    Raises:
        ValueError: If no weight is cut from the one shape to the other, or
            two are, in different places.
    """
    if old.shape == new.shape:
        return {}
    fitting = [
        axes
        for weight, successor, axes in transfers
        if weight.shape == old.shape and successor.shape == new.shape
    ]
    if not fitting or any(axes != fitting[0] for axes in fitting):
        raise ValueError(_UNKNOWN_SLOTS.format(type(optimizer).__name__))
    return fitting[0]


def _without(axes: Slices, lacking: tuple[int, ...]) -> Slices:
    """Returns the slices of an array that lacks axes of a weight."""
    return {
        axis - sum(gone < axis for gone in lacking): kept
        for axis, kept in axes.items()
        if axis not in lacking
    }
