"""How many units must have left by when, for a student to fit its budget."""

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.budget.int8_trial import int8_arena_bytes, int8_bytes
from keras_kddp.pruning.budget.planned_sizes import Line, PlannedSizes
from keras_kddp.pruning.ranking import removal_order, units_of
from keras_kddp.surgery.folding import Constants, of_leaving_units
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.plan import plan_on


class _Measure(NamedTuple):
    """A size that is measured of the int8 file.

    Attributes:
        size: Measures a student, given some inputs.
        margin: Bytes to stay below the limit.
        slack: So far below the limit, as a share of it, is near enough.
    """

    size: Callable[[Any, Any], int]
    margin: int
    slack: float


_MEASURED = {
    # The layout of a file moves a little with the numbers in it.
    "bytes": _Measure(int8_bytes, 64, 0.0),
    # Each measurement takes a conversion; arenas have steps of their own.
    "arena_bytes": _Measure(int8_arena_bytes, 0, 0.05),
}


_HINTS = {"arena_bytes": ", or try more minimum_units: one may need most"}


_FORETOLD = 4  # attempts with the line, before halving


class FallingQuota:
    """A size limit that falls from the student's size to its budget.

    It falls by the same factor from removal to removal: as good as by the
    same size, and the student is smaller for most of the run. A removal takes
    as many of the lowest-scored groups as bring the student under the limit of
    its epoch, so that the last one lands at most one group below the budget.

    Args:
        budget: Limits of size.
        graph: The channels of the unpruned student.
        roots: Numbers of the groups that may leave.
        minimum_units: Units that stay in every layer.
        data: Inputs, to calibrate an int8 file with.

    Raises:
        ExportError: If the int8 file of a limit cannot be made.
        ImportError: If a limit needs tflite-micro, and it is not installed.
        ValueError: If no removal can reach a limit.
    """

    def __init__(
        self,
        budget: Budget,
        graph: ChannelGraph,
        roots: Sequence[int],
        minimum_units: int,
        data: Any,
    ) -> None:
        self._limits = budget.sizes()
        self._data = data
        self._minimum_units = minimum_units
        widths = dict.fromkeys(graph.units, minimum_units)
        order = removal_order(graph, dict.fromkeys(roots, 0.0), widths)
        self._lines = {m: Line() for m in _MEASURED if m in self._limits}
        smallest = self._draw_lines(graph, order)
        self._start = self._sizes(graph, order)(0)
        self._check(self._sizes(graph, order)(len(order)) | smallest)

    def _check(self, floor: dict[str, float]) -> None:
        for measure, limit in self._limits.items():
            if limit < floor[measure]:
                raise ValueError(
                    f"`max_{measure}` must be at least "
                    f"{math.ceil(floor[measure]):,}, the size of this student "
                    f"with minimum_units={self._minimum_units} in every layer "
                    f"that may shrink. Received: max_{measure}={limit:,}. "
                    "Raise it, prepare more layers, start from a smaller "
                    f"student{_HINTS.get(measure, '')}."
                )
        if all(self._start[m] <= limit for m, limit in self._limits.items()):
            sizes = ", ".join(
                f"{self._start[m]:,.0f} {m}" for m in self._limits
            )
            warnings.warn(
                f"The student has {sizes} and fits its budget already: "
                "nothing will be removed.",
                stacklevel=5,
            )

    def count(
        self,
        graph: ChannelGraph,
        order: Sequence[int],
        *,
        share: float,
        inactive: int,
        constants: Constants,
    ) -> int:
        """Returns how many groups leave now.

        Args:
            graph: The channels of the student.
            order: From `removal_order`.
            share: How far the limits have fallen, in [0, 1]; at 1 they are
                the budget's.
            inactive: So many of the first groups are inactive: they leave
                early, unless the student would fall below its budget.
            constants: What their activity is held at.
        """
        if "arena_bytes" in self._limits and share < 1:
            final = self._needed(graph, order, self._limits)
            self._shift_arena_line(graph, order[:final], constants)
        falling = {
            m: limit * (self._start[m] / limit) ** (1 - share)
            for m, limit in self._limits.items()
            if self._start[m] > limit
        }
        final = self._needed(graph, order, self._limits)
        count = max(self._needed(graph, order, falling), min(inactive, final))
        if share < 1:
            return count
        planned = {m: x for m, x in self._limits.items() if m not in _MEASURED}
        least = self._needed(graph, order, planned)
        least = max(least, min(inactive, final))
        for measure in self._lines:
            count = least = self._checked_count(
                measure, graph, order, count, least=least, constants=constants
            )
        return self._with_gained_biases(graph, order, count, constants)

    def warn_if_missed(self, graph: ChannelGraph) -> None:
        """Warns if the student of a finished run does not fit its budget."""
        sizes = self._sizes(graph, [])(0)
        for measure in self._lines:
            sizes[measure] = self._measured(measure, graph, [], {})
        for measure, limit in self._limits.items():
            if sizes[measure] > limit:
                warnings.warn(
                    f"The student has {sizes[measure]:,.0f} {measure} and does "
                    f"not fit max_{measure}={limit:,}: the run was too short, "
                    "or what was left could not be removed.",
                    stacklevel=3,
                )

    def _needed(
        self,
        graph: ChannelGraph,
        order: Sequence[int],
        limits: Mapping[str, float],
    ) -> int:
        """Returns without how many groups the student fits limits."""
        sizes = self._sizes(graph, order)
        return _first(
            len(order),
            lambda k: all(sizes(k)[m] <= x for m, x in limits.items()),
        )

    def _sizes(
        self, graph: ChannelGraph, order: Sequence[int]
    ) -> Callable[[int], dict[str, float]]:
        """Returns the size of the student without the first k groups."""
        planned = PlannedSizes(graph, self._lines)
        ranks = np.full(graph.roots.max(initial=0) + 1, len(order))
        ranks[list(order)] = np.arange(len(order))
        ranks = ranks[graph.roots]
        return lambda k: planned.without(ranks < k)

    def _measured(
        self,
        measure: str,
        graph: ChannelGraph,
        order: Sequence[int],
        constants: Constants,
    ) -> int:
        """Returns a size of the int8 file without all groups of `order`."""
        student = graph.model
        if order:
            units = units_of(graph, order)
            folded = of_leaving_units(constants, units)
            student = plan_on(graph, units, constants=folded).build()
        return _MEASURED[measure].size(student, self._data)

    def _draw_lines(
        self, graph: ChannelGraph, order: Sequence[int]
    ) -> dict[str, int]:
        """Draws lines through the files of the largest and the smallest.

        Returns:
            The sizes of the smallest.
        """
        smallest = {}
        for measure in self._lines:
            small = self._measured(measure, graph, order, {})
            large = self._measured(measure, graph, [], {})
            sizes = self._sizes(graph, order)
            planned, least = (sizes(k)[measure] for k in (0, len(order)))
            slope = (large - small) / max(planned - least, 1)
            self._lines[measure] = Line(small - slope * least, slope)
            smallest[measure] = small
        return smallest

    def _shift_arena_line(
        self, graph: ChannelGraph, order: Sequence[int], constants: Constants
    ) -> None:
        """Lets the line go through the student without all groups."""
        size = self._measured("arena_bytes", graph, order, constants)
        off = size - self._sizes(graph, order)(len(order))["arena_bytes"]
        line = self._lines["arena_bytes"]
        self._lines["arena_bytes"] = line._replace(base=line.base + off)

    def _checked_count(
        self,
        measure: str,
        graph: ChannelGraph,
        order: Sequence[int],
        count: int,
        *,
        least: int,
        constants: Constants,
    ) -> int:
        """Returns the fewest groups, but `least`, without which the file fits.

        Measures the student that was foretold and, while its file does not
        fit or has room for a further group, the one that the line foretells
        from there; where that leads nowhere, the one half-way.
        """
        measured = _MEASURED[measure]
        limit = self._limits[measure] - measured.margin
        sizes = self._sizes(graph, order)
        too_few, enough = least - 1, len(order) + 1
        count = max(count, least)
        for attempt in itertools.count(1):
            size = self._measured(measure, graph, order[:count], constants)
            off = size - sizes(count)[measure]
            if size <= limit:
                enough = count
            else:
                too_few = count
            is_near = limit * (1 - measured.slack) <= size <= limit
            if is_near or enough - too_few <= 1:
                break
            foretold = (too_few + enough) // 2
            if attempt < _FORETOLD:
                foretold = _first(
                    len(order),
                    lambda k: sizes(k)[measure] + off <= limit,  # noqa: B023
                )
            if size <= limit:
                foretold = min(foretold, count - 1)
            count = min(max(foretold, too_few + 1), enough - 1)
        return min(enough, len(order))

    def _with_gained_biases(
        self,
        graph: ChannelGraph,
        order: Sequence[int],
        count: int,
        constants: Constants,
    ) -> int:
        """Returns a count that also pays for biases which folding adds."""
        limit = self._limits.get("parameters", math.inf)
        sizes = self._sizes(graph, order)
        while 0 < count < len(order):
            units = units_of(graph, order[:count])
            folded = of_leaving_units(constants, units)
            gained = plan_on(graph, units, constants=folded).gained_biases()
            if sizes(count)["parameters"] + gained <= limit:
                break
            count += 1
        return count


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
