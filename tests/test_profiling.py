"""The size of models, by hand."""

import keras
import pytest

from keras_kddp import prepare, profile

layers = keras.layers


def test_a_small_classifier_by_hand():
    model = keras.Sequential(
        [
            keras.Input((6, 5, 2)),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="logits"),
        ]
    )
    found = profile(model)
    sizes = {
        layer.name: (layer.parameters, layer.macs, layer.activation_bytes)
        for layer in found.layers
    }
    positions = 4 * 3
    assert sizes["conv"] == (3 * 3 * 2 * 4 + 4, positions * 72, positions * 16)
    assert sizes["flat"] == (0, 0, 48 * 4)
    assert sizes["logits"] == (48 * 3 + 3, 48 * 3, 3 * 4)
    assert found.parameters == 76 + 147 == model.count_params()
    assert found.macs == 864 + 144
    assert found.activation_bytes == (6 * 5 * 2 + 48) * 4  # around the conv


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (layers.Conv1D(4, 3), (8, 2), 6 * 3 * 2 * 4),
        (layers.Conv2D(4, 3, groups=2), (5, 5, 2), 9 * 9 * 4),
        (layers.Conv2DTranspose(4, 3), (5, 5, 2), 25 * 9 * 2 * 4),
        (layers.DepthwiseConv2D(3), (5, 5, 2), 9 * 9 * 2),
        (layers.SeparableConv2D(4, 3), (5, 5, 2), 9 * (9 * 2 + 2 * 4)),
        (layers.Dense(4), (5, 2), 5 * 2 * 4),
        (layers.BatchNormalization(), (5, 2), 0),
    ],
)
def test_multiply_accumulates(layer, shape, macs):
    model = keras.Sequential([keras.Input(shape), layer])
    assert profile(model).macs == macs


def test_calls_of_shared_and_nested_layers_add_up():
    inputs = keras.Input((4,))
    shared = layers.Dense(4)
    nested = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    found = profile(keras.Model(inputs, nested(shared(shared(inputs)))))
    assert found.macs == 2 * 16 + 8
    assert found.parameters == 20 + 10


def test_bytes_follow_the_dtype():
    half = layers.Dense(8, dtype="float16")
    inputs = keras.Input((4,), dtype="float16")
    found = profile(keras.Model(inputs, half(inputs)))
    assert found.activation_bytes == (4 + 8) * 2


def test_strengths_of_penalties_do_not_count():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(2)]
    )
    assert profile(prepare(model)).parameters == model.count_params()


def test_the_table_has_one_line_per_layer_and_totals():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="fc")])
    table = str(profile(model)).splitlines()
    assert table[0].split() == [
        "layer",
        "class",
        "parameters",
        "MACs",
        "output",
        "bytes",
    ]
    assert "fc" in table[2]
    assert table[-2].split() == ["total", "40", "32"]
    assert table[-1] == "activation memory  48 bytes"


@pytest.mark.parametrize("model", ["model", keras.Model(), keras.Sequential()])
def test_what_has_no_graph_is_refused(model):
    with pytest.raises(ValueError, match="must be a built Sequential or Func"):
        profile(model)
