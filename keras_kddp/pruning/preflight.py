"""What is checked of a student before a run prunes it, once for all runs."""

from collections.abc import Mapping
from dataclasses import dataclass

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
        widths: Layer name -> units, of every layer of the student.
        observed: The inputs that activity is observed on.
        quota: Of the budget's sizes; None where it has none.
        unit_multiple: The one for which the student was found measurable.
    """

    widths: Mapping[str, int]
    observed: Batches
    quota: FallingQuota | None
    unit_multiple: int

    def is_for(self, settings: PruningSettings, graph: ChannelGraph) -> bool:
        """Says whether a student of these widths and limits was checked."""
        limits = {} if settings.budget is None else settings.budget.sizes()
        checked = {} if self.quota is None else self.quota.limits
        return (
            self.widths == _widths(graph)
            and limits == checked
            and min(settings.unit_multiple, 2) <= self.unit_multiple
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
    return PruningPreflight(
        _widths(graph), observed, quota, settings.unit_multiple
    )


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


def _widths(graph: ChannelGraph) -> dict[str, int]:
    return {name: len(labels) for name, labels in graph.units.items()}
