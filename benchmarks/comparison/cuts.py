"""The usual ways of pruning: one cut to given widths, then training on."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from comparison.training import Setting, with_logits
from keras_kddp import Distiller
from keras_kddp.pruning.activity import activity_on
from keras_kddp.pruning.criteria import contribution
from keras_kddp.pruning.ranking import group_maxima, group_scores, rank_groups
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.norms import incoming_norms
from keras_kddp.surgery.observer import Observer

Scores = dict[int, float]
_TAYLOR_BATCHES = 16


class Cut(keras.callbacks.Callback):
    """Cuts the student of a Distiller once, to given widths.

    Args:
        ranking: A key of `RANKINGS`; the units of the lowest scores go.
        setting: Of the run.
        widths: Layer name -> units that stay.
        at: Share of the epochs that come before the cut.
    """

    def __init__(
        self,
        ranking: str,
        setting: Setting,
        widths: Mapping[str, int],
        at: float,
    ) -> None:
        super().__init__()
        self._score = RANKINGS[ranking]
        self._setting = setting
        self._widths = widths
        self._epoch = round(at * setting.epochs)

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Cuts the student before its epoch."""
        if epoch != self._epoch:
            return
        graph = ChannelGraph(self.model.student)
        scores = self._score(graph, self._setting, self._widths, self.model)
        ranking = rank_groups(graph, scores, self._widths)
        self.model.replace_student(ranking.plan(len(ranking)))


def random_scores(
    graph: ChannelGraph, setting: Setting, widths: Mapping[str, int], _: Any
) -> Scores:
    """Returns scores that say nothing."""
    generator = np.random.default_rng(setting.seed)
    return group_maxima(
        graph, {n: generator.random(len(graph.units[n])) for n in widths}
    )


def magnitude_scores(
    graph: ChannelGraph, setting: Setting, widths: Mapping[str, int], _: Any
) -> Scores:
    """Returns the norms of the units' own weights.

    Li et al. 2017, arXiv 1608.08710, in the Euclidean norm.
    """
    norms = incoming_norms(graph)
    return group_maxima(graph, {name: norms[name] for name in widths})


def contribution_scores(
    graph: ChannelGraph, setting: Setting, widths: Mapping[str, int], _: Any
) -> Scores:
    """Returns the scores of dynamic pruning, without a penalty before."""
    activity = activity_on(graph, setting.sample(), layers=widths)
    return group_scores(graph, activity, contribution)


def taylor_scores(
    graph: ChannelGraph,
    setting: Setting,
    widths: Mapping[str, int],
    distiller: Distiller,
) -> Scores:
    """Returns how much the loss depends on the units, to first order.

    The mean over examples of |sum over positions of activation * gradient|
    (Molchanov et al. 2017, arXiv 1611.06440, eq. 8), at the points where
    activity is observed. Needs the TensorFlow backend.
    """
    import tensorflow as tf

    names = list(widths)
    points = {name: graph.observation_points(name)[0] for name in names}
    observer = Observer(graph, [*points.values(), *graph.model.outputs])
    totals = {name: np.zeros(len(graph.units[name])) for name in names}
    for _, (x, y, logits) in zip(
        range(_TAYLOR_BATCHES), setting.batches(0), strict=False
    ):
        with tf.GradientTape() as tape:
            *activations, outputs = observer(tf.constant(x))
            loss = distiller.compute_loss(
                with_logits(x, logits),
                y,
                outputs,
                training=False,
            )
        gradients = tape.gradient(loss, activations)
        for name, value, slope in zip(
            names, activations, gradients, strict=True
        ):
            effect = tf.cast(value, "float32") * tf.cast(slope, "float32")
            positions = range(1, len(effect.shape) - 1)
            effect = tf.abs(tf.reduce_sum(effect, axis=list(positions)))
            totals[name] += tf.reduce_mean(effect, axis=0).numpy()
    return group_maxima(graph, totals)


RANKINGS = {
    "random": random_scores,
    "magnitude": magnitude_scores,
    "contribution": contribution_scores,
    "taylor": taylor_scores,
}
"""Name of a cut -> `(graph, setting, widths, distiller) -> scores`."""
