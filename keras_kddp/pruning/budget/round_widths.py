"""Further units that leave where a rounder width pays."""

from collections import Counter
from collections.abc import Sequence

import keras
import numpy as np

from keras_kddp.data.batches import Batches
from keras_kddp.export.errors import CrashError, RefusalError
from keras_kddp.export.runtimes.runtimes import LiteRTRuntime
from keras_kddp.pruning.budget.int8_trial import int8_file
from keras_kddp.pruning.ranking import Ranking
from keras_kddp.surgery.graph import ChannelGraph

_LEAST_GAIN = 0.05
_LARGEST_LOSS = 0.1  # of a layer's units
_SAMPLES = 200
_ROUNDS = 3


def round_widths(
    ranking: Ranking, count: int, *, multiple: int, data: Batches
) -> list[int]:
    """Returns the groups that leave, so that widths are round where it pays.

    Layer by layer: the units beyond a multiple leave too if that makes the
    student's int8 file, run on LiteRT on one thread of this machine, at least
    a twentieth faster or smaller. No layer gives up more than a tenth of its
    units (as MobileNetV2 rounds, Sandler et al. 2018, arXiv 1801.04381).
    Rounding up is not tried: no wider layer was ever faster.

    Args:
        ranking: Of the groups that may leave the student.
        count: So many of the first groups leave in any case.
        multiple: What widths shall be multiples of.
        data: Inputs of the student.
    """
    leaving = list(ranking.order[:count])
    planned = _widths(ranking.graph, leaving)
    for name in ranking.graph.units:
        further = _beyond(ranking, leaving, name, multiple)
        candidate = [*leaving, *further]
        after = _widths(ranking.graph, candidate)
        if any(
            after[layer] < (1 - _LARGEST_LOSS) * width
            for layer, width in planned.items()
        ):
            continue  # this layer, or one whose units leave with its units
        if further and _pays(
            ranking.led_by(leaving).student(len(leaving)),
            ranking.led_by(candidate).student(len(candidate)),
            data=data,
        ):
            leaving = candidate
    return leaving


def check_measurable(student: keras.Model, data: Batches) -> None:
    """Checks that widths can be judged, before anything is trained.

    Raises:
        ExportError: If the student's int8 file cannot be made.
        ValueError: If it cannot be exported, or the data do not fit.
    """
    try:
        with int8_file(student, data):
            return
    except ValueError as error:
        raise ValueError(
            "`unit_multiple` must be 1 for what has no int8 file: what a round "
            f"width gains is measured. Received a student of which: {error}"
        ) from error


def _widths(graph: ChannelGraph, leaving: Sequence[int]) -> dict[str, int]:
    """Returns how many units of each layer stay."""
    return {
        name: int(
            np.count_nonzero(~np.isin(graph.group_numbers[labels], leaving))
        )
        for name, labels in graph.units.items()
    }


def _beyond(
    ranking: Ranking, leaving: Sequence[int], name: str, multiple: int
) -> list[int]:
    """Returns the groups that keep a layer from being round, if any may go."""
    graph = ranking.graph
    own = Counter(graph.group_numbers[graph.units[name]].tolist())
    gone = set(leaving)
    extra = _widths(graph, leaving)[name] % multiple
    further = []
    for group in ranking.order:
        if group in own and group not in gone and own[group] <= extra:
            further.append(group)
            extra -= own[group]  # a group may hold several of its units
    return further if extra == 0 else []


def _pays(
    planned: keras.Model, round_one: keras.Model, *, data: Batches
) -> bool:
    with (
        int8_file(planned, data) as (first, rows),
        int8_file(round_one, data) as (other, _),
    ):
        repeats = -(-_SAMPLES // len(rows[0]))
        inputs = {
            name: np.repeat(array, repeats, axis=0)
            for name, array in zip(first.input_names, rows, strict=True)
        }
        runtimes = LiteRTRuntime(first.path), LiteRTRuntime(other.path)
        rounds = [
            [_milliseconds(runtime, inputs) for runtime in runtimes]
            for _ in range(_ROUNDS)
        ]
    least = 1 - _LEAST_GAIN
    planned_time, round_time = map(min, zip(*rounds, strict=True))
    is_smaller = other.num_bytes <= least * first.num_bytes
    return is_smaller or round_time < least * planned_time


def _milliseconds(
    runtime: LiteRTRuntime, inputs: dict[str, np.ndarray]
) -> float:
    """Returns the median of a sample; infinity where LiteRT refuses."""
    try:
        return runtime.execute(inputs).milliseconds
    except (CrashError, RefusalError):
        return float("inf")
