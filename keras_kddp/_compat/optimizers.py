"""Every private call of Keras' optimizers, with the reason for it."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras


@contextlib.contextmanager
def hidden_schedule(optimizer: keras.optimizers.Optimizer) -> Iterator[Any]:
    """Hides the schedule of an optimizer from its `get_config`.

    The public `learning_rate` only tells the current value, and `get_config`
    serializes: a schedule of the user's own class need not be serializable,
    and a lambda warns.

    Yields:
        The schedule or callable; None where the rate is a number.
    """
    rate = optimizer._learning_rate
    if isinstance(rate, keras.Variable):
        yield None
        return
    optimizer._learning_rate = keras.ops.convert_to_tensor(0.5)
    try:
        yield rate
    finally:
        optimizer._learning_rate = rate


def factored_slots(
    optimizer: keras.optimizers.Optimizer,
) -> Iterator[tuple[keras.Variable, keras.Variable, tuple[int, ...]]]:
    """Yields the slots of Adafactor that leave out axes of their weight.

    They are in the private `_r` and `_c`, in the order of the private
    `_trainable_variables`, and made without a reference to the weight. Those
    of a bias are there too, single numbers that nobody reads.

    Args:
        optimizer: Any built optimizer.

    Yields:
        The slot, its weight, and the axes of the weight that it lacks.
    """
    if not isinstance(optimizer, keras.optimizers.Adafactor):
        return
    weights = optimizer._trainable_variables
    for weight, rows, columns in zip(
        weights, optimizer._r, optimizer._c, strict=True
    ):
        rank = len(weight.shape)
        yield rows, weight, (rank - 1,) if rank > 1 else (0,)
        yield columns, weight, (rank - 2,) if rank > 1 else (0,)


def optimized_weights(
    optimizer: keras.optimizers.Optimizer,
) -> list[keras.Variable]:
    """Returns the weights that an optimizer was built for, in its order.

    What a model trains may have changed since; only the private
    `_trainable_variables` say what the state is of.
    """
    return list(optimizer._trainable_variables)


def decays(
    optimizer: keras.optimizers.Optimizer, weight: keras.Variable
) -> bool:
    """Says whether an optimizer lets a weight decay.

    `exclude_from_weight_decay` has no getter. `_use_weight_decay` keeps what
    it says, so it must be asked for what a step asks for: on TensorFlow the
    variable inside, whose name is a path.
    """
    if not optimizer.weight_decay:
        return False
    is_inside = keras.backend.backend() == "tensorflow"
    asked: Any = weight.value if is_inside else weight
    return bool(optimizer._use_weight_decay(asked))


def carry_weight_decay_exclusions(
    old: keras.optimizers.Optimizer,
    new: keras.optimizers.Optimizer,
    pairs: Iterable[tuple[keras.Variable, keras.Variable]],
) -> None:
    """Excludes the same weights from weight decay in a new optimizer.

    `exclude_from_weight_decay` writes private attributes and there is no
    getter. What it knows a weight by differs from backend to backend:
    `_var_key` says it.

    Args:
        old: The optimizer in use.
        new: Its unbuilt successor.
        pairs: Each old weight and its successor.
    """
    excluded: set[Any] = getattr(old, "_exclude_from_weight_decay", set())
    new._exclude_from_weight_decay = {
        new._var_key(successor)
        for weight, successor in pairs
        if excluded and old._var_key(weight) in excluded
    }
    new._exclude_from_weight_decay_pattern = getattr(
        old, "_exclude_from_weight_decay_pattern", None
    )
