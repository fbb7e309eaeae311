"""Dynamic pruning inside `fit`: which units leave, and when."""

import contextlib

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from helpers import to_numpy
from known_activity import (
    BIAS,
    KERNEL,
    PARAMETERS,
    Changing,
    X,
    fit,
    make_distiller,
    pruning,
)

from keras_kddp import Distiller, DynamicPruning, finalize, prepare


def test_inactive_units_leave_and_the_history_tells_of_it():
    distiller = make_distiller()
    callback = pruning()

    history = fit(distiller, callback)

    # Observed at the end of the second epoch, gone with the third.
    assert history["penalty_strength"] == [0.0, 1.0, 1.0, 0.0]
    assert history["units"] == [4, 4, 2, 2]
    assert history["live_units"] == [3, 3, 2, 2]
    assert history["parameters"] == [PARAMETERS[n] for n in (4, 4, 2, 2)]
    (removal,) = callback.removals
    assert removal[:5] == (
        *(2, {"fc": 4}, {"fc": 2}),
        *(PARAMETERS[4], PARAMETERS[2]),
    )
    assert [(c.unit, c.kind) for c in removal.certificates] == [
        (2, "observed dead"),
        (3, "negligible"),
    ]
    fc = distiller.student.get_layer("fc")
    np.testing.assert_array_equal(fc.kernel, np.float32(KERNEL[:, :2]))


def test_only_units_that_never_fired_leave_by_the_papers_criterion():
    distiller = make_distiller()
    before = to_numpy(distiller.student(X))

    history = fit(distiller, pruning(criterion="never_active"))

    assert history["units"] == [4, 4, 3, 3]
    # A product of another width may add up in another order.
    after = to_numpy(distiller.student(X))
    np.testing.assert_allclose(after, before, rtol=1e-6)


@pytest.mark.parametrize(
    ("threshold", "units"), [(0.0, 3), (0.0001, 3), (0.01, 2), (0.5, 2)]
)
def test_units_at_or_below_the_threshold_leave(threshold, units):
    distiller = make_distiller()

    history = fit(distiller, pruning(threshold=threshold))

    assert history["units"][-1] == units


def test_a_function_of_ones_own_may_score_the_units():
    def only_the_largest(activity, outgoing_norm):
        norm = np.sqrt(1**2 + 1**2)  # two ones read each unit
        np.testing.assert_allclose(outgoing_norm, norm, rtol=1e-6)
        return np.where(activity.mean == activity.mean.max(), 0.0, 1.0)

    distiller = make_distiller()

    history = fit(distiller, pruning(criterion=only_the_largest))

    assert history["units"] == [4, 4, 3, 2]
    fc = distiller.student.get_layer("fc")
    np.testing.assert_array_equal(fc.bias, BIAS[[2, 3]])


def test_pruning_while_training_keeps_what_was_learned():
    random = np.random.default_rng(0)
    x = random.normal(size=(128, 6)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    student = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(24, "relu", name="fc"),
            keras.layers.Dense(2),
        ]
    )
    distiller = Distiller(
        teacher, prepare(student, l1=0.1), student_loss_weight=1.0
    )
    distiller.compile(
        keras.optimizers.Adam(0.02), CROSSENTROPY, metrics=["accuracy"]
    )

    callback = DynamicPruning(minimum_change=0.2)
    history = distiller.fit(
        x, y, batch_size=8, epochs=12, callbacks=[callback], verbose=0
    ).history

    assert history["accuracy"][-1] > 0.9 > history["accuracy"][0]
    units = history["units"]
    assert units == sorted(units, reverse=True) and units[-1] <= 24 * 2 / 3
    compact = finalize(distiller.student)
    assert compact.get_layer("fc").units == units[-1]
    assert compact.count_params() == history["parameters"][-1]


def test_units_that_are_tied_leave_together():
    pixels = keras.Input((2,))
    left = keras.layers.Dense(4, "relu", name="left")(pixels)
    right = keras.layers.Dense(4, name="right", kernel_initializer="zeros")
    hidden = keras.layers.Add()([left, right(pixels)])
    student = keras.Model(pixels, keras.layers.Dense(2)(hidden))
    student.get_layer("left").set_weights([KERNEL, BIAS])
    distiller = make_distiller(prepare(student))

    history = fit(distiller, pruning(criterion="never_active"))

    assert history["units"] == [2 * 4, 2 * 4, 2 * 3, 2 * 3]
    units = [distiller.student.get_layer(x).units for x in ("left", "right")]
    assert units == [3, 3]


def test_tied_units_stay_where_one_of_them_is_active():
    pixels = keras.Input((2,))
    first = keras.layers.Dense(4, "relu", name="first")(pixels)
    second = keras.layers.Dense(4, name="second", kernel_initializer="zeros")
    hidden = keras.layers.Add()([first, second(first)])
    hidden = keras.layers.ReLU()(hidden)
    student = keras.Model(pixels, keras.layers.Dense(2)(hidden))
    student.get_layer("first").set_weights([KERNEL, BIAS])
    # Behind the sum unit 1 is dead, as unit 2 is everywhere.
    student.get_layer("second").bias.assign([0.0, -100.0, 0.0, 0.0])
    distiller = make_distiller(prepare(student))

    history = fit(distiller, pruning(criterion="never_active"))

    assert history["units"] == [2 * 4, 2 * 4, 2 * 3, 2 * 3]
    bias = distiller.student.get_layer("second").bias
    np.testing.assert_array_equal(bias, [0.0, -100.0, 0.0])


