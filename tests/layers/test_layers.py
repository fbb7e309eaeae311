"""What the penalty layers charge, and that they do nothing else."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kddp.layers.penalized_models import (
    penalty_layers,
    set_penalty_strength,
)
from keras_kddp.layers.penalties import (
    ActivityPenalty,
    ActivityRegularizedDense,
)

ROWS = np.array([[1.0, -2.0], [3.0, 0.0]], dtype="float32")


def charge_of(layer, activations, training=True):
    """Returns the loss that one call of a layer adds."""
    layer(activations, training=training)
    return [float(loss) for loss in layer.losses]


def test_a_dense_activation_costs_the_sum_of_the_units_mean_magnitudes():
    (charge,) = charge_of(ActivityPenalty(l1=0.5), ROWS)

    assert charge == 0.5 * ((1 + 3) / 2 + (2 + 0) / 2)


def test_a_convolution_is_charged_for_the_mean_over_batch_and_positions():
    # Two images of 1 x 2 pixels and two filters.
    images = np.array([[[[1.0, 8], [3, 0]]], [[[-5, 0], [7, 0]]]], "float32")

    (charge,) = charge_of(ActivityPenalty(l1=0.1), images)

    assert charge == pytest.approx(0.1 * ((1 + 3 + 5 + 7) / 4 + (8 / 4)))


def test_a_larger_batch_of_the_same_rows_costs_the_same():
    layer = ActivityPenalty(l1=0.5)

    assert charge_of(layer, np.tile(ROWS, (8, 1))) == charge_of(layer, ROWS)


def test_a_larger_image_of_the_same_pixels_costs_the_same():
    layer = ActivityPenalty(l1=0.5)
    small = ROWS.reshape(1, 1, 2, 2)
    large = np.tile(small, (1, 4, 2, 1))

    assert charge_of(layer, large) == charge_of(layer, small)


def test_a_second_copy_of_the_units_costs_twice_as_much():
    layer = ActivityPenalty(l1=0.5)
    (once,) = charge_of(layer, ROWS)

    (twice,) = charge_of(layer, np.tile(ROWS, (1, 2)))

    assert twice == 2 * once


def test_the_gradient_is_the_sign_over_the_number_of_means():
    layer = ActivityPenalty(l1=0.5)
    rows = tf.constant(ROWS)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        layer(rows, training=True)
        (charge,) = layer.losses

    gradient = tape.gradient(charge, rows)

    # Two rows, so every unit's mean divides by 2; at 0 nothing pulls.
    expected = [[0.5 / 2, -0.5 / 2], [0.5 / 2, 0.0]]
    np.testing.assert_array_equal(gradient, expected)


def test_nothing_is_charged_at_inference():
    layer = ActivityPenalty(l1=0.5)

    assert charge_of(layer, ROWS, training=False) == []
    assert charge_of(layer, ROWS, training=None) == []


def test_the_activations_pass_as_they_are():
    outputs = ActivityPenalty()(ROWS, training=True)

    np.testing.assert_array_equal(outputs, ROWS)


def test_the_mask_of_a_sequence_passes_too():
    embedded = keras.layers.Embedding(3, 2, mask_zero=True)(np.array([[1, 0]]))

    outputs = ActivityPenalty()(embedded, training=True)

    np.testing.assert_array_equal(outputs._keras_mask, [[True, False]])


def test_the_strength_is_a_factor_on_the_charge():
    layer = ActivityPenalty(l1=0.5)
    layer.strength.assign(0.25)

    (charge,) = charge_of(layer, ROWS)

    assert charge == 0.25 * 0.5 * (2 + 1)


@pytest.mark.parametrize("kind", ["penalty layer", "regularized dense"])
def test_moving_the_strength_does_not_trace_again(kind):
    ones = {"activation": "relu", "kernel_initializer": "ones"}
    hidden = (
        [keras.layers.Dense(2, **ones), ActivityPenalty()]
        if kind == "penalty layer"
        else [ActivityRegularizedDense(2, **ones)]
    )
    model = keras.Sequential([keras.Input((2,)), *hidden])
    traces = []

    def nothing(y, y_pred):
        traces.append("traced")
        return 0.0 * keras.ops.mean(y_pred, axis=-1)

    model.compile(keras.optimizers.SGD(0.0), loss=nothing)
    first = model.train_on_batch(ROWS, ROWS)
    traced_once = len(traces)
    set_penalty_strength(model, 0.5)
    half = model.train_on_batch(ROWS, ROWS)
    set_penalty_strength(model, 1.0)
    whole = model.train_on_batch(ROWS, ROWS)

    assert len(traces) == traced_once
    assert whole == pytest.approx(2 * half) and half > 0
    assert first == pytest.approx(whole)  # the strength is 1 at first


def test_half_precision_activations_do_not_overflow():
    # The sum is 100 * 60,000; float16 ends at 65,504.
    activations = np.full((100, 1), 60_000, dtype="float16")
    layer = ActivityPenalty(l1=0.5, dtype="float16")

    (charge,) = charge_of(layer, activations)

    assert charge == pytest.approx(0.5 * 60_000, rel=1e-3)
    assert layer.losses[0].dtype == "float32"


def test_mixed_precision_charges_in_float32_and_hands_float16_on():
    layer = ActivityPenalty(l1=0.5, dtype="mixed_float16")
    activations = keras.ops.full((100, 1), 60_000.0, dtype="float16")

    outputs = layer(activations, training=True)

    assert outputs.dtype == "float16"
    assert layer.strength.dtype == "float32"
    assert float(layer.losses[0]) == pytest.approx(0.5 * 60_000, rel=1e-3)


def test_a_quiet_mean_of_many_float16_activations_is_not_rounded_away():
    activations = np.full((4096, 1), 0.1, dtype="float16")
    layer = ActivityPenalty(l1=1.0, dtype="float16")

    (charge,) = charge_of(layer, activations)

    assert charge == pytest.approx(float(np.float16(0.1)), rel=1e-6)


def test_float64_stays_float64():
    layer = ActivityPenalty(l1=0.1, dtype="float64")
    rows = np.array([[1 / 3]])

    layer(rows, training=True)

    assert layer.strength.dtype == layer.losses[0].dtype == "float64"
    assert float(layer.losses[0]) == 0.1 * (1 / 3)


def test_a_regularized_dense_is_a_dense_and_a_penalty():
    dense = keras.layers.Dense(2, "relu")
    penalty = ActivityPenalty(l1=0.5)
    both = ActivityRegularizedDense(2, l1=0.5)
    dense.build((None, 2))
    both.build((None, 2))
    weights = np.array([[1.0, -1], [2, 1]]), np.array([4.0, 0])
    dense.set_weights(weights)
    both.set_weights([*weights, np.array(1.0)])

    def outcome(layers, weights):
        with tf.GradientTape() as tape:
            outputs = tf.constant(ROWS)
            for layer in layers:
                outputs = layer(outputs, training=True)
            loss = sum(layers[-1].losses)
        gradients = tape.gradient(loss, [w.value for w in weights])
        return outputs, loss, *gradients

    apart = outcome([dense, penalty], dense.trainable_weights)
    together = outcome([both], both.trainable_weights)

    for one, other in zip(apart, together, strict=True):
        np.testing.assert_array_equal(one, other)
    # Units see relu(1 - 4 + 4, -1 - 2) and relu(3 + 4, -3).
    np.testing.assert_array_equal(apart[0], [[1, 0], [7, 0]])
    assert float(apart[1]) == 0.5 * ((1 + 7) / 2 + 0)


def test_a_regularized_dense_takes_what_a_dense_takes():
    def arguments(layer_class):
        parameters = inspect.signature(layer_class.__init__).parameters
        return {
            name: parameter.default
            for name, parameter in parameters.items()
            if name not in ("self", "kwargs")
        }

    theirs, ours = (
        arguments(keras.layers.Dense),
        arguments(ActivityRegularizedDense),
    )

    assert ours == {**theirs, "activation": "relu", "l1": 1e-2}


def test_a_regularized_dense_hands_its_arguments_to_dense():
    layer = ActivityRegularizedDense(
        3,
        "tanh",
        0.5,
        use_bias=False,
        kernel_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(0.25),
        kernel_constraint="non_neg",
    )

    layer(ROWS, training=True)

    assert layer.bias is None
    assert layer.activation is keras.activations.tanh
    assert isinstance(layer.kernel_constraint, keras.constraints.NonNeg)
    np.testing.assert_array_equal(layer.kernel, np.ones((2, 3)))
    # The rows sum to -1 and 3, and all three units see that sum.
    charge = 0.5 * 3 * (np.tanh(1) + np.tanh(3)) / 2
    weights = 0.25 * (2 * 3 * 1**2)
    losses = sorted(float(loss) for loss in layer.losses)
    assert losses == pytest.approx([charge, weights])


@pytest.mark.parametrize(
    "layer",
    [
        ActivityPenalty(l1=0.25, name="charge", dtype="float64"),
        ActivityRegularizedDense(3, "tanh", 0.25, use_bias=False, name="fc"),
    ],
    ids=lambda layer: layer.name,
)
def test_a_layer_comes_back_from_its_config(layer):
    config = layer.get_config()

    copy = type(layer).from_config(config)

    assert config["l1"] == copy.l1 == 0.25
    assert copy.get_config() == config


def test_a_saved_model_keeps_its_charges_and_strengths(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((2,)),
            ActivityRegularizedDense(3, l1=0.25, name="fc"),
            keras.layers.Dense(2, name="out"),
            ActivityPenalty(l1=0.5, name="charge"),
        ]
    )
    model.get_layer("fc").strength.assign(0.125)
    model.save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert [layer.l1 for layer in penalty_layers(loaded)] == [0.25, 0.5]
    strengths = [float(x.strength) for x in penalty_layers(loaded)]
    assert strengths == [0.125, 1.0]
    np.testing.assert_array_equal(
        loaded(ROWS, training=True), model(ROWS, training=True)
    )
    assert [float(x) for x in loaded.losses] == [float(x) for x in model.losses]


def test_l1_may_be_a_numpy_number_or_zero():
    assert ActivityPenalty(l1=np.float32(0.5)).l1 == 0.5
    assert charge_of(ActivityPenalty(l1=0), ROWS) == [0.0]


@pytest.mark.parametrize("layer", [ActivityPenalty, ActivityRegularizedDense])
@pytest.mark.parametrize(
    "l1", [-0.1, float("nan"), float("inf"), "0.1", None, True]
)
def test_l1_that_is_no_finite_number_from_zero_is_refused(layer, l1):
    units = {} if layer is ActivityPenalty else {"units": 2}
    with pytest.raises(ValueError, match="`l1` must be a finite number >= 0"):
        layer(l1=l1, **units)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (keras.layers.ReLU(), True),
        (keras.layers.ReLU(negative_slope=0.1), False),
        (keras.layers.Dense(2, activation="relu"), True),
        (keras.layers.Dense(2, activation="relu6"), True),
        (keras.layers.Dense(2), False),
        (keras.layers.Activation("tanh"), False),
        (keras.layers.BatchNormalization(), False),
    ],
)
def test_what_ends_in_a_relu_is_known_to_be_non_negative(layer, expected):
    from keras_kddp import prepare

    student = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), layer, keras.layers.Dense(2)]
    )
    (first, *others) = [
        x for x in prepare(student).layers if x.name == f"{layer.name}_penalty"
    ]
    assert first.non_negative is expected
    assert not others
    again = ActivityPenalty.from_config(first.get_config())
    assert again.non_negative is expected


@pytest.mark.parametrize("non_negative", [True, False])
def test_the_charge_and_its_gradient_join_what_flows_on(non_negative):
    penalty = ActivityPenalty(l1=0.5, non_negative=non_negative)
    x = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(3 * penalty(x, training=True))
        loss += penalty.losses[0]
    charge = 0.5 * ((1 + 3) / 2 + (2 + 4) / 2)  # strength is 1
    assert float(loss) == 3 * (1 + 2 + 3 + 4) + charge
    gradient = tape.gradient(loss, x).numpy()
    np.testing.assert_allclose(gradient, np.full((2, 2), 3 + 0.5 / 2))
