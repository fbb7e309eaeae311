"""Widths that are rounded down where it pays."""

import itertools

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY

import keras_kddp.compression.trainings
import keras_kddp.pruning.budget.round_widths
from keras_kddp import Budget, Distiller, DynamicPruning, prepare
from keras_kddp.export import CrashError, LiteRTRuntime
from keras_kddp.models import fashion_mlp_student
from keras_kddp.pruning.budget.round_widths import round_widths
from keras_kddp.pruning.ranking import rank_groups
from keras_kddp.surgery import ChannelGraph

X = np.random.default_rng(0).random((64, 28, 28, 1), dtype="float32")
Y = np.arange(64) % 10


def conv_student(filters):
    """Returns a student whose file is mostly its last layers'."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(filters, 3, activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(64, name="logits"),
            keras.layers.Dense(600),
        ]
    )


def kept(student, name, count, multiple, minimum=1):
    """Returns how many of a layer's units stay, in the order they stand."""
    graph = ChannelGraph(student)
    groups = graph.group_numbers[graph.units[name]].tolist()
    widths = dict.fromkeys(graph.units, minimum)
    scores = {group: i / 1000 for i, group in enumerate(groups)}
    ranking = rank_groups(graph, scores, widths)
    leaving = round_widths(ranking, count, multiple=multiple, data=X)
    assert tuple(leaving[:count]) == ranking.order[:count]
    assert len(set(leaving)) == len(leaving)
    gone = ranking.led_by(leaving).units(len(leaving))
    return len(groups) - len(gone.get(name, []))


@pytest.fixture
def takes(monkeypatch):
    """Makes each measured student take so many milliseconds, in turn."""

    def install(*milliseconds):
        times = itertools.cycle(milliseconds)
        monkeypatch.setattr(
            keras_kddp.pruning.budget.round_widths,
            "_milliseconds",
            lambda *_: next(times),
        )

    return install


def test_a_width_is_rounded_where_the_file_is_a_twentieth_smaller(takes):
    takes(1, 1)

    # 4 of 44 units: 4 * (784 + 10 + 28) of some 38,000 bytes.
    assert kept(fashion_mlp_student(48), "hidden", 4, 8) == 40


def test_a_width_is_rounded_where_the_student_is_faster(takes):
    takes(1, 0.9)

    assert kept(conv_student(20), "conv", 3, 16) == 16


@pytest.mark.parametrize("after", [0.97, 1, 1.2, float("inf")])
def test_a_width_stays_where_nothing_is_gained(takes, after):
    takes(1, after)

    assert kept(conv_student(20), "conv", 3, 16) == 17


def test_a_width_stays_where_a_tenth_of_its_units_would_not_do(takes):
    takes(1, 0.1)

    assert kept(fashion_mlp_student(48), "hidden", 3, 8) == 45


def test_round_widths_stay_as_they_are(takes):
    takes()  # nothing is measured

    assert kept(fashion_mlp_student(48), "hidden", 8, 8) == 40