def test_layers_that_a_feature_loss_matches_are_left_alone():
    student = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(4, "relu", name="matched"),
            keras.layers.Dense(4, "relu", name="free"),
            keras.layers.Dense(2),
        ]
    )
    student.get_layer("matched").set_weights([KERNEL, BIAS])
    kernel = np.zeros((4, 4))
    kernel[:, 0] = 1.0  # the others are silent
    student.get_layer("free").set_weights([kernel, np.zeros(4)])
    teacher = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(4, "relu", name="hidden"),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.distillation.FeatureDistillation("mse", "hidden", "matched")
    distiller = Distiller(teacher, prepare(student), loss)
    distiller.compile(keras.optimizers.SGD(0.0), CROSSENTROPY)
    distiller.run_eagerly = True

    with (
        pytest.warns(UserWarning, match="minimum_units=1 stay in 'free'"),
        pytest.warns(UserWarning, match="can never leave: 'matched' "),
    ):
        fit(distiller, pruning(threshold=0.9))

    units = [distiller.student.get_layer(x).units for x in ("matched", "free")]
    assert units[0] == 4 and units[1] < 4


def test_units_leave_only_between_the_first_ramp_and_the_last_hold_epoch():
    callback = pruning(
        criterion=Changing(), warmup_epochs=2, ramp_epochs=1, finetune_epochs=2
    )

    history = fit(make_distiller(), callback, epochs=6)

    # Strengths 0, 0, 1, 1, 0, 0: observed to leave after epochs 2 and 3.
    assert history["units"] == [4, 4, 4, 3, 2, 2]
    assert [removal.epoch for removal in callback.removals] == [3, 4]


def test_nothing_leaves_after_the_last_epoch():
    distiller = make_distiller()
    callback = pruning(
        criterion=Changing(), warmup_epochs=0, ramp_epochs=0, finetune_epochs=0
    )

    history = fit(distiller, callback, epochs=2)

    assert history["units"] == [4, 3]
    assert distiller.student.get_layer("fc").units == 3


@pytest.mark.parametrize("minimum", [1, 2, 3, 4])
def test_the_minimum_of_units_stays_the_most_active_first(minimum):
    def scores_of(activity, outgoing_norm):
        return activity.mean / 100

    distiller = make_distiller()
    callback = pruning(
        criterion=scores_of, threshold=0.9, minimum_units=minimum
    )

    message = {
        1: "Only minimum_units=1 stay",
        4: "more than minimum_units=4",  # so that nothing can leave
    }
    with (
        pytest.warns(UserWarning, match=message[minimum])
        if minimum in message
        else contextlib.nullcontext()
    ):
        history = fit(distiller, callback)

    assert history["units"][-1] == minimum
    # Mean activities: 10 / 4, 6 / 4, 0 and 0.01 / 4.
    kept = [0, 1, 3, 2][:minimum]
    np.testing.assert_array_equal(
        distiller.student.get_layer("fc").bias, BIAS[sorted(kept)]
    )


@pytest.mark.parametrize(
    ("share", "units"), [(0.3, [4, 3, 3, 3]), (0.4, [4, 4, 4, 3])]
)
def test_a_small_removal_waits_for_the_last(share, units):
    # One of three live units is a third of them.
    callback = pruning(
        criterion="never_active",
        warmup_epochs=0,
        ramp_epochs=0,
        minimum_change=share,
    )

    assert fit(make_distiller(), callback)["units"] == units


def test_a_run_may_be_started_in_the_middle():
    history = fit(make_distiller(), pruning(), initial_epoch=2)

    assert history["penalty_strength"] == [1.0, 0.0]
    assert history["units"] == [4, 2]


def test_the_defaults_fit_the_shortest_run():
    history = fit(make_distiller(), DynamicPruning(), epochs=2)

    assert history["penalty_strength"] == [1.0, 0.0]
    assert history["units"] == [4, 2]


def test_a_callback_and_a_distiller_can_be_used_again():
    distiller, callback = make_distiller(), pruning(criterion=Changing())

    first = fit(distiller, callback)
    with pytest.warns(UserWarning, match="minimum_units=1 stay in 'fc'"):
        second = fit(distiller, callback)

    assert first["units"] == [4, 4, 3, 2]
    assert second["units"] == [2, 2, 1, 1]
    assert [removal.epoch for removal in callback.removals] == [2]


def test_a_run_that_is_stopped_early_keeps_the_student_of_its_last_epoch():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    distiller, callback = make_distiller(), pruning()
    with pytest.warns(UserWarning, match="Nothing was removed: the run ended"):
        history = fit(distiller, callback, Stop())
    assert history["units"] == [4, 4]
    assert distiller.student.get_layer("fc").units == 4

    assert fit(distiller, callback)["units"] == [4, 4, 2, 2]


@pytest.mark.parametrize(
    "scores",
    [
        lambda units: np.ones(units + 1),
        lambda units: np.nan,
        lambda units: -1.0,
        lambda units: 5.0,
    ],
)
def test_scores_that_are_not_one_number_per_unit_are_refused(scores):
    def criterion(activity, outgoing_norm):
        return scores(len(activity.mean)) * np.ones(1)

    distiller = make_distiller()

    with pytest.raises(
        ValueError, match=r"one score in \[0, 1\] per unit, \(4,\)"
    ):
        fit(distiller, pruning(criterion=criterion))

    assert distiller.student.get_layer("fc").units == 4
