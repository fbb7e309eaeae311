"""How large a student will be without some groups: predicted, measured."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import keras
import numpy as np

from keras_kddp.data.batches import Batches
from keras_kddp.pruning.budget.int8_trial import int8_arena_bytes, int8_bytes
from keras_kddp.pruning.budget.planned_sizes import Line, PlannedSizes
from keras_kddp.pruning.ranking import Ranking

Sizes = dict[str, float]
"""Measure, as in `keras_kddp.pruning.budget.budget.MEASURES` -> size."""


class Measure(NamedTuple):
    """A size that is measured of the int8 file.

    Attributes:
        size: Measures a student, given some inputs.
        margin: Bytes to stay below the limit.
        slack: So far below the limit, as a share of it, is near enough.
    """

    size: Callable[[keras.Model, Batches], int]
    margin: int
    slack: float


MEASURED = {
    # The layout of a file moves a little with the numbers in it.
    "bytes": Measure(int8_bytes, 64, 0.0),
    # Each measurement takes a conversion; arenas have steps of their own.
    "arena_bytes": Measure(int8_arena_bytes, 0, 0.05),
}
"""The sizes that have to be measured."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """Predicts the sizes of a student that was not built.

    Attributes:
        lines: Of each size of `MEASURED` that is wanted: the line that leads
            from what is planned of it to what is measured.
        data: Inputs, to calibrate an int8 file with.
    """

    lines: Mapping[str, Line]
    data: Batches

    def sizes(self, ranking: Ranking) -> Callable[[int], Sizes]:
        """Returns how the sizes fall: number of first groups -> sizes."""
        graph = ranking.graph
        planned = PlannedSizes(graph, self.lines)
        ranks = np.full(graph.group_numbers.max(initial=0) + 1, len(ranking))
        ranks[list(ranking.order)] = np.arange(len(ranking))
        ranks = ranks[graph.group_numbers]
        return lambda count: planned.without(ranks < count)

    def measured(self, measure: str, ranking: Ranking, count: int) -> int:
        """Returns a size of the int8 file without the first groups.

        Raises:
            ExportError: If it cannot be converted.
        """
        return MEASURED[measure].size(ranking.student(count), self.data)

    def shifted(self, measure: str, ranking: Ranking, count: int) -> "Forecast":
        """Returns the forecast that is right for a student that is measured.

        Args:
            measure: The line to shift.
            ranking: Of the groups that may leave.
            count: The student is the one without so many of the first.
        """
        size = self.measured(measure, ranking, count)
        off = size - self.sizes(ranking)(count)[measure]
        line = self.lines[measure]._replace(base=self.lines[measure].base + off)
        return replace(self, lines={**self.lines, measure: line})


def draw_lines(
    measures: Iterable[str], ranking: Ranking, data: Batches
) -> tuple[Forecast, Sizes]:
    """Draws lines through the files of the largest and the smallest student.

    Args:
        measures: Sizes of `MEASURED`.
        ranking: Of the groups that may leave the student.
        data: Inputs, to calibrate an int8 file with.

    Returns:
        The forecast, and the measured sizes of the smallest.

    Raises:
        ExportError: If an int8 file cannot be made.
        ImportError: If an arena needs tflite-micro, and it is not installed.
    """
    unmeasured = Forecast({measure: Line() for measure in measures}, data)
    sizes = unmeasured.sizes(ranking)
    lines, smallest = {}, {}
    for measure in unmeasured.lines:
        small = unmeasured.measured(measure, ranking, len(ranking))
        large = unmeasured.measured(measure, ranking, 0)
        planned, least = (sizes(k)[measure] for k in (0, len(ranking)))
        slope = (large - small) / max(planned - least, 1)
        lines[measure] = Line(small - slope * least, slope)
        smallest[measure] = float(small)
    return Forecast(lines, data), smallest
