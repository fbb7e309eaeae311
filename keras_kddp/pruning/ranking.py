"""Which units of a student leave first, decided for whole groups."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import keras
import numpy as np

from keras_kddp.pruning.activity import UnitActivity
from keras_kddp.pruning.criteria import Criterion
from keras_kddp.surgery.constant_walk import Constants
from keras_kddp.surgery.folding import fold_constants, of_leaving_units
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.norms import outgoing_norms
from keras_kddp.surgery.plan import RemovalPlan, plan_on


@dataclass(frozen=True, eq=False)
class Ranking:
    """The groups of units that may leave a student, the first to go first.

    Any of them may leave, alone or together: so may the first `count`, which
    is what its methods are asked for.

    Attributes:
        graph: The channels of the student.
        order: Numbers of the groups.
        constants: Layer name -> unit -> what its activity is held at when it
            leaves; 0 where nothing is said.
        refused: Group number -> why it is not among them, where what it
            leaves behind cannot be folded.
    """

    graph: ChannelGraph
    order: tuple[int, ...]
    constants: Constants = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Returns the number of groups that may leave."""
        return len(self.order)

    def units(self, count: int) -> dict[str, list[int]]:
        """Returns the units of the first groups: layer name -> indices."""
        groups = self.graph.groups()
        units: dict[str, list[int]] = {}
        for group in self.order[:count]:
            for name, unit in groups[group].members:
                units.setdefault(name, []).append(unit)
        return units

    def plan(self, count: int) -> RemovalPlan:
        """Returns the removal of the first groups."""
        units = self.units(count)
        constants = of_leaving_units(self.constants, units)
        return plan_on(self.graph, units, constants=constants)

    def student(self, count: int) -> keras.Model:
        """Returns the student without the first groups.

        It is the student itself where nothing leaves.
        """
        return self.plan(count).build() if count else self.graph.model

    def led_by(self, groups: Iterable[int]) -> "Ranking":
        """Returns the ranking in which some of the groups go first.

        Args:
            groups: Numbers out of `order`, in the order in which they go.
        """
        first = dict.fromkeys(groups)
        others = (group for group in self.order if group not in first)
        return replace(self, order=(*first, *others))


def rank_groups(
    graph: ChannelGraph,
    scores: Mapping[int, float],
    widths: Mapping[str, int],
    constants: Constants | None = None,
) -> Ranking:
    """Returns the groups that may leave, lowest score first.

    Groups that leave a constant behind which no bias can express in training
    and at inference alike are not among them.

    Args:
        graph: The channels of the student.
        scores: Group number -> score, of the groups to choose from.
        widths: Layer name -> units that stay at least, of all their layers.
        constants: Layer name -> unit -> what its activity is held at; 0 where
            nothing is said.
    """
    constants = constants or {}
    refused = fold_constants(
        graph, set(scores), constants, training=True
    ).refusals
    groups = graph.groups()
    left = {name: len(labels) for name, labels in graph.units.items()}
    order = []
    for group in sorted(set(scores) - set(refused), key=scores.__getitem__):
        members = groups[group].members
        if any(left[name] <= widths[name] for name, _ in members):
            continue
        for name, _ in members:
            left[name] -= 1
        order.append(group)
    return Ranking(graph, tuple(order), constants, refused)


def foldable_constants(
    graph: ChannelGraph,
    constants: Constants,
    layers: Iterable[str],
) -> tuple[Constants, dict[int, str]]:
    """Returns the constants that biases can express.

    A unit of another constant has to be judged like one that varies: it may
    be negligible.

    Args:
        graph: The channels of the student.
        constants: Layer name -> unit -> what its activity is held at.
        layers: Names of the layers that may shrink.

    Returns:
        The constants of the others, and group number -> why it has none.
    """
    movable = group_maxima(
        graph, {name: np.zeros(len(graph.units[name])) for name in layers}
    )
    refused = fold_constants(
        graph, set(movable), constants, training=True
    ).refusals
    kept: dict[str, dict[int, float]] = {}
    unfoldable: dict[int, str] = {}
    for name, values in constants.items():
        for unit, value in values.items():
            group = int(graph.group_numbers[graph.units[name][unit]])
            if group in refused:
                unfoldable[group] = refused[group]
            else:
                kept.setdefault(name, {})[unit] = value
    return kept, unfoldable


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
        own_groups = graph.group_numbers[graph.units[name]].tolist()
        for group, value in zip(own_groups, numbers.tolist(), strict=True):
            largest[group] = max(largest.get(group, value), value)
    groups = graph.groups()
    return {
        group: value
        for group, value in largest.items()
        if not groups[group].reason
        and all(name in values for name, _ in groups[group].members)
    }


def _check_scores(name: str, scores: np.ndarray, units: int) -> None:
    in_range = (scores >= 0) & (scores <= 1)  # False for NaN
    if scores.shape != (units,) or not in_range.all():
        raise ValueError(
            "`criterion` must return one score in [0, 1] per unit, "
            f"({units},). Received for layer '{name}': {scores}."
        )