def test_tied_units_leave_in_whole_groups_or_not_at_all(takes):
    takes(1, 0.1)
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(22, 3, strides=4)(inputs)
    x = keras.layers.Conv2D(44, 3, groups=22, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    student = keras.Model(inputs, keras.layers.Dense(600)(x))
    # Pairs of channels leave together: an odd one cannot leave alone.

    assert kept(student, "conv", 0, 8) == 40
    assert kept(student, "conv", 0, 3) == 42
    assert kept(student, "conv", 0, 43) == 44


def test_a_partner_of_few_units_keeps_a_layer_from_rounding(takes):
    takes(1, 0.1)
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(inputs)
    narrow = keras.layers.Dense(10, name="narrow")(x)
    wide = keras.layers.Dense(22, name="wide")(x)
    joined = keras.layers.Concatenate()([narrow, wide])
    other = keras.layers.Dense(32, name="other")(x)
    student = keras.Model(
        inputs, keras.layers.Dense(3)(keras.layers.Add()([joined, other]))
    )

    # The first two to leave of `other` are units of `narrow`: a fifth.
    assert kept(student, "other", 0, 30) == 32


def test_the_smallest_width_is_respected(takes):
    takes(1, 0.1)

    assert kept(fashion_mlp_student(44), "hidden", 2, 8, minimum=41) == 42


def test_what_litert_cannot_run_is_not_faster(monkeypatch):
    def crash(*_, **__):
        raise CrashError("it died")

    monkeypatch.setattr(LiteRTRuntime, "execute", crash)

    assert kept(conv_student(20), "conv", 3, 16) == 17
    assert kept(fashion_mlp_student(48), "hidden", 4, 8) == 40


def test_a_run_ends_in_a_round_width_within_its_budget():
    keras.utils.set_random_seed(0)
    distiller = Distiller(
        fashion_mlp_student(16), prepare(fashion_mlp_student(120))
    )
    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)
    pruning = DynamicPruning(
        # 44 units of 795 weights, and 10 biases
        budget=Budget(max_parameters=44 * 795 + 10),
        unit_multiple=8,
    )

    distiller.fit(X, Y, epochs=8, verbose=0, callbacks=[pruning])

    assert distiller.student.get_layer("hidden").units == 40
    assert pruning.removals[-1].units_after == {"hidden": 40}


def test_a_multiple_below_one_is_refused():
    with pytest.raises(ValueError, match="`unit_multiple` must be an integer"):
        DynamicPruning(unit_multiple=0)


def test_a_student_that_cannot_be_measured_is_refused_before_training():
    inputs = keras.Input((None, 4))
    x = keras.layers.Dense(8, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling1D()(x)
    student = keras.Model(inputs, keras.layers.Dense(10)(x))
    distiller = Distiller(student, prepare(student))
    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)

    with pytest.raises(ValueError, match="`unit_multiple`.* must be fixed"):
        distiller.fit(
            np.zeros((8, 3, 4)),
            np.zeros(8),
            verbose=0,
            callbacks=[DynamicPruning(unit_multiple=8)],
            epochs=4,
        )


def test_rows_that_no_file_takes_are_refused_before_training():
    student = prepare(fashion_mlp_student(20))
    distiller = Distiller(fashion_mlp_student(4), student)
    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)
    weights = student.get_weights()

    with pytest.raises(ValueError, match="`unit_multiple`"):
        distiller.fit(
            X[..., 0],  # Keras adds the axis that is missing
            Y,
            verbose=0,
            callbacks=[DynamicPruning(unit_multiple=8)],
            epochs=4,
        )

    pairs = zip(weights, student.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_compress_refuses_it_before_a_control_is_trained(monkeypatch):
    def never(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr(
        keras_kddp.compression.trainings, "train_control", never
    )
    inputs = keras.Input((None, 4))
    x = keras.layers.Dense(8, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling1D()(x)
    student = keras.Model(inputs, keras.layers.Dense(10)(x))
    data = np.zeros((20, 3, 4)), np.arange(20) % 10

    with pytest.raises(ValueError, match="`unit_multiple`"):
        keras_kddp.compress(
            keras.models.clone_model(student),
            student,
            data,
            data,
            epochs=4,
            pruning=DynamicPruning(unit_multiple=8),
            budget=Budget(max_accuracy_drop=0.5),
        )


def test_what_fits_already_is_not_rounded():
    distiller = Distiller(
        fashion_mlp_student(16), prepare(fashion_mlp_student(44))
    )
    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)
    pruning = DynamicPruning(
        budget=Budget(max_parameters=10**6), unit_multiple=8, threshold=0.0
    )

    with pytest.warns(UserWarning, match="nothing will be removed"):
        distiller.fit(X, Y, epochs=4, verbose=0, callbacks=[pruning])

    assert distiller.student.get_layer("hidden").units == 44
