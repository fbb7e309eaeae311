"""In which order units may leave."""

import keras
import numpy as np
import pytest

from keras_kddp.pruning.activity import activity_on
from keras_kddp.pruning.ranking import group_scores, rank_groups
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

    group = {
        name: graph.group_numbers[labels]
        for name, labels in graph.units.items()
    }
    assert plain[group["wide"][7]] == plain[group["narrow"][1]] == 1
    assert balanced[group["wide"][7]] == pytest.approx(1 / 6)  # of 8 * 0.75
    assert balanced[group["narrow"][1]] == pytest.approx(1 / 1.5)


@pytest.fixture
def ranking():
    """Ranks four units of a layer, the last first; one stays."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="out"),
        ]
    )
    graph = ChannelGraph(model)
    groups = graph.group_numbers[graph.units["hidden"]].tolist()
    scores = {group: -unit for unit, group in enumerate(groups)}
    return rank_groups(graph, scores, dict.fromkeys(graph.units, 1))


def test_a_ranking_gives_the_units_the_plan_and_the_student(ranking):
    assert len(ranking) == 3
    assert ranking.units(2) == {"hidden": [3, 2]}
    assert ranking.plan(2).removed == {"hidden": (2, 3)}
    assert ranking.student(2).get_layer("hidden").units == 2


def test_nothing_removed_is_the_student_itself(ranking):
    assert ranking.units(0) == {}
    assert ranking.student(0) is ranking.graph.model


def test_chosen_groups_can_go_first(ranking):
    last = ranking.order[-1]

    changed = ranking.led_by([last])

    assert changed.order == (last, *ranking.order[:-1])
    assert changed.units(1) == {"hidden": [1]}
    assert ranking.units(1) == {"hidden": [3]}  # it is frozen
