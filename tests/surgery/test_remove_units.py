"""Which weights a removal takes along, held against the oracle."""

import keras
import numpy as np
import pytest
from helpers import (
    error_of_removal,
    float64,
    held_outputs,
    outputs_of,
    randomize,
    relative_error,
)
from small_models import (
    dense_model,
    image_model,
    residual_model,
)

from keras_kddp.surgery import (
    SurgeryError,
    plan_removal,
    remove_units,
)

layers = keras.layers


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


def test_a_unit_takes_its_column_bias_and_the_row_of_its_reader_along():
    smaller = remove_units(dense_model(), {"fc": [1]})
    kernel, bias, head_kernel, head_bias = smaller.get_weights()
    np.testing.assert_array_equal(kernel, [[1, 3], [4, 6]])
    np.testing.assert_array_equal(bias, [7, 9])
    np.testing.assert_array_equal(head_kernel, [[10], [30]])
    np.testing.assert_array_equal(head_bias, [1])
    output = smaller(np.ones((1, 2)))
    assert float(output[0, 0]) == 10 * (1 + 4 + 7) + 30 * (3 + 6 + 9) + 1


@pytest.mark.parametrize("removed", [[0], [2], [0, 1], np.array([1, 2])])
def test_filters_go_through_normalization_activation_and_flatten(removed):
    model = image_model(
        layers.BatchNormalization(name="bn"), layers.ReLU(name="relu")
    )
    smaller = remove_units(model, {"conv": removed})
    kept = 3 - len(removed)
    assert smaller.get_layer("conv").filters == kept
    assert smaller.get_layer("bn").moving_mean.shape == (kept,)
    assert smaller.get_layer("head").kernel.shape == (3 * 3 * kept, 2)
    assert error_of_removal(model, {"conv": removed}) <= 1e-10


