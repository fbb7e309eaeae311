"""What is checked of a student before a run prunes it, once for all runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kddp.data.batches import Batches
from keras_kddp.layers.penalized_models import prepared_layers
from keras_kddp.model_io import Arrays
from keras_kddp.pruning.activity import sampled
from keras_kddp.pruning.budget.quota import FallingQuota, plan_quota
from keras_kddp.pruning.budget.round_widths import check_measurable
from keras_kddp.pruning.ranking import group_maxima
from keras_kddp.pruning.settings import PruningSettings
from keras_kddp.surgery.graph import ChannelGraph


@dataclass(frozen=True, eq=False)
class PruningPreflight:
    """What is known of a student before anything leaves.

    Int8 files are converted for it: `kddp compress`, `keras_kddp.compress` and
    `keras_kddp.DynamicPruning` hand the one that they have on.

    Attributes:
        settings: What was asked for.
        shapes: Of the student's inputs and, by layer, its number of units.
        observed: The inputs that activity is observed on.
        quota: Of the budget's sizes; None where it has none.
    """

    settings: PruningSettings
    shapes: Sequence[Any]
    observed: Batches
    quota: FallingQuota | None

    def is_for(self, settings: PruningSettings, graph: ChannelGraph) -> bool:
        """Says whether what matters here is what was checked."""
        checked = self.settings
        return (
            self.shapes == _shapes(graph)
            and settings.data is checked.data
            and settings.samples == checked.samples
            and settings.minimum_units == checked.minimum_units
            and settings.unit_multiple == checked.unit_multiple
            and _limits(settings) == _limits(checked)
        )


def check_pruning(
    settings: PruningSettings, graph: ChannelGraph, inputs: Arrays | None
) -> PruningPreflight:
    """Checks that a student can be pruned as it is asked for.

    Args:
        settings: What is asked for.
        graph: The channels of the prepared student.
        inputs: Those of the training, where they are arrays.

    Returns:
        What was found.

    Raises:
        ExportError: If the int8 file of a budget or of `unit_multiple` cannot
            be made.
        ImportError: If a limit needs tflite-micro, and it is not installed.
        ValueError: If there are no inputs to observe, they do not fit the
            student, or its smallest one does not fit the budget.
    """
    observed = _observed(settings, graph, inputs)
    if settings.unit_multiple > 1:
        check_measurable(graph.model, observed)
    quota = None
    if settings.budget is not None and settings.budget.sizes():
        layers = prepared_layers(graph)
        units = {name: np.zeros(len(graph.units[name])) for name in layers}
        quota = plan_quota(
            settings.budget,
            graph,
            group_maxima(graph, units),
            settings.minimum_units,
            observed,
        )
    return PruningPreflight(settings, _shapes(graph), observed, quota)


def _observed(
    settings: PruningSettings, graph: ChannelGraph, inputs: Arrays | None
) -> Batches:
    data = inputs if settings.data is None else settings.data
    if data is None:
        raise ValueError(
            "`data` must be given when `fit` gets a tf.data.Dataset, a "
            "PyDataset or a generator: it cannot be read a second time. "
            "Received: data=None. Pass some inputs, "
            "DynamicPruning(data=x[:4096])."
        )
    return sampled(graph, data, settings.samples)


def _limits(settings: PruningSettings) -> dict[str, int]:
    return {} if settings.budget is None else settings.budget.sizes()


def _shapes(graph: ChannelGraph) -> list[Any]:
    inputs = [tuple(symbol.shape) for symbol in graph.model.inputs]
    return [inputs, {name: len(units) for name, units in graph.units.items()}]
