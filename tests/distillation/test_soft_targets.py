"""What soft targets are worth, and when outputs are probabilities."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import softmax

from keras_kddp import SoftTargets
from keras_kddp.model_io import (
    at_least_float32,
    log_probabilities,
    output_activations,
)

TEACHER = np.array([[2.0, 0.0, -1.0], [0.0, 4.0, 1.0]])
STUDENT = np.array([[0.5, 1.0, 0.0], [-1.0, 0.0, 2.0]])


def divergence(temperature):
    """Returns T^2 KL(p || q) of each row, (2,)."""
    p, q = softmax(TEACHER / temperature), softmax(STUDENT / temperature)
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum(axis=-1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_soft_targets_are_the_divergence_times_the_squared_temperature(
    temperature,
):
    loss = SoftTargets(temperature).compute_loss(TEACHER, STUDENT)

    expected = divergence(temperature).sum() / 2
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_soft_targets_equal_the_divergence_of_keras():
    p, q = softmax(TEACHER / 3), softmax(STUDENT / 3)
    expected = 3**2 * keras.losses.KLDivergence()(p, q)

    loss = SoftTargets(3.0).compute_loss(TEACHER, STUDENT)

    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_a_student_that_says_what_the_teacher_says_costs_nothing():
    assert float(SoftTargets().compute_loss(TEACHER, TEACHER)) == 0.0
    shifted = TEACHER + 100.0  # logits are known up to a constant
    loss = SoftTargets().compute_loss(TEACHER, shifted)
    assert float(loss) == pytest.approx(0.0, abs=1e-12)


def test_the_gradient_is_the_temperature_times_the_difference():
    student = tf.constant(STUDENT)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = SoftTargets(4.0).compute_loss(TEACHER, student)

    gradient = tape.gradient(loss, student)

    expected = 4.0 * (softmax(STUDENT / 4) - softmax(TEACHER / 4)) / 2
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_a_weight_multiplies_the_loss_of_its_example(shape, dtype):
    weight = np.array([3, 0], dtype=dtype).reshape(shape)

    loss = SoftTargets(2.0).compute_loss(TEACHER, STUDENT, weight)

    first, second = divergence(2.0)
    assert float(loss) == pytest.approx((3 * first + 0 * second) / 2)


def test_a_weight_multiplies_all_positions_of_its_example():
    teacher, student = TEACHER[:, None], STUDENT[:, None]
    twice = np.concatenate([teacher, teacher], axis=1)
    weight = np.array([3.0, 1.0])

    loss = SoftTargets(2.0).compute_loss(
        twice, np.concatenate([student, student], axis=1), weight
    )

    first, second = divergence(2.0)
    assert float(loss) == pytest.approx(
        (3 * first + 3 * first + second + second) / 4
    )


def test_every_position_may_have_a_weight_of_its_own():
    weight = np.array([[3.0], [1.0]])

    loss = SoftTargets(2.0).compute_loss(
        TEACHER[:, None], STUDENT[:, None], weight
    )

    first, second = divergence(2.0)
    assert float(loss) == pytest.approx((3 * first + 1 * second) / 2)


@pytest.mark.parametrize(
    ("received", "computed"),
    [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
def test_the_loss_is_computed_in_float32_at_least(received, computed):
    teacher = keras.ops.cast(TEACHER, received)
    student = keras.ops.cast(STUDENT, received)

    loss = SoftTargets(2.0).compute_loss(teacher, student)

    assert loss.dtype == computed
    assert float(loss) == pytest.approx(divergence(2.0).mean(), rel=0.02)


def test_logits_as_large_as_float16_gets_give_a_finite_loss():
    teacher = keras.ops.cast([[60_000.0, -60_000.0]], "float16")
    student = keras.ops.cast([[-60_000.0, 60_000.0]], "float16")

    loss = SoftTargets(1.0).compute_loss(teacher, student)

    # p is [1, 0] and log q is [-120,000, 0].
    assert float(loss) == pytest.approx(120_000, rel=1e-2)


def test_soft_targets_come_back_from_their_config():
    loss = SoftTargets(2.5)

    config = keras.saving.serialize_keras_object(loss)
    copy = keras.saving.deserialize_keras_object(config)

    assert isinstance(copy, SoftTargets)
    assert copy.get_config() == loss.get_config() == {"temperature": 2.5}


def test_a_temperature_may_be_any_positive_number():
    temperatures = [4, 0.5, np.float32(2.0), np.int64(3)]

    assert [SoftTargets(x).temperature for x in temperatures] == [4, 0.5, 2, 3]


@pytest.mark.parametrize(
    "temperature", [0, -1.0, float("inf"), float("nan"), "4", None, True]
)
def test_a_temperature_that_is_no_positive_number_is_refused(temperature):
    with pytest.raises(ValueError, match="`temperature` must be a finite"):
        SoftTargets(temperature)


def test_log_probabilities_are_the_logits_of_their_softmax():
    logs = log_probabilities(softmax(TEACHER))

    np.testing.assert_allclose(np.exp(logs), softmax(TEACHER), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_probabilities_that_are_exactly_zero_have_a_finite_logarithm(dtype):
    logs = log_probabilities(keras.ops.cast([[1.0, 0.0]], dtype))

    assert float(logs[0, 0]) == 0.0
    assert -700 < float(logs[0, 1]) < -80


def test_only_half_precision_is_widened():
    def widened(dtype):
        return at_least_float32(keras.ops.ones(2, dtype)).dtype

    assert widened("float16") == widened("bfloat16") == "float32"
    assert widened("float32") == "float32"
    assert widened("float64") == "float64"


def ending(*layers):
    """Returns a model whose last Dense is followed by some calls."""
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3)(inputs)
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def nested_softmax():
    return keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])


@pytest.mark.parametrize(
    "calls",
    [
        [keras.layers.Softmax()],
        [keras.layers.Dense(3, activation="softmax")],
        [keras.layers.Dense(3, activation=keras.layers.Softmax())],
        [keras.layers.Activation("softmax")],
        [keras.layers.Activation(keras.activations.softmax)],
        [keras.ops.softmax],
        [keras.ops.nn.softmax],
        [keras.activations.softmax],
        [keras.layers.Softmax(), keras.layers.Identity()],
        [keras.layers.Softmax(), keras.layers.Reshape((3,))],
        [keras.layers.Softmax(), keras.layers.Activation("linear")],
        [keras.ops.softmax, lambda x: keras.ops.cast(x, "float64")],
        [nested_softmax()],
        [nested_softmax(), keras.layers.Identity()],
    ],
)
def test_an_ending_in_softmax_is_recognized(calls):
    assert output_activations(ending(*calls)) == ["softmax"]


@pytest.mark.parametrize(
    ("calls", "name"),
    [
        ([], "linear"),
        ([keras.layers.Identity()], "linear"),
        ([keras.layers.Softmax(), keras.layers.Dense(3)], "linear"),
        ([keras.layers.Activation("sigmoid")], "sigmoid"),
        ([keras.layers.Dense(3, activation="sigmoid")], "sigmoid"),
        ([keras.ops.sigmoid], "sigmoid"),
        ([keras.layers.Activation("log_softmax")], "log_softmax"),
    ],
)
def test_other_endings_are_told_apart(calls, name):
    assert output_activations(ending(*calls)) == [name]


def test_a_model_without_a_graph_is_taken_to_end_in_logits():
    class Subclassed(keras.Model):
        pass

    assert output_activations(Subclassed()) == []


@pytest.mark.parametrize(
    "ending",
    [
        keras.layers.Dropout(0.5),
        lambda x: keras.ops.reshape(x, (-1, 3)),
        lambda x: keras.ops.clip(x, 1e-6, 1.0),
    ],
)
def test_a_softmax_is_recognized_behind_what_hands_it_on(ending):
    inputs = keras.Input((4,))
    outputs = ending(keras.layers.Dense(3, activation="softmax")(inputs))
    assert output_activations(keras.Model(inputs, outputs)) == ["softmax"]


def test_a_softmax_is_recognized_inside_a_wrapper_and_by_tensorflows_name():
    wrapped = keras.layers.TimeDistributed(
        keras.layers.Dense(3, activation="softmax")
    )
    model = keras.Sequential([keras.Input((2, 4)), wrapped])
    assert output_activations(model) == ["softmax"]
    theirs = keras.layers.Dense(3, activation=tf.nn.softmax)
    model = keras.Sequential([keras.Input((4,)), theirs])
    assert output_activations(model) == ["softmax"]
