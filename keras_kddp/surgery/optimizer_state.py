"""The state of an optimizer, carried through a removal."""

import warnings
from collections.abc import Iterable
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.cuts import Slices, take

_LOOKING_AT_MATRICES = (keras.optimizers.Adafactor, keras.optimizers.Muon)

Transfer = tuple[keras.Variable, keras.Variable, Slices]


def carry_optimizer(
    optimizer: keras.optimizers.Optimizer,
    transfers: Iterable[Transfer],
    trainable_variables: list[keras.Variable],
) -> keras.optimizers.Optimizer:
    """Returns a successor that goes on where an optimizer stopped.

    Iterations, learning rate or schedule, slots, moving averages, accumulated
    gradients and the loss scale are carried; slots are cut like the weights
    they belong to. Exact for elementwise optimizers and Lamb. Warns where it
    is not: Adafactor and Muon look at whole matrices.

    Args:
        optimizer: A built optimizer; left as it is.
        transfers: Old weight, new weight and kept indices, of every weight.
        trainable_variables: The new trainable weights, in training order.

    Returns:
        A built optimizer of the same class.
    """
    transfers = list(transfers)
    successor = _unbuilt_copy(optimizer, transfers)
    references = _build_recording(successor, trainable_variables)
    _warn_of_matrices(successor)
    _carry_variables(optimizer, successor, references, transfers)
    for old_part, new_part in zip(
        _parts(optimizer), _parts(successor), strict=True
    ):
        _carry_loose_variables(old_part, new_part)
    return successor


def clock_variables(optimizer: Any) -> list[keras.Variable]:
    """Returns the state of an optimizer that goes with time, not weights.

    Steps, learning rate and loss scale, in an order that is the same for two
    optimizers of one kind.
    """
    names = ("iteration", "learning_rate", "step_counter", "dynamic_scale")
    return [v for v in optimizer.variables if v.name in names]


def _parts(optimizer: Any) -> list[Any]:
    """Returns an optimizer and those that it delegates to."""
    inner = getattr(optimizer, "inner_optimizer", None)  # loss scale
    inside = getattr(optimizer, "optimizers", []) if inner is None else [inner]
    return [optimizer, *(part for x in inside for part in _parts(x))]


def _unbuilt_copy(optimizer: Any, transfers: list[Transfer]) -> Any:
    inner = getattr(optimizer, "inner_optimizer", None)
    scheduled = optimizer if inner is None else inner
    with _compat.hidden_schedule(scheduled) as schedule:
        config = optimizer.get_config()
    if inner is not None:
        config["inner_optimizer"] = _unbuilt_copy(inner, transfers)
        return type(optimizer)(**config)
    if schedule is not None:
        config["learning_rate"] = schedule
    successor = type(optimizer).from_config(config)
    pairs = [(old, new) for old, new, _ in transfers]
    _compat.carry_weight_decay_exclusions(optimizer, successor, pairs)
    return successor


def _build_recording(
    optimizer: Any, trainable_variables: list[keras.Variable]
) -> dict[int, keras.Variable]:
    """Builds an optimizer and learns which slot belongs to which weight.

    Returns:
        `id(slot) -> weight`.
    """
    references: dict[int, keras.Variable] = {}

    def recording(part: Any) -> Any:
        make = part.add_variable_from_reference

        def add(
            reference_variable: keras.Variable, *args: Any, **kwargs: Any
        ) -> keras.Variable:
            slot = make(reference_variable, *args, **kwargs)
            references[id(slot)] = reference_variable
            return slot

        return add

    parts = _parts(optimizer)
    for part in parts:
        part.add_variable_from_reference = recording(part)
    try:
        optimizer.build(trainable_variables)
    finally:
        for part in parts:
            del part.add_variable_from_reference
    return references


def _warn_of_matrices(optimizer: Any) -> None:
    """Warns where state is not exact, as of who replaced the student."""
    for part in _parts(optimizer):
        if isinstance(part, _LOOKING_AT_MATRICES):
            warnings.warn(
                f"The state of {type(part).__name__} goes on, but the removed "
                "units had a part in it that cannot be told apart: its next "
                "steps are not quite those of the larger student.",
                stacklevel=5,
            )


def _carry_variables(
    optimizer: Any,
    successor: Any,
    references: dict[int, keras.Variable],
    transfers: list[Transfer],
) -> None:
    """Gives a built successor the state of an optimizer, cut.

    Args:
        optimizer: What the state is of.
        successor: Its built successor.
        references: `id(slot) -> weight`, of the successor.
        transfers: Old weight, new weight and kept indices, of every weight.
    """
    references = dict(references)
    lacking: dict[int, int] = {}
    for part in _parts(successor):
        for slot, weight, axis in _compat.factored_slots(part):
            references[id(slot)], lacking[id(slot)] = weight, axis
    slices = {id(new): axes for _, new, axes in transfers}
    known = [
        variable
        for variable in successor.variables
        if id(references.get(id(variable), variable)) in slices
        or id(variable) not in references
    ]  # without slots of biases that folding added: they start fresh
    for old, new in zip(optimizer.variables, known, strict=True):
        reference = references.get(id(new))
        axes = slices[id(reference)] if reference is not None else {}
        axes = _without(axes, lacking.get(id(new)))
        new.assign(take(to_numpy(old), axes))


def _without(axes: Slices, lacking: int | None) -> Slices:
    """Returns the slices of an array that lacks one axis of a weight."""
    if lacking is None:
        return axes
    return {
        axis - (axis > lacking): kept
        for axis, kept in axes.items()
        if axis != lacking
    }


def _carry_loose_variables(old: Any, new: Any) -> None:
    """Carries state that an optimizer does not track (Nadam's product)."""
    tracked = {id(variable) for variable in old.variables}
    for name, value in vars(old).items():
        if isinstance(value, keras.Variable) and id(value) not in tracked:
            getattr(new, name).assign(to_numpy(value))
