"""How each optimizer goes on with a bias that took a constant in.

The larger model is one in which no gradient reaches the weights behind a held
unit any more. What they go on doing is what the optimizer does without one, by
momentum, decay or averaging, and the bias has to do it in their place:

- SGD, RMSprop, Adagrad, Adadelta, ScheduleFreeAdamW, moving averages and weight
  decay are linear in what they keep: exact, whatever gradients follow. So is
  Ftrl without l1, l2 and shrinkage.
- Adam, AdamW, Nadam and Adamax divide the momentum by what later gradients
  change: exact until these come, and the momentum fades in a few steps. Ftrl
  with l1 or l2 pulls a weight to 0, the bias and the constant in it at once:
  exact until gradients come.
- Of a unit's bias that was not there, the larger model knows nothing. It gets a
  slot as the other weights of the unit have it on average.
- A regularizer is a gradient that each weight has of its own. L2 of the same
  strength on kernel and bias is linear: exact where the steps are, in SGD.
- The rest is warned of, a constraint of the bias among it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_kddp._compat.optimizers import decays
from keras_kddp.surgery.bias_folds import BiasFolds, RaisedBias
from keras_kddp.surgery.folded_slots import FoldedSlots

optimizers = keras.optimizers

_ACCUMULATED = "gradient_accumulator"


def fold_averages(every: list[FoldedSlots], folds: BiasFolds) -> None:
    """Folds into moving averages what the averaged model would fold.

    Args:
        every: The slots of each optimizer.
        folds: The folds.
    """
    averages = [pair for slots in every for pair in slots.averages()]
    if not averages:
        return
    gained = folds.increments(averages)
    for slots in every:
        slots.add("average", gained)


def fold_into(slots: FoldedSlots) -> Iterator[str]:
    """Has one optimizer go on with the biases.

    Yields:
        What is not exact, each as the rest of a sentence about the optimizer.
    """
    optimizer = slots.optimizer
    kind = _known_kind(optimizer)
    if kind is not None:
        _TAKERS[kind](slots)
    elif slots.kept:
        yield "moves biases in a way of its own, which is not known"
    if kind in _NOT_EXACT:
        yield _NOT_EXACT[kind]
    if any(value.any() for value in slots.old_values(_ACCUMULATED).values()):
        if kind is optimizers.SGD and not _clips(optimizer):
            slots.add(_ACCUMULATED)
        else:
            yield "has accumulated gradients, which it does not just add up"
    if getattr(optimizer, "l2_shrinkage_regularization_strength", 0):
        yield "shrinks each weight by its own slots"
    yield from _kernels(slots)


def _clips(optimizer: Any) -> bool:
    names = ("clipnorm", "clipvalue", "global_clipnorm")
    return any(getattr(optimizer, name) for name in names)


def _kernels(slots: FoldedSlots) -> Iterator[str]:
    """Yields what of the kernels cannot be carried into a bias."""
    layers: dict[str, list[str]] = {}
    for raised in slots.biases:
        for reason in _inexact(slots, raised):
            layers.setdefault(reason, []).append(raised.layer)
    for reason, names in layers.items():
        yield reason.format(names)


def _inexact(slots: FoldedSlots, raised: RaisedBias) -> Iterator[str]:
    """Yields why a bias does not go on as what it took in, "{}" for a list."""
    weights = [weight for _, weight in raised.weights]
    if not all(map(slots.trains, weights)):
        yield "does not train the kernels of {}"
        return
    decay = {decays(slots.successor, weight) for weight in weights}
    is_moved = slots.kept or slots.averages() or True in decay
    if len(weights) > 1 and is_moved:
        yield "moves two kernels of {}, whose product counts"
    # Weights that are not trained do not decay either.
    if (decay or {False}) != {decays(slots.successor, raised.bias)}:
        yield "lets one of kernel and bias decay, not both, in {}"
    if not _are_pulled_alike(slots.optimizer, [*weights, raised.bias]):
        yield "regularizers pull kernel and bias differently in {}"
    if raised.bias.constraint is not None:
        yield "the bias_constraint changes the constant in {}"


def _are_pulled_alike(optimizer: Any, weights: list[keras.Variable]) -> bool:
    """Says whether regularizers pull a bias as they pull what it took in."""
    found = [weight.regularizer for weight in weights]
    if not any(found):
        return True
    is_linear = type(optimizer) is optimizers.SGD and not _clips(optimizer)
    strengths = {
        float(one.l2) if type(one) is keras.regularizers.L2 else None
        for one in found
    }
    return is_linear and len(strengths) == 1 and None not in strengths


def _take_sgd(slots: FoldedSlots) -> None:
    slots.add("momentum")


def _take_rmsprop(slots: FoldedSlots) -> None:
    slots.estimate("velocity")
    slots.add("momentum")


def _take_adagrad(slots: FoldedSlots) -> None:
    slots.estimate("accumulator")


def _take_adadelta(slots: FoldedSlots) -> None:
    slots.estimate("accumulated_grad", "accumulated_delta_var")


def _take_adam(slots: FoldedSlots) -> None:
    adam = slots.optimizer
    slots.estimate("velocity", "velocity_hat")
    if getattr(adam, "amsgrad", False):
        slots.add_steps("velocity_hat", lambda v: np.sqrt(v) + adam.epsilon)
    else:
        slots.add_steps(
            "velocity", lambda v: np.sqrt(adam.beta_2 * v) + adam.epsilon
        )


def _take_nadam(slots: FoldedSlots) -> None:
    nadam = slots.optimizer
    correction = 1 - nadam.beta_2 ** (int(nadam.iterations) + 1)
    slots.estimate("velocity")
    slots.add_steps(
        "velocity",
        lambda v: np.sqrt(nadam.beta_2 * v / correction) + nadam.epsilon,
    )


def _take_adamax(slots: FoldedSlots) -> None:
    adamax = slots.optimizer
    slots.estimate("norm")
    slots.add_steps("norm", lambda u: adamax.beta_2 * u + adamax.epsilon)


def _take_schedule_free(slots: FoldedSlots) -> None:
    """Takes in the sequence z that gradients move, kept as "momentum"."""
    slots.estimate("velocity")
    slots.add("momentum", slots.gains(slots.old_values("momentum")))


def _take_ftrl(slots: FoldedSlots) -> None:
    """Finds the sum of gradients that makes the bias what it has to be.

    Ftrl makes a weight anew at each step, w = (clip(z) - z) / q.
    """
    ftrl = slots.optimizer
    rate = float(keras.ops.convert_to_numpy(ftrl.learning_rate))
    l1 = ftrl.l1_regularization_strength
    l2 = ftrl.l2_regularization_strength + ftrl.beta / (2 * rate)

    def quadratic(squares: np.ndarray) -> np.ndarray:
        return np.asarray(squares**-ftrl.learning_rate_power / rate + 2 * l2)

    def weight(linear: np.ndarray, squares: np.ndarray) -> np.ndarray:
        shrunk = np.clip(linear, -l1, l1) - linear
        scale = quadratic(squares)
        return np.divide(shrunk, scale, np.zeros_like(scale), where=scale > 0)

    slots.estimate("accumulator")
    squares = slots.old_values("accumulator")
    linears = slots.old_values("linear")
    following = {w: weight(linears[w], squares[w]) for w in linears}
    gained = slots.gains(following)
    accumulated = {
        raised.layer: value
        for raised, _, value in slots.bias_slots("accumulator")
    }
    for raised, slot, linear in slots.bias_slots("linear"):
        sums = accumulated[raised.layer]
        wanted = weight(linear, sums) + gained.get(raised.layer, 0.0)
        shifted = -(quadratic(sums) * wanted + np.sign(wanted) * l1)
        at_rest = np.clip(linear, -l1, l1)
        slot.assign(np.where(wanted == 0, at_rest, shifted))


_TAKERS: dict[type, Callable[[FoldedSlots], None]] = {
    optimizers.Adadelta: _take_adadelta,
    optimizers.Adafactor: lambda slots: slots.estimate("velocity"),
    optimizers.Adagrad: _take_adagrad,
    optimizers.Adam: _take_adam,
    optimizers.AdamW: _take_adam,
    optimizers.Adamax: _take_adamax,
    optimizers.Ftrl: _take_ftrl,
    optimizers.Lamb: lambda slots: slots.estimate("velocity"),
    optimizers.Lion: lambda slots: None,
    optimizers.Muon: lambda slots: None,
    optimizers.Nadam: _take_nadam,
    optimizers.RMSprop: _take_rmsprop,
    optimizers.SGD: _take_sgd,
    optimizers.ScheduleFreeAdamW: _take_schedule_free,
}
_NOT_EXACT: dict[type | None, str] = {
    optimizers.Lamb: "moves a bias by how large it is as a whole",
    optimizers.Lion: "moves by the sign of a momentum, of which a bias has one",
}


def _known_kind(optimizer: Any) -> type | None:
    """Returns the class of Keras that says how an optimizer moves.

    None for one of the user's own; a subclass that keeps and moves the same is
    what it comes from.
    """
    kind = type(optimizer)
    for base in kind.__mro__:
        if base in _TAKERS:
            known: Any = base
            is_same = (
                kind.update_step is known.update_step
                and kind.build is known.build
            )
            return known if is_same else None
    return None
