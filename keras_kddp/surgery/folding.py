"""What removed units leave behind: constants, folded into biases."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np

from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.calls import layers_by_path
from keras_kddp.surgery.checks import variable_named
from keras_kddp.surgery.constant_walk import Constants, ConstantWalk
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.rule import Precision, Values


def of_leaving_units(
    constants: Constants, units: Mapping[str, Sequence[int]]
) -> dict[str, dict[int, float]]:
    """Returns the constants of the units that leave."""
    return {
        name: {unit: x for unit, x in values.items() if unit in units[name]}
        for name, values in constants.items()
        if name in units
    }


def raise_biases(
    model: keras.Model,
    new_model: keras.Model,
    increments: Mapping[str, Sequence[float]],
    removed: Mapping[str, Sequence[int]],
) -> None:
    """Adds to biases what the removed units leave behind.

    Args:
        model: The model as it was.
        new_model: The model without the units, its weights taken over; changed.
        increments: Layer name -> what its bias gains, one number per unit of
            the layer as it was.
        removed: Layer name -> indices of the units that went.
    """
    old_layers, new_layers = layers_by_path(model), layers_by_path(new_model)
    for name, gained in increments.items():
        gone = set(removed.get(name, ()))
        kept = [g for i, g in enumerate(gained) if i not in gone]
        had_bias = any(v.name == "bias" for v in old_layers[name].weights)
        bias = variable_named(new_layers[name], "bias")
        # A gained bias holds what its initializer drew.
        bias.assign((to_numpy(bias) if had_bias else 0) + np.asarray(kept))


class Folding(NamedTuple):
    """The outcome of holding groups of units at constants.

    Attributes:
        increments: Layer name -> what its bias gains, (units,) float64.
        refusals: Group number -> why its constant cannot be folded.
        errors: Layer name -> how far an approximate fold is off at most,
            before the layer's activation.
        precisions: Group number -> how exact its fold is in training, where
            that is not exactly.
        unsettled: Groups refused only since moving averages lag behind.
    """

    increments: dict[str, Values]
    refusals: dict[int, str]
    errors: dict[str, float]
    precisions: dict[int, Precision]
    unsettled: frozenset[int] = frozenset()


def fold_constants(
    graph: ChannelGraph,
    removed: set[int],
    constants: Constants,
    *,
    training: bool,
    approximate: bool = False,
) -> Folding:
    """Follows held units to their consumers.

    The observed tensors of the removed units are held at `constants` (0 by
    default), and everything behind them is computed from there. In training
    the mean counts where there is noise: folded into the bias of a layer, it
    is the mean of what the layer hands to its activation.

    Args:
        graph: The channels of the model.
        removed: Numbers of the groups that go.
        constants: Layer name -> unit -> value at the observation point.
        training: Also refuse what is exact at inference only.
        approximate: Fold what is exact but for the border of an image too.

    Returns:
        The increments of the consumers' biases, and what was refused.
    """
    walk = ConstantWalk(graph, removed, constants, approximate=approximate)
    if not training:
        return Folding(walk.increments, walk.refusals, walk.errors, {})
    trained = ConstantWalk(graph, removed, constants, training=True)
    refusals = trained.refusals | walk.refusals
    for_good = set(trained.refusals)
    for key, values in walk.arriving.items():
        other = trained.arriving[key]
        for position in np.flatnonzero(~np.isclose(values, other, 1e-6)):
            group = int(walk.arriving_groups[key][position])
            refusals.setdefault(
                group,
                "the constant it leaves behind is "
                f"{other[position]:.4g} in training and "
                f"{values[position]:.4g} at inference",
            )
    return Folding(
        walk.increments,
        refusals,
        walk.errors,
        trained.precisions,
        frozenset(set(refusals) - for_good),
    )
