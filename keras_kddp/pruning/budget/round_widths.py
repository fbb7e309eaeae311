"""Further units that leave where a rounder width pays."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_kddp.export import CrashError, LiteRTRuntime, RefusalError
from keras_kddp.pruning.budget.int8_trial import int8_file
from keras_kddp.pruning.ranking import units_of
from keras_kddp.surgery.folding import Constants, of_leaving_units
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.plan import plan_on

_LEAST_GAIN = 0.05


_LARGEST_LOSS = 0.1  # of a layer's units


_SAMPLES = 200


_ROUNDS = 3


def rounded(
    graph: ChannelGraph,
    order: Sequence[int],
    count: int,
    *,
    multiple: int,
    data: Any,
    constants: Constants,
) -> list[int]:
    """Returns the groups that leave, so that widths are round where it pays.

    Layer by layer: the units beyond a multiple leave too if that makes the
    student's int8 file, run on LiteRT on one thread of this machine, at least
    a twentieth faster or smaller. No layer gives up more than a tenth of its
    units (as MobileNetV2 rounds, Sandler et al. 2018, arXiv 1801.04381).
    Rounding up is not tried: no wider layer was ever faster.

    Args:
        graph: The channels of the student.
        order: From `removal_order`.
        count: So many of the first groups leave in any case.
        multiple: What widths shall be multiples of.
        data: Inputs of the student.
        constants: What the activity of groups is held at.
    """
    leaving = list(order[:count])
    planned = _widths(graph, leaving)
    for name in graph.units:
        further = _beyond(graph, order, leaving, name, multiple)
        after = _widths(graph, [*leaving, *further])
        if any(
            after[layer] < (1 - _LARGEST_LOSS) * width
            for layer, width in planned.items()
        ):
            continue  # this layer, or one whose units leave with its units
        if further:
            candidate = [*leaving, *further]
            students = (
                _without(graph, leaving, constants),
                _without(graph, candidate, constants),
            )
            if _pays(*students, data=data):
                leaving = candidate
    return leaving


def check_measurable(student: keras.Model, data: Any) -> None:
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
        name: int(np.count_nonzero(~np.isin(graph.roots[labels], leaving)))
        for name, labels in graph.units.items()
    }


def _beyond(
    graph: ChannelGraph,
    order: Sequence[int],
    leaving: Sequence[int],
    name: str,
    multiple: int,
) -> list[int]:
    """Returns the groups that keep a layer from being round, if any may go."""
    own = Counter(graph.roots[graph.units[name]].tolist())
    gone = set(leaving)
    extra = _widths(graph, leaving)[name] % multiple
    further = []
    for root in order:
        if root in own and root not in gone and own[root] <= extra:
            further.append(root)
            extra -= own[root]  # a group may hold several of its units
    return further if extra == 0 else []


def _without(
    graph: ChannelGraph, roots: Sequence[int], constants: Constants
) -> keras.Model:
    units = units_of(graph, roots)
    folded = of_leaving_units(constants, units)
    return plan_on(graph, units, constants=folded).build()


def _pays(planned: keras.Model, round_one: keras.Model, *, data: Any) -> bool:
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
