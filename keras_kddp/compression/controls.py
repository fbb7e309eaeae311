"""The students that a pruned one is compared with, under its own rules."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_kddp.compression.stages import NOT_KEPT, Callbacks, Stage
from keras_kddp.compression.training import (
    Setting,
    fresh,
    train_distilled,
    train_supervised,
)
from keras_kddp.data.packing import unpacked
from keras_kddp.data.splits import Split
from keras_kddp.layers.preparation import finalize, prepare
from keras_kddp.pruning.activity import activity_on, sampled
from keras_kddp.pruning.criteria import contribution
from keras_kddp.pruning.ranking import group_maxima, group_scores, rank_groups
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.layer_state import carry_adapted_state
from keras_kddp.surgery.norms import incoming_norms
from keras_kddp.surgery.rebuild import rebuild

SAMPLES = 4096
"""So many training examples are observed at most, as by `DynamicPruning`."""


def train_control(
    name: str,
    common: Setting,
    pruned: keras.Model,
    layers: Sequence[str],
    callbacks: Callbacks = (),
    stage: Stage = NOT_KEPT,
) -> keras.Model:
    """Trains one control of a pruned student.

    Args:
        name: A key of `keras_kddp.compression.choices.CONTROLS`.
        common: Data and rules, those of the pruned student.
        pruned: The pruned student, plain.
        layers: The layers that were pruned.
        callbacks: Keras callbacks.
        stage: Where it is kept, and goes on.

    Returns:
        The control, plain.
    """
    if name == "kd":
        student = finalize(common.start)
        return train_distilled(student, common, callbacks, stage)[0]
    if name == "same_size":
        student = reinitialized(pruned, common.recipe.seed)
        return train_distilled(student, common, callbacks, stage)[0]
    if name == "same_size_labels":
        student = reinitialized(pruned, common.recipe.seed)
        return train_supervised(
            student,
            _without_teacher(common.train),
            _without_teacher(common.validation),
            common.recipe,
            callbacks,
            stage,
        )
    removal = RemovalHalfWay(name, pruned, layers, common)
    student = prepare(finalize(common.start), l1=0.0, layers=layers)
    return train_distilled(student, common, [removal, *callbacks], stage)[0]


class RemovalHalfWay(keras.callbacks.Callback):
    """Cuts layers once, after half of the epochs, to given widths.

    Args:
        ranking: `"random"`, `"magnitude"` (norm of a unit's own weights; Li
            et al. 2017, arXiv 1608.08710) or `"contribution"`; the lowest go.
        pruned: The model whose widths are wanted.
        layers: The layers to cut.
        common: Epochs, seed and training data.
    """

    def __init__(
        self,
        ranking: str,
        pruned: keras.Model,
        layers: Sequence[str],
        common: Setting,
    ) -> None:
        super().__init__()
        units = ChannelGraph(pruned).units
        self._widths = {name: len(units[name]) for name in layers}
        self._ranking = ranking
        self._common = common

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Cuts the student before its second half."""
        if epoch == self._common.recipe.epochs // 2:
            graph = ChannelGraph(self.model.student)
            ranking = rank_groups(graph, self._scores(graph), self._widths)
            self.model.replace_student(ranking.plan(len(ranking)))

    def _scores(self, graph: ChannelGraph) -> dict[int, float]:
        if self._ranking == "contribution":
            inputs, _ = unpacked(self._common.train.x)
            rows = sampled(graph, inputs, SAMPLES)
            activity = activity_on(graph, rows, layers=self._widths)
            return group_scores(graph, activity, contribution)
        if self._ranking == "magnitude":
            norms = incoming_norms(graph)
            return group_maxima(graph, {n: norms[n] for n in self._widths})
        generator = np.random.default_rng(self._common.recipe.seed)
        return group_maxima(
            graph,
            {n: generator.random(len(graph.units[n])) for n in self._widths},
        )


def reinitialized(model: keras.Model, seed: int) -> keras.Model:
    """Returns a copy whose first weights depend on the seed alone.

    What layers learned from data before training, statistics and
    vocabularies, is kept.
    """
    copy = fresh(lambda: rebuild(model, lambda config: None), seed)
    carry_adapted_state(model, copy)
    return copy


def _without_teacher(split: Split) -> Split:
    return replace(split, x=unpacked(split.x)[0])
