"""A budget of memory on a microcontroller."""

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from helpers import randomize

import keras_kddp.pruning.budget.forecast
from keras_kddp import Budget, Distiller, DynamicPruning, finalize, prepare
from keras_kddp.export import TFLMRuntime, to_microcontroller
from keras_kddp.models import (
    fashion_cnn_student,
    fashion_mlp_student,
    fashion_residual_student,
)
from keras_kddp.pruning.budget.int8_trial import int8_arena_bytes
from keras_kddp.pruning.budget.planned_arena import PlannedArena
from keras_kddp.surgery import ChannelGraph

X = np.random.default_rng(0).random((128, 28, 28, 1), dtype="float32")
Y = np.arange(128) % 10


def train(student, limit, *, epochs=6, **pruning):
    """Returns the student and the callback of a run under a budget."""
    keras.utils.set_random_seed(0)
    distiller = Distiller(fashion_mlp_student(16), prepare(student))
    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)
    budget = Budget(max_arena_bytes=limit)
    callback = DynamicPruning(budget=budget, **pruning)
    distiller.fit(X, Y, epochs=epochs, verbose=0, callbacks=[callback])
    return distiller.student, callback


@pytest.fixture
def measured(monkeypatch):
    """Lists the arenas that are measured."""
    found = []

    def noting(student, data):
        found.append(int8_arena_bytes(student, data))
        return found[-1]

    measures = keras_kddp.pruning.budget.forecast.MEASURED
    noted = measures["arena_bytes"]._replace(size=noting)
    monkeypatch.setitem(measures, "arena_bytes", noted)
    return found


def activated(activation, kind=keras.layers.Conv2D):
    """Returns a maker of students that keep more than what is fused."""

    def make():
        x = inputs = keras.Input((28, 28, 1))
        x = keras.layers.AveragePooling2D(2)(x)
        for filters in (16, 12):
            x = kind(filters, 3, padding="same", activation=activation)(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(10)(x))

    return make


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (fashion_mlp_student, 5_000),
        (activated("elu"), 20_000),
        pytest.param(fashion_cnn_student, 14_000, marks=SLOW),
        pytest.param(fashion_residual_student, 8_000, marks=SLOW),
        pytest.param(activated("swish"), 9_000, marks=SLOW),
        pytest.param(
            activated("relu", keras.layers.Conv2DTranspose), 11_000, marks=SLOW
        ),
    ],
)
def test_the_arena_fits_its_budget(make, limit, measured):
    student, callback = train(make(), limit)

    # One before, one at the floor, one after each of four epochs, one after
    # the run; and the last removal may need another one or two.
    assert len(measured) <= 9
    assert callback.removals
    assert 0.9 * limit < int8_arena_bytes(student, X) <= limit


def test_the_bundle_of_the_student_fits_the_same_arena(tmp_path):
    student, _ = train(fashion_mlp_student(), 5_000)

    bundle = to_microcontroller(finalize(student), tmp_path, X)

    assert bundle.measured_arena_bytes <= 5_000


def test_arena_and_bytes_are_kept_together():
    keras.utils.set_random_seed(0)
    student = prepare(fashion_cnn_student())
    distiller = Distiller(fashion_mlp_student(16), student)
    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)
    budget = Budget(max_arena_bytes=16_000, max_bytes=60_000)

    distiller.fit(
        *(X, Y), epochs=8, verbose=0, callbacks=[DynamicPruning(budget=budget)]
    )

    sizes = keras_kddp.pruning.budget.forecast.MEASURED
    assert sizes["bytes"].size(distiller.student, X) <= 60_000
    assert sizes["arena_bytes"].size(distiller.student, X) <= 16_000


def wide_and_narrow():
    """Returns a student whose memory peaks where a branch is held."""
    x = inputs = keras.Input((12, 12, 1))
    x = keras.layers.Conv2D(12, 3, padding="same", name="first")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.Conv2D(20, 3, padding="same", name="wide")(x)
    y = keras.layers.Conv2D(12, 3, padding="same", name="back")(y)
    x = keras.layers.Add()([x, y])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def planned(student):
    graph = ChannelGraph(student)
    return PlannedArena(graph).without(np.zeros(graph.records.size, bool))


def test_memory_is_predicted_where_a_branch_is_held():
    # While the wide output is made and read: 144 * (12 + 20 + 12); and eight
    # bytes for each of 12 + 20 + 12 + 4 channels.
    assert planned(wide_and_narrow()) == 144 * 44 + 8 * 48


@pytest.mark.parametrize(
    ("make", "smaller"),
    [
        (fashion_cnn_student, {"conv1": range(8), "hidden": range(470)}),
        (fashion_cnn_student, {"conv2": range(16)}),
        (fashion_residual_student, {"block1_first": range(16)}),
        (wide_and_narrow, {"wide": range(15)}),
    ],
)
def test_the_saved_arena_is_predicted_to_a_hundred_bytes(make, smaller):
    student = randomize(make(), 0)
    x = X[:, :12, :12] if make is wide_and_narrow else X
    graph = ChannelGraph(student)
    gone = np.zeros(graph.records.size, bool)
    for name, units in smaller.items():
        gone[graph.units[name][list(units)]] = True
    predicted = planned(student) - PlannedArena(graph).without(gone)

    saved = int8_arena_bytes(student, x) - int8_arena_bytes(
        keras_kddp.remove_units(student, smaller), x
    )

    assert saved == pytest.approx(predicted, abs=100)


def test_zero_biases_count_as_what_training_makes_of_them():
    student = fashion_mlp_student(100)  # its biases are zero
    trained = randomize(fashion_mlp_student(100), 0)

    assert int8_arena_bytes(student, X) == int8_arena_bytes(trained, X)
    assert not np.any(student.get_layer("hidden").bias)


def test_an_arena_below_the_floor_is_refused_before_training(measured):
    student = fashion_mlp_student(32)
    weights = student.get_weights()

    with pytest.raises(ValueError, match=r"`max_arena_bytes` must be at least"):
        train(student, 1_000)

    for before, after in zip(weights, student.get_weights(), strict=True):
        assert np.array_equal(before, after)


def test_a_student_that_tflm_cannot_run_is_refused():
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Activation("gelu")(inputs)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(x))
    x = keras.layers.Dense(16, activation="relu")(x)
    student = keras.Model(inputs, keras.layers.Dense(10)(x))

    with pytest.raises(ValueError, match="a student that TFLM can run"):
        train(student, 20_000)


def test_without_tflm_the_budget_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(TFLMRuntime, "absence", lambda: "pip install it")

    with pytest.raises(ImportError, match="pip install it"):
        train(fashion_mlp_student(32), 5_000)


def test_a_student_of_one_unit_is_described_though_xnnpack_refuses_it():
    assert int8_arena_bytes(fashion_mlp_student(1), X) < 4_000
