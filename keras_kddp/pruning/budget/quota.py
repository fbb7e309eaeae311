"""How many units must have left by when, for a student to fit its budget."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from keras_kddp.data.batches import Batches
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.budget.forecast import (
    MEASURED,
    Forecast,
    Sizes,
    draw_lines,
)
from keras_kddp.pruning.budget.planned_sizes import Line
from keras_kddp.pruning.ranking import Ranking, rank_groups
from keras_kddp.surgery.graph import ChannelGraph

_HINTS = {"arena_bytes": ", or try more minimum_units: one may need most"}
_PREDICTED = 4  # attempts with the line, before halving


@dataclass(frozen=True, eq=False)
class FallingQuota:
    """A size limit that falls from the student's size to its budget.

    It falls by the same factor from removal to removal: as good as by the
    same size, and the student is smaller for most of the run. A removal takes
    as many of the lowest-scored groups as bring the student under the limit of
    its epoch, so that the last one lands at most one group below the budget.

    Attributes:
        limits: Measure -> the budget's limit.
        forecast: Predicts the sizes.
        start: The sizes of the unpruned student.
    """

    limits: Mapping[str, int]
    forecast: Forecast
    start: Sizes

    def adjusted(self, ranking: Ranking) -> "FallingQuota":
        """Returns the quota with a forecast for the student to come.

        Of the arena only: it has steps that a line cannot follow.
        """
        if "arena_bytes" not in self.limits:
            return self
        final = self._needed(ranking, self.limits)
        shifted = self.forecast.shifted("arena_bytes", ranking, final)
        return replace(self, forecast=shifted)

    def checkpoint_state(self) -> dict[str, Any]:
        """Returns what was measured of the unpruned student and since."""
        return {"start": self.start, "lines": dict(self.forecast.lines)}

    def restored(self, state: Mapping[str, Any]) -> "FallingQuota":
        """Returns the quota that goes on where another was."""
        lines = {m: Line(*line) for m, line in state["lines"].items()}
        forecast = replace(self.forecast, lines=lines)
        return replace(self, start=state["start"], forecast=forecast)

    def groups_to_remove(
        self, ranking: Ranking, *, share: float, inactive: int
    ) -> int:
        """Returns how many groups leave now.

        Args:
            ranking: Of the groups that may leave.
            share: How far the limits have fallen, in [0, 1]; at 1 they are
                the budget's.
            inactive: So many of the first groups are inactive: they leave
                early, unless the student would fall below its budget.
        """
        falling = {
            m: limit * (self.start[m] / limit) ** (1 - share)
            for m, limit in self.limits.items()
            if self.start[m] > limit
        }
        early = min(inactive, self._needed(ranking, self.limits))
        count = max(self._needed(ranking, falling), early)
        if share < 1:
            return count
        planned = {m: x for m, x in self.limits.items() if m not in MEASURED}
        least = max(self._needed(ranking, planned), early)
        for measure in self.forecast.lines:
            count = least = self._measured_count(measure, ranking, count, least)
        return self._with_gained_biases(ranking, count)

    def warn_if_nothing_leaves(self) -> bool:
        """Warns if the unpruned student fits; returns whether it did."""
        if any(self.start[m] > limit for m, limit in self.limits.items()):
            return False
        sizes = ", ".join(f"{self.start[m]:,.0f} {m}" for m in self.limits)
        warnings.warn(
            f"The student has {sizes} and fits its budget already: nothing "
            "will be removed.",
            stacklevel=4,
        )
        return True

    def warn_if_missed(self, graph: ChannelGraph) -> bool:
        """Warns if the student does not fit; returns whether it did."""
        whole = Ranking(graph, ())
        sizes = self.forecast.sizes(whole)(0)
        for measure in self.forecast.lines:
            sizes[measure] = self.forecast.measured(measure, whole, 0)
        missed = [m for m, limit in self.limits.items() if sizes[m] > limit]
        for measure in missed:
            warnings.warn(
                f"The student has {sizes[measure]:,.0f} {measure} and does not "
                f"fit max_{measure}={self.limits[measure]:,}: the run was too "
                "short, or what was left could not be removed.",
                stacklevel=4,
            )
        return bool(missed)

    def _needed(self, ranking: Ranking, limits: Mapping[str, float]) -> int:
        """Returns without how many groups the student fits limits."""
        sizes = self.forecast.sizes(ranking)
        return _first(
            len(ranking),
            lambda k: all(sizes(k)[m] <= x for m, x in limits.items()),
        )

    def _measured_count(
        self, measure: str, ranking: Ranking, count: int, least: int
    ) -> int:
        """Returns the fewest groups, but `least`, without which a file fits."""
        sizes = self.forecast.sizes(ranking)
        return fewest_that_fit(
            lambda k: self.forecast.measured(measure, ranking, k),
            lambda k: sizes(k)[measure],
            self.limits[measure] - MEASURED[measure].margin,
            guess=count,
            least=least,
            most=len(ranking),
            slack=MEASURED[measure].slack,
        )

    def _with_gained_biases(self, ranking: Ranking, count: int) -> int:
        """Returns a count that also pays for biases which folding adds."""
        limit = self.limits.get("parameters", math.inf)
        sizes = self.forecast.sizes(ranking)
        while 0 < count < len(ranking):
            gained = ranking.plan(count).gained_biases()
            if sizes(count)["parameters"] + gained <= limit:
                break
            count += 1
        return count


def plan_quota(
    budget: Budget,
    graph: ChannelGraph,
    groups: Iterable[int],
    minimum_units: int,
    data: Batches,
) -> FallingQuota:
    """Returns the quota of a student, before anything is trained.

    Args:
        budget: With a limit of size.
        graph: The channels of the unpruned student.
        groups: Numbers of those that may leave.
        minimum_units: Units that stay in every layer.
        data: Inputs, to calibrate an int8 file with.

    Raises:
        ExportError: If the int8 file of a limit cannot be made.
        ImportError: If a limit needs tflite-micro, and it is not installed.
        ValueError: If no removal can reach a limit.
    """
    limits = budget.sizes()
    widths = dict.fromkeys(graph.units, minimum_units)
    ranking = rank_groups(graph, dict.fromkeys(groups, 0.0), widths)
    measures = [measure for measure in MEASURED if measure in limits]
    forecast, smallest = draw_lines(measures, ranking, data)
    sizes = forecast.sizes(ranking)
    floor = sizes(len(ranking)) | smallest
    for measure, limit in limits.items():
        if limit < floor[measure]:
            raise ValueError(
                f"`max_{measure}` must be at least "
                f"{math.ceil(floor[measure]):,}, the size of this student "
                f"with minimum_units={minimum_units} in every layer "
                f"that may shrink. Received: max_{measure}={limit:,}. "
                "Raise it, prepare more layers, start from a smaller "
                f"student{_HINTS.get(measure, '')}."
            )
    return FallingQuota(limits, forecast, sizes(0))


def fewest_that_fit(
    measure: Callable[[int], float],
    predict: Callable[[int], float],
    limit: float,
    *,
    guess: int,
    least: int,
    most: int,
    slack: float = 0.0,
) -> int:
    """Returns the fewest groups without which a student fits a limit.

    Measures the student that was predicted and, while it does not fit or has
    room for a further group, the one that is predicted from there; where that
    leads nowhere, the one half-way.

    Args:
        measure: Number of groups that leave -> size, measured.
        predict: Number of groups that leave -> size, predicted; falls.
        limit: What the size must not exceed.
        guess: The number to try first.
        least: The smallest number that is wanted.
        most: The largest number that may leave; returned if none fits.
        slack: So far below the limit, as a share of it, is near enough.
    """
    too_few, enough = least - 1, most + 1
    count = max(guess, least)
    for attempt in itertools.count(1):
        size = measure(count)
        off = size - predict(count)
        if size <= limit:
            enough = count
        else:
            too_few = count
        is_near = limit * (1 - slack) <= size <= limit
        if is_near or enough - too_few <= 1:
            break
        following = (too_few + enough) // 2
        if attempt < _PREDICTED:
            following = _first(most, lambda k: predict(k) + off <= limit)  # noqa: B023
        if size <= limit:
            following = min(following, count - 1)
        count = min(max(following, too_few + 1), enough - 1)
    return min(enough, most)


def _first(count: int, holds: Callable[[int], bool]) -> int:
    """Returns the first number up to `count` from which on it holds."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
