"""Which units of a student leave, decided for whole groups."""

from collections.abc import Iterable, Mapping

import numpy as np

from keras_kddp.pruning.activity import UnitActivity
from keras_kddp.pruning.criteria import Criterion
from keras_kddp.surgery.folding import Constants, fold_constants
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.norms import outgoing_norms


def group_scores(
    graph: ChannelGraph,
    activity: Mapping[str, UnitActivity],
    criterion: Criterion,
    constants: Constants | None = None,
    *,
    balanced: bool = False,
) -> dict[int, float]:
    """Returns the score of each group of units that may leave.

    Args:
        graph: The channels of the student.
        activity: Layer name -> statistics, of the layers that may shrink.
        criterion: Scores the units of a layer.
        constants: Layer name -> unit -> the value that it always has: such a
            unit tells nothing, and scores 0.
        balanced: Divide the scores of a layer by their sum, to rank the units
            of several layers: of two layers, one in eight units is more than
            one in eighty.

    Returns:
        Group number -> score in [0, 1]: the maximum over its units, since a
        group is inactive only where every observation point is.

    Raises:
        ValueError: If the criterion returns anything else.
    """
    norms = outgoing_norms(graph)
    values: dict[str, np.ndarray] = {}
    for name, statistics in activity.items():
        if not np.isfinite(statistics.mean_abs).all():
            raise ValueError(
                f"The activity of layer '{name}' must be finite. Received NaN "
                "or infinite activations. Look for NaN in the data that are "
                "observed and in the weights."
            )
        values[name] = np.asarray(criterion(statistics, norms[name]))
        _check_scores(name, values[name], len(graph.units[name]))
        silent = list((constants or {}).get(name, {}))
        values[name] = np.where(
            np.isin(np.arange(len(values[name])), silent), 0, values[name]
        )
        if balanced:
            values[name] = values[name] / (values[name].sum() or 1.0)
    return group_maxima(graph, values)


def group_maxima(
    graph: ChannelGraph, values: Mapping[str, np.ndarray]
) -> dict[int, float]:
    """Returns the largest value in each group of units that may leave.

    Args:
        graph: The channels of the student.
        values: Layer name -> (units,), of the layers that may shrink.

    Returns:
        Group number -> value, of the groups that lie in these layers alone.
    """
    largest: dict[int, float] = {}
    for name, numbers in values.items():
        roots = graph.roots[graph.units[name]].tolist()
        for root, value in zip(roots, numbers.tolist(), strict=True):
            largest[root] = max(largest.get(root, value), value)
    groups = graph.groups()
    return {
        root: value
        for root, value in largest.items()
        if not groups[root].reason
        and all(name in values for name, _ in groups[root].members)
    }


def _check_scores(name: str, scores: np.ndarray, units: int) -> None:
    in_range = (scores >= 0) & (scores <= 1)  # False for NaN
    if scores.shape != (units,) or not in_range.all():
        raise ValueError(
            f"`criterion` must return one score in [0, 1] a unit, ({units},). "
            f"Received for layer '{name}': {scores}."
        )


def removal_order(
    graph: ChannelGraph,
    scores: Mapping[int, float],
    widths: Mapping[str, int],
    constants: Constants | None = None,
) -> list[int]:
    """Returns the numbers of the groups that may leave, lowest score first.

    Any first part of them may leave alone. Groups that leave a constant behind
    which no bias can express in training and at inference alike are not among
    them.

    Args:
        graph: The channels of the student.
        scores: Group number -> score, of the groups to choose from.
        widths: Layer name -> units that stay at least, of all their layers.
        constants: Layer name -> unit -> what its activity is held at; 0 where
            nothing is said.
    """
    refused = fold_constants(
        graph, set(scores), constants or {}, training=True
    ).refusals
    groups = graph.groups()
    left = {name: len(labels) for name, labels in graph.units.items()}
    order = []
    for root in sorted(set(scores) - set(refused), key=scores.__getitem__):
        members = groups[root].members
        if any(left[name] <= widths[name] for name, _ in members):
            continue
        for name, _ in members:
            left[name] -= 1
        order.append(root)
    return order


def units_of(graph: ChannelGraph, roots: Iterable[int]) -> dict[str, list[int]]:
    """Returns the units of groups: layer name -> indices."""
    groups = graph.groups()
    units: dict[str, list[int]] = {}
    for root in roots:
        for name, unit in groups[root].members:
            units.setdefault(name, []).append(unit)
    return units


def lowest_units(
    graph: ChannelGraph, scores: Mapping[int, float], widths: Mapping[str, int]
) -> dict[str, list[int]]:
    """Returns the units of as many groups as may leave, lowest score first.

    Args:
        graph: The channels of the student.
        scores: Group number -> score, of the groups that may leave.
        widths: Layer name -> units that stay at least, of all their layers.

    Returns:
        Layer name -> unit indices, in whole groups.
    """
    return units_of(graph, removal_order(graph, scores, widths))
