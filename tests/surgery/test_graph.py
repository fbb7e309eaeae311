"""Groups of units, and where the activity of units is observed."""

import keras
import pytest
from helpers import float64, observed_names
from small_models import (
    Doubling,
    dense_model,
    image_model,
    residual_model,
    small_model,
)

from keras_kddp.surgery import (
    ChannelGraph,
    SurgeryError,
    UnitGroup,
    plan_removal,
    unit_groups,
)

layers = keras.layers


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


def test_a_residual_group_names_the_partners_that_are_missing():
    with pytest.raises(
        SurgeryError,
        match=r"Units first\[1\], second\[1\] can only leave together. "
        r"Received without second\[1\]. Add them",
    ):
        plan_removal(residual_model(), {"first": [1]})


def test_unit_groups_list_members_and_reasons_in_the_order_of_the_graph():
    groups = unit_groups(residual_model())
    assert groups[:3] == [
        UnitGroup((("first", unit), ("second", unit)), "") for unit in range(3)
    ]
    assert groups[3] == UnitGroup((("inner", 0),), "")
    assert groups[-1] == UnitGroup(
        (("head", 1),), "it is an output of the model"
    )


def test_flatten_and_a_wide_dense_tie_every_position_of_a_channel():
    x = keras.Input((2, 1, 1))
    image = layers.Flatten()(layers.Conv2D(2, 1, name="conv")(x))
    vector = layers.Dense(4, name="fc")(layers.Flatten()(x))
    model = keras.Model(x, layers.Dense(1)(image + vector))
    # Channels of the flattened image: position 0 (0, 1), position 1 (0, 1).
    assert unit_groups(model)[0].members == (
        ("conv", 0),
        ("fc", 0),
        ("fc", 2),
    )


def test_activity_is_observed_behind_normalization_and_activation():
    model = image_model(
        layers.BatchNormalization(), layers.ReLU(name="relu"), layers.Dropout(1)
    )
    assert observed_names(model, "conv") == ["relu"]


@pytest.mark.parametrize(
    "layer_class",
    [
        layers.Dropout,
        layers.MaxPooling2D,
        layers.AveragePooling2D,
        layers.GlobalAveragePooling2D,
        layers.GlobalMaxPooling2D,
        layers.ZeroPadding2D,
        layers.Flatten,
        layers.Dense,
        Doubling,
    ],
)
def test_activity_is_observed_before_what_moves_mixes_or_drops(layer_class):
    arguments = {
        layers.Dropout: [0.5],
        layers.Dense: [1],
        layers.AveragePooling2D: [2],
    }
    middle = layer_class(*arguments.get(layer_class, []), name="middle")
    model = image_model(layers.ReLU(name="relu"), middle, layers.ReLU())
    assert observed_names(model, "conv") == ["relu"]


def test_activity_is_observed_before_a_branch_and_behind_a_sum():
    model = residual_model()
    assert observed_names(model, "first") == ["first"]
    assert observed_names(model, "second") == ["relu"]


def test_activity_of_a_shared_layer_is_observed_at_each_call():
    x = keras.Input((2,))
    shared = layers.Dense(2, name="shared")
    first = layers.ReLU(name="relu")(shared(x))
    model = keras.Model(x, layers.Dense(1)(first) + layers.Dense(1)(shared(x)))
    assert sorted(observed_names(model, "shared")) == ["relu", "shared"]


def test_pinned_layers_stay():
    graph = ChannelGraph(dense_model(), {"fc": "the loss matches its width"})
    assert set(graph.reasons.values()) == {
        "the loss matches its width",
        "it is an input of the model",
        "it is an output of the model",
    }
    assert graph.removable_layers() == []


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.fc = layers.Dense(1)

    def call(self, inputs):
        return self.fc(inputs)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: keras.Sequential([layers.Dense(1)]),
            "a Sequential model that is not built: give it an Input or call it",
        ),
        (
            Subclassed,
            "the subclassed model Subclassed: write it as a Functional or",
        ),
        (
            lambda: layers.Dense(1),
            "`model` must be a keras.Model. Received: Dense",
        ),
    ],
)
def test_a_model_without_a_graph_is_refused(model, message):
    with pytest.raises(SurgeryError, match=message):
        unit_groups(model())


def test_layers_of_one_name_are_refused():
    model = small_model()
    model.layers[1].name = "fc"
    with pytest.raises(SurgeryError, match="two called 'fc'"):
        plan_removal(model, {"fc": [0]})
