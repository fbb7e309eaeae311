"""Layers that pay for units which can never leave."""

import keras
import pytest

from keras_kddp import prepare
from keras_kddp.layers import ActivityPenalty, ActivityRegularizedDense
from keras_kddp.pruning.vain_charges import find_vain_charges
from keras_kddp.surgery import ChannelGraph

layers = keras.layers


def found(model, pinned=None) -> dict[str, str]:
    return find_vain_charges(ChannelGraph(model, pinned))


def between(*middle, hidden="fc") -> keras.Model:
    """A penalized layer, what follows it, and another one that can shrink."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            ActivityRegularizedDense(3, name=hidden),
            *middle,
            ActivityRegularizedDense(5, name="free"),
            layers.Dense(2),
        ]
    )


REACHABLE = {
    "nothing": lambda: [],
    "Dropout": lambda: [layers.Dropout(0.5), layers.ReLU()],
    "GaussianNoise": lambda: [layers.GaussianNoise(0.1), layers.Dropout(0.5)],
    "BatchNormalization": lambda: [layers.BatchNormalization()],
}


@pytest.mark.parametrize("behind", REACHABLE)
def test_layers_whose_units_can_leave_are_not_named(behind):
    assert found(between(*REACHABLE[behind]())) == {}


def test_averages_that_only_lag_behind_are_no_reason():
    model = between(layers.BatchNormalization(name="norm"))
    model.get_layer("norm").moving_mean.assign([1.0, 2.0, 3.0])
    assert found(model) == {}


BLOCKING = {
    "LayerNormalization": lambda: [layers.LayerNormalization()],
    "AlphaDropout": lambda: [layers.AlphaDropout(0.5)],
    "Softmax": lambda: [layers.Softmax()],
    "TimeDistributed": lambda: [
        layers.Reshape((1, 3)),
        layers.TimeDistributed(layers.Dense(2)),
        layers.Flatten(),
    ],
    "ReLU": lambda: [layers.GaussianNoise(0.1), layers.ReLU()],
}


@pytest.mark.parametrize("behind", BLOCKING)
def test_layers_in_front_of_what_lets_nothing_through_are_named(behind):
    (item,) = found(between(*BLOCKING[behind]())).items()
    assert item[0] == "fc"
    assert f"({behind})" in item[1]


def test_outputs_and_pinned_layers_are_named():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            ActivityRegularizedDense(3, name="fc"),
            ActivityRegularizedDense(5, name="free"),
            ActivityRegularizedDense(2, name="logits"),
        ]
    )
    assert found(model, {"fc": "a hint matches it"}) == {
        "fc": "a hint matches it",
        "logits": "it is an output of the model",
    }


def test_a_penalty_of_nothing_charges_nothing():
    model = between(layers.LayerNormalization())
    model.get_layer("fc").l1 = 0.0
    assert found(model) == {}


def test_a_partner_without_a_penalty_is_named():
    x = keras.Input((4,))
    paying = ActivityRegularizedDense(3, name="paying")(x)
    other = layers.Dense(3, "relu", name="other")(x)
    model = keras.Model(x, layers.Dense(2)(layers.Add()([paying, other])))
    assert found(model) == {
        "paying": "its units leave only together with those of ['other'], of "
        "which not all are penalized"
    }


def test_a_shared_layer_that_pays_for_some_of_its_calls_is_named():
    x, y = keras.Input((4,)), keras.Input((4,))
    shared, reader = layers.Dense(3, name="shared"), layers.Dense(2)
    first = ActivityPenalty(name="penalty")(shared(x))
    model = keras.Model(
        [x, y], layers.Add()([reader(first), reader(shared(y))])
    )
    (item,) = found(model).items()
    assert item[0] == "shared" and item[1].startswith(
        "only some of the tensors"
    )


def test_a_penalty_that_stands_elsewhere_is_named_itself():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="fc"),
            layers.Dropout(0.5),
            ActivityPenalty(name="late"),
            layers.Dense(2),
        ]
    )
    assert list(found(model)) == ["late"]


@pytest.mark.parametrize("names", [["a"], ["b"]])
def test_layers_that_were_prepared_by_name_are_told_apart(names):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="a"),
            layers.GaussianNoise(0.1),
            layers.ReLU(),
            layers.Dense(3, name="b"),
            layers.Dense(2),
        ]
    )
    vain = [name for name in names if name == "a"]
    assert list(found(prepare(model, layers=names))) == vain