@pytest.mark.parametrize(
    "middle",
    [
        layers.MaxPooling2D(2),
        layers.AveragePooling2D(2, padding="same"),
        layers.GlobalAveragePooling2D(),
        layers.GlobalMaxPooling2D(keepdims=True),
        layers.ZeroPadding2D(1),
        layers.Dropout(0.5),
        layers.Dropout(0.5, noise_shape=(None, 1, 1, 1)),
        layers.SpatialDropout2D(0.5),
        layers.Identity(),
        layers.Rescaling(2.0, offset=0.5),
        layers.LeakyReLU(),
        layers.ELU(),
        layers.Activation("gelu"),
        layers.Dense(4),
        layers.Conv2D(4, 2, strides=2, padding="same"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_filters_go_through_every_layer_with_a_rule(middle):
    with float64():
        middle = type(middle).from_config(
            {**middle.get_config(), "dtype": "float64"}
        )
    model = image_model(middle)
    assert error_of_removal(model, {"conv": [0, 2]}) <= 1e-10


@pytest.mark.parametrize(
    "operation",
    [
        keras.ops.relu,
        keras.ops.sigmoid,
        keras.ops.abs,
        keras.ops.square,
        lambda x: -x,
        lambda x: x + 2.0,
        lambda x: 2.0 + x,
        lambda x: x * 2,
        lambda x: 2.0 - x,
        lambda x: x / 2,
        lambda x: 2 / (x + 9),
        lambda x: x**2,
        lambda x: keras.ops.clip(x, -1.0, 1.0),
        lambda x: keras.ops.maximum(x, 0.5),
        lambda x: x * keras.ops.sigmoid(x),
        lambda x: keras.ops.leaky_relu(x, negative_slope=0.3),
    ],
)
def test_units_go_through_raw_operations(operation):
    x = keras.Input((2,))
    hidden = operation(layers.Dense(3, name="fc")(x))
    model = randomize(keras.Model(x, layers.Dense(2)(hidden)), seed=1)
    assert error_of_removal(model, {"fc": [1]}) <= 1e-10


def test_both_sides_of_a_residual_sum_leave_together():
    model = residual_model()
    units = {"first": [1], "second": [1], "inner": [0, 3]}
    assert error_of_removal(model, units) <= 1e-10


def test_a_shared_layer_ties_what_it_reads_and_is_cut_once():
    x = keras.Input((2,))
    shared = layers.Dense(3, activation="relu", name="shared")
    left = layers.Dense(4, name="left")(x)
    right = layers.Dense(4, name="right")(x)
    total = shared(left) + keras.ops.tanh(shared(right))
    model = randomize(keras.Model(x, layers.Dense(2)(total)), seed=1)
    with pytest.raises(SurgeryError, match=r"right\[0\], left\[0\] can only"):
        plan_removal(model, {"left": [0]})
    units = {"left": [0], "right": [0], "shared": [2]}
    assert error_of_removal(model, units) <= 1e-10


def test_a_layer_read_by_two_others_is_cut_out_of_both():
    x = keras.Input((2,))
    hidden = layers.Dense(3, activation="relu", name="fc")(x)
    heads = [layers.Dense(2, name=f"head{i}")(hidden) for i in range(2)]
    model = randomize(keras.Model(x, heads), seed=1)
    smaller = remove_units(model, {"fc": [0]})
    assert [smaller.get_layer(h).kernel.shape for h in ("head0", "head1")] == [
        (2, 2),
        (2, 2),
    ]
    assert error_of_removal(model, {"fc": [0]}) <= 1e-10


@pytest.mark.parametrize(
    "build", [lambda m: m.build((None, 2)), lambda m: m(np.ones((1, 2)))]
)
def test_a_sequential_model_may_be_built_late(build):
    model = keras.Sequential([layers.Dense(3, name="fc"), layers.Dense(1)])
    build(model)
    randomize(model, seed=1)
    assert error_of_removal(model, {"fc": [1]}) <= 1e-10


def test_images_may_be_of_any_size_behind_global_pooling():
    model = keras.Sequential(
        [
            keras.Input((None, None, 2)),
            layers.Conv2D(3, 2, name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1),
        ]
    )
    randomize(model, seed=1)
    x = np.random.default_rng(2).normal(size=(2, 5, 4, 2))
    smaller = remove_units(model, {"conv": [1]})
    expected = held_outputs(model, {"conv": [1]}, x)
    assert relative_error(outputs_of(smaller, x), expected) <= 1e-10


def test_models_that_share_layers_are_cut_one_at_a_time():
    model = residual_model()
    x = keras.Input((2,))
    other = keras.Model(x, layers.Dense(1)(model.get_layer("first")(x)))
    tail = keras.Model(model.get_layer("add").output, model.output)
    units = {"first": [0], "second": [0]}
    assert error_of_removal(model, units) <= 1e-10
    assert error_of_removal(other, {"first": [0]}) <= 1e-10
    assert error_of_removal(tail, {"inner": [0]}) <= 1e-10


@pytest.mark.parametrize("shared_axes", [None, [1, 2], [1, 2, 3]])
def test_slopes_of_a_prelu_leave_with_their_channels(shared_axes):
    model = randomize(
        keras.Sequential(
            [
                keras.Input((5, 5, 2)),
                layers.Conv2D(4, 3, name="conv"),
                layers.PReLU(shared_axes=shared_axes, name="prelu"),
                layers.Flatten(),
                layers.Dense(2, name="out"),
            ]
        ),
        0,
    )
    x = np.random.default_rng(0).normal(size=(3, 5, 5, 2)).astype("float32")
    smaller = remove_units(model, {"conv": [1, 3]})
    (expected,) = held_outputs(model, {"conv": [1, 3]}, x)
    np.testing.assert_allclose(smaller(x), expected, rtol=1e-5, atol=1e-5)
    assert smaller.get_layer("prelu").output.shape[-1] == 4 - 2
