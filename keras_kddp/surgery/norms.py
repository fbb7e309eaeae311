"""How large the weights are that units are read through, and read with."""

import numpy as np

from keras_kddp.surgery.checks import variable_named
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.rule import float64_value


def outgoing_norms(graph: ChannelGraph) -> dict[str, np.ndarray]:
    """Returns the norm of the weights that read each unit's group.

    Args:
        graph: The channels of a model.

    Returns:
        Layer name -> (units,) float64; Euclidean, over every kernel that
        reads the unit or one that it leaves together with.
    """
    squares = np.zeros(graph.records.size)
    for name, variable, axis in sorted(graph.records.consumed):
        labels = graph.records.slices[name][variable, axis]
        np.add.at(
            squares,
            graph.group_numbers[labels],
            _square_sums(graph, name, variable, axis),
        )
    return {
        name: np.sqrt(squares[graph.group_numbers[labels]])
        for name, labels in graph.units.items()
    }


def incoming_norms(graph: ChannelGraph) -> dict[str, np.ndarray]:
    """Returns the norm of the weights that each unit reads its input with.

    Args:
        graph: The channels of a model.

    Returns:
        Layer name -> (units,) float64; Euclidean, without the bias.
    """
    return {
        name: np.sqrt(
            sum(
                _square_sums(graph, name, variable, axis)
                for (variable, axis), found in slices.items()
                if found is graph.units[name] and axis > 0
            )
            + np.zeros(len(graph.units[name]))
        )
        for name, slices in graph.records.slices.items()
        if name in graph.units
    }


def _square_sums(
    graph: ChannelGraph, name: str, variable: str, axis: int
) -> np.ndarray:
    """Returns the sum of squares of a weight for each entry of an axis."""
    value = float64_value(variable_named(graph.operation(name), variable))
    others = tuple(i for i in range(value.ndim) if i != axis)
    return np.asarray(np.square(value).sum(axis=others))
