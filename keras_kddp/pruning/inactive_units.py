"""Which units of a student are inactive, and which of them may leave."""

from collections import Counter
from collections.abc import Mapping
from itertools import takewhile
from typing import NamedTuple

from keras_kddp.pruning.activity import UnitActivity
from keras_kddp.pruning.certificates import constant_units
from keras_kddp.pruning.ranking import (
    Ranking,
    foldable_constants,
    group_scores,
    rank_groups,
)
from keras_kddp.pruning.settings import PruningSettings
from keras_kddp.surgery.graph import ChannelGraph


class InactiveUnits(NamedTuple):
    """The groups of units of a student, judged at its present weights.

    Attributes:
        ranking: Groups that may leave, lowest first.
        inactive: Number of leading groups that are inactive.
        lowest: The lowest score of those that may leave; 1 where none may.
        stuck: Group number -> why it stays, of inactive groups whose constant
            cannot be folded.
    """

    ranking: Ranking
    inactive: int
    lowest: float
    stuck: Mapping[int, str]


class Findings(NamedTuple):
    """What an epoch found, without the student that it was found in.

    Attributes:
        units: Layer name -> indices of the units that were inactive.
        inactive: Number of leading groups that are inactive.
        choices: Number of groups that may leave.
        lowest: The lowest score of those that may leave; 1 where none may.
        stuck: Layer name -> how many of its inactive units stay, and why;
            without layers of so few that no removal would be made of them.
    """

    units: dict[str, list[int]]
    inactive: int
    choices: int
    lowest: float
    stuck: dict[str, str]


def summarize(found: InactiveUnits, settings: PruningSettings) -> Findings:
    """Returns what was found as plain data.

    Args:
        found: The units.
        settings: They were judged by.
    """
    ranking = found.ranking
    return Findings(
        ranking.units(found.inactive),
        found.inactive,
        len(ranking),
        found.lowest,
        _stuck_layers(found, settings.minimum_change) if found.stuck else {},
    )


def _stuck_layers(found: InactiveUnits, share: float) -> dict[str, str]:
    graph = found.ranking.graph
    groups = graph.groups()
    counts: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for group, reason in found.stuck.items():
        for name, _ in groups[group].members:
            counts[name] += 1
            reasons.setdefault(name, reason)
    return {
        name: f"{counts[name]} of {len(graph.units[name])}: {reason}"
        for name, reason in reasons.items()
        if counts[name] >= share * len(graph.units[name])
    }


def live_units(activity: Mapping[str, UnitActivity]) -> int:
    """Returns how many units ever fired."""
    return sum(int(found.live.sum()) for found in activity.values())


def find_inactive(
    graph: ChannelGraph,
    activity: Mapping[str, UnitActivity],
    settings: PruningSettings,
) -> InactiveUnits:
    """Returns the inactive groups of units.

    Args:
        graph: The channels of the student.
        activity: Layer name -> statistics, of the layers that may shrink.
        settings: With criterion and threshold.

    Raises:
        ValueError: If the criterion returns anything but scores.
    """
    constants, unfoldable = foldable_constants(
        graph, constant_units(activity), activity
    )
    criterion, threshold = settings.criterion, settings.threshold
    scores = ranked_by = group_scores(graph, activity, criterion, constants)
    if settings.budget is not None:
        ranked_by = group_scores(
            graph, activity, criterion, constants, balanced=True
        )
    widths = dict.fromkeys(graph.units, settings.minimum_units)
    ranking = rank_groups(graph, ranked_by, widths, constants)
    are_inactive = (scores[group] <= threshold for group in ranking.order)
    refused = {
        group: reason
        for group, reason in (unfoldable | dict(ranking.refused)).items()
        if group in unfoldable or scores[group] <= threshold
    }
    may_leave = set(ranking.order)
    return InactiveUnits(
        ranking,
        sum(takewhile(bool, are_inactive)),
        min((scores[group] for group in ranking.order), default=1.0),
        {g: why for g, why in refused.items() if g not in may_leave},
    )
