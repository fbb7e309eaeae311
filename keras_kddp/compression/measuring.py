"""A trained student, measured."""

from collections.abc import Sequence

import keras

from keras_kddp.compression.controls import SAMPLES
from keras_kddp.compression.results import StudentResult
from keras_kddp.compression.training import answers_of
from keras_kddp.data.splits import Split
from keras_kddp.model_io import Arrays
from keras_kddp.profiling import profile
from keras_kddp.pruning.activity import activity_on, sampled
from keras_kddp.surgery.graph import ChannelGraph


def count_units(model: keras.Model, layers: Sequence[str]) -> int:
    """Returns how many units some layers have declared.

    Args:
        model: Any with a graph of layers.
        layers: Their names.
    """
    units = ChannelGraph(model).units
    return sum(len(units[name]) for name in layers)


def measured_student(
    model: keras.Model, layers: Sequence[str], rows: Arrays, judged: Split
) -> StudentResult:
    """Returns a trained student with its numbers.

    Args:
        model: Plain.
        layers: Those that pruning is for.
        rows: Inputs of the training, which say what units are live.
        judged: What its accuracy is reported on.
    """
    graph = ChannelGraph(model)
    activity = activity_on(graph, sampled(graph, rows, SAMPLES))
    found = answers_of(model, judged)
    return StudentResult(
        model=model,
        accuracy=found.accuracy,
        units=count_units(model, layers),
        live_units=sum(int(activity[name].live.sum()) for name in layers),
        profile=profile(model),
        answers=found,
    )
