"""In which order units may leave."""

import keras
import numpy as np
import pytest

from keras_kddp.pruning.activity import activity_on
from keras_kddp.pruning.ranking import group_scores
from keras_kddp.surgery import ChannelGraph


def test_units_of_several_layers_are_ranked_by_their_share():
    x = inputs = keras.Input((3,))
    x = keras.layers.Dense(8, name="wide")(x)
    x = keras.layers.Dense(2, name="narrow")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(x))
    graph = ChannelGraph(model)
    activity = activity_on(graph, np.ones((4, 3), "float32"))

    def score(activity, outgoing_norm):
        return np.linspace(0.5, 1, len(outgoing_norm))

    plain = group_scores(graph, activity, score)
    balanced = group_scores(graph, activity, score, balanced=True)

    root = {name: graph.roots[labels] for name, labels in graph.units.items()}
    assert plain[root["wide"][7]] == plain[root["narrow"][1]] == 1
    assert balanced[root["wide"][7]] == pytest.approx(1 / 6)  # of 8 * 0.75
    assert balanced[root["narrow"][1]] == pytest.approx(1 / 1.5)
