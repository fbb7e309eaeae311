"""How large a student is, as a budget counts it."""

from collections.abc import Iterable

import keras
import numpy as np

from keras_kddp.data.batches import Batches
from keras_kddp.pruning.budget.forecast import MEASURED
from keras_kddp.pruning.budget.planned_sizes import PlannedSizes
from keras_kddp.surgery.graph import ChannelGraph


def student_sizes(
    student: keras.Model, measures: Iterable[str], data: Batches | None
) -> dict[str, float]:
    """Returns sizes of a student: measure -> size.

    Args:
        student: A built student, with penalties or without.
        measures: Out of `keras_kddp.pruning.budget.budget.MEASURES`.
        data: Inputs to calibrate an int8 file with; None where none is asked
            for.

    Raises:
        ExportError: If an int8 file cannot be made.
        ImportError: If an arena needs tflite-micro, and it is not installed.
    """
    graph = ChannelGraph(student)
    nothing = np.zeros(graph.group_numbers.shape, bool)
    planned = PlannedSizes(graph).without(nothing)
    return {
        measure: float(MEASURED[measure].size(student, data))
        if measure in MEASURED
        else planned[measure]
        for measure in measures
    }
