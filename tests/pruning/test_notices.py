"""What a run of pruning warns of, when it happens and once."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
from known_activity import (
    PARAMETERS,
    X,
    fit,
    make_distiller,
    make_student,
    pruning,
)

from keras_kddp import Budget, finalize, prepare

layers = keras.layers


@contextlib.contextmanager
def listening():
    """Yields the warnings for users as they come."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        yield caught


def said(run) -> list[str]:
    """Returns what a run warns of."""
    with listening() as caught:
        run()
    return [str(each.message) for each in caught]


class StopAfter(keras.callbacks.Callback):
    """Stops a run at the end of an epoch, from 0."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.epoch


def only_unit_0(activity, outgoing_norm):
    return np.where(np.arange(len(activity.mean)) == 0, 0.0, 1.0)


def test_a_run_in_which_units_leave_says_nothing():
    assert said(lambda: fit(make_distiller(), pruning())) == []


def test_a_layer_that_is_left_one_unit_is_named_when_it_happens():
    heard = []
    counting = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: heard.append(len(caught))
    )
    with listening() as caught:
        fit(make_distiller(), pruning(threshold=0.9), counting)

    (warning,) = caught
    assert str(warning.message) == (
        "Only minimum_units=1 stay in 'fc' from epoch 3 on: all other units "
        "fell inactive and left. If too few are left, lower `l1`, warm up "
        "longer (`warmup_epochs`) or raise `minimum_units`."
    )
    assert heard == [0, 0, 1, 1]


def test_a_layer_that_a_budget_leaves_one_unit_is_named():
    budget = Budget(max_parameters=(2 * 1 + 1) + (1 * 2 + 2))
    (warning,) = said(lambda: fit(make_distiller(), pruning(budget=budget)))
    assert "stay in 'fc' from epoch 4 on: the budget leaves it no" in warning


def test_a_minimum_that_a_budget_reaches_is_what_was_asked_for():
    budget = Budget(max_parameters=PARAMETERS[2])
    callback = pruning(criterion="never_active", budget=budget, minimum_units=2)
    assert said(lambda: fit(make_distiller(), callback)) == []
    assert callback.removals[-1].units_after == {"fc": 2}


@pytest.mark.parametrize("last", [0, 1])
def test_a_run_that_ends_before_its_first_removal_is_told(last):
    (warning,) = said(
        lambda: fit(make_distiller(), pruning(), StopAfter(last), epochs=5)
    )
    assert warning == (
        f"Nothing was removed: the run ended with epoch {last + 1}, and units "
        "leave at the beginning of epochs 3 to 5. Let it run longer, with more "
        "patience in what stopped it, or shorten `warmup_epochs`."
    )


def test_a_run_that_starts_too_late_is_told_before_it_trains():
    heard = []
    counting = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: heard.append(len(caught))
    )
    with listening() as caught:
        fit(make_distiller(), pruning(), counting, initial_epoch=3)

    (warning,) = caught
    assert str(warning.message).startswith(
        "Nothing will be removed: the run begins with epoch 4, and removals "
        "are planned when epochs 2 to 3 end. Lower `initial_epoch`"
    )
    assert heard[0] == 1


def test_a_run_that_starts_behind_its_only_removal_is_told():
    callback = pruning(warmup_epochs=0)
    (warning,) = said(
        lambda: fit(make_distiller(), callback, epochs=2, initial_epoch=1)
    )
    assert (
        "begins with epoch 2, and removals are planned when epoch 1 ends"
        in (warning)
    )


def test_units_that_are_all_active_are_told_with_the_lowest_score():
    callback = pruning(criterion=lambda a, n: np.full(len(n), 0.3))
    (warning,) = said(lambda: fit(make_distiller(), callback))
    assert warning == (
        "Nothing was removed: no unit scored at most threshold=0.0; the lowest "
        "score was 0.3. Raise `l1` or `threshold`, or train longer under the "
        "penalty."
    )


def test_layers_that_are_at_their_minimum_already_are_told():
    (warning,) = said(lambda: fit(make_distiller(), pruning(minimum_units=4)))
    assert "no layer has more than minimum_units=4 units that may" in warning


def test_a_removal_that_stays_too_small_is_told():
    callback = pruning(criterion=only_unit_0, minimum_change=0.5)
    # Units leave at the beginning of epochs 3 to 7; epoch 4 is the last.
    (warning,) = said(
        lambda: fit(make_distiller(), callback, StopAfter(3), epochs=8)
    )
    assert "1 inactive units were fewer than minimum_change=0.5" in warning


def test_a_budget_that_is_met_already_is_told_once():
    budget = Budget(max_parameters=PARAMETERS[4])
    (warning,) = said(lambda: fit(make_distiller(), pruning(budget=budget)))
    assert "fits its budget already: nothing will be removed" in warning


def test_a_lost_loss_is_told_once():
    def poison(batch, logs):
        bias = distiller.student.get_layer("out").bias
        bias.assign(np.full(2, np.nan))

    distiller = make_distiller()
    poisoning = keras.callbacks.LambdaCallback(on_train_batch_begin=poison)
    (warning,) = said(lambda: fit(distiller, pruning(), poisoning))
    assert "became NaN or infinite" in warning


def stopping(patience, **arguments):
    return keras.callbacks.EarlyStopping(
        "loss", patience=patience, min_delta=0.01, **arguments
    )


@pytest.mark.parametrize(
    ("early", "earliest"),
    [
        (stopping(0), 2),
        (stopping(1), 2),
        (stopping(3), 4),
        (stopping(4, baseline=0.0), 4),
        (stopping(2, start_from_epoch=1), 4),
    ],
    ids=lambda x: str(getattr(x, "patience", x)),
)
def test_an_early_stopping_that_can_stop_too_early_is_told_once(
    early, earliest
):
    # Of 10 epochs the fourth is the first with a penalty.
    callback = pruning(warmup_epochs=3)
    (warning,) = said(lambda: fit(make_distiller(), callback, early, epochs=10))
    assert early.stopped_epoch + 1 == earliest  # at rate 0 nothing improves
    assert warning.startswith(
        f"`EarlyStopping` with patience={early.patience} can stop the run "
        f"after epoch {earliest}, and the first units leave at the beginning "
        f"of epoch 5. Raise its patience by {5 - earliest}, or shorten"
    )


@pytest.mark.parametrize(
    "early",
    [stopping(4), stopping(5, baseline=0.0), stopping(1, start_from_epoch=4)],
)
def test_an_early_stopping_that_waits_for_the_first_removal_is_fine(early):
    callback = pruning(warmup_epochs=3)
    assert said(lambda: fit(make_distiller(), callback, early, epochs=10)) == []
    assert len(callback.removals) == (early.stopped_epoch >= 4)


def judging(monitor="val_loss", patience=1):
    return keras.callbacks.EarlyStopping(
        monitor, patience=patience, min_delta=0.01
    )


VALIDATED = {"validation_data": (X, np.array([0, 1, 0, 1]))}


@pytest.mark.parametrize(
    ("early", "arguments", "earliest", "raised"),
    [
        (judging(), {**VALIDATED, "validation_freq": 2}, 4, 1),
        (judging(), {**VALIDATED, "validation_freq": [1, 3, 4]}, 3, 2),
        (judging("loss", 2), {**VALIDATED, "validation_freq": 4}, 3, 2),
    ],
    ids=["every second", "listed", "not of validation"],
)
def test_only_epochs_with_a_monitored_value_bring_a_stop(
    early, arguments, earliest, raised
):
    callback = pruning(warmup_epochs=3)
    warned = said(
        lambda: fit(make_distiller(), callback, early, epochs=10, **arguments)
    )
    (warning,) = [x for x in warned if "not available" not in x]
    assert early.stopped_epoch + 1 == earliest  # at rate 0 nothing improves
    assert f"can stop the run after epoch {earliest}, and" in warning
    assert f"Raise its patience by {raised}, or" in warning


def test_an_early_stopping_that_sees_few_epochs_is_fine():
    callback = pruning(warmup_epochs=3)
    arguments = {**VALIDATED, "validation_freq": 4}
    warned = said(
        lambda: fit(
            make_distiller(), callback, judging(), epochs=10, **arguments
        )
    )
    assert not [x for x in warned if "can stop the run" in x]
    assert len(callback.removals) == 1


def test_an_early_stopping_that_is_never_asked_stops_nothing():
    callback = pruning(warmup_epochs=3)
    warned = said(lambda: fit(make_distiller(), callback, judging(), epochs=10))
    assert not [x for x in warned if "can stop the run" in x]
    assert len(callback.removals) == 1


def test_a_minimum_that_was_asked_for_is_not_told():
    callback = pruning(threshold=0.9, minimum_units=2)
    assert said(lambda: fit(make_distiller(), callback)) == []
    assert callback.removals[-1].units_after == {"fc": 2}


def test_units_that_are_observed_before_their_activation_are_told():
    student = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, name="fc"),
            layers.Dropout(0.5, name="drop"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(2, name="out"),
        ]
    )
    callback = pruning(criterion=lambda a, n: np.ones(len(n)))
    warned = said(lambda: fit(make_distiller(prepare(student)), callback))
    assert warned[0] == (
        "These layers are observed before their activation, where dead units "
        "look alive, since noise stands between: 'fc' ('drop'). Put the noise "
        "behind the activation."
    )


@pytest.mark.parametrize(
    "behind",
    [
        [layers.Dropout(0.5)],
        [layers.Dropout(0.5), layers.ReLU()],
        [layers.Dropout(0.5), layers.Dense(3, "relu")],
        [layers.ReLU(), layers.Dropout(0.5), layers.BatchNormalization()],
    ],
    ids=["no activation", "passed", "of the next layer", "before the noise"],
)
def test_units_that_are_observed_as_they_are_say_nothing(behind):
    student = keras.Sequential(
        [keras.Input((2,)), layers.Dense(4), *behind, layers.Dense(2)]
    )
    callback = pruning(criterion=lambda a, n: np.ones(len(n)))
    warned = said(lambda: fit(make_distiller(prepare(student)), callback))
    assert not [x for x in warned if "observed before" in x]


def test_what_an_optimizer_cannot_carry_is_told_once_a_run():
    student = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, "relu", name="fc"),
            layers.Dropout(0.5),
            layers.BatchNormalization(trainable=False),
            layers.Dense(2, name="out", kernel_regularizer="l2"),
        ]
    )
    student.layers[2].beta.assign([1.0, 2.0, 3.0, 4.0])
    distiller = make_distiller(prepare(student))
    callback = pruning(criterion=only_unit_0)

    warned = said(lambda: fit(distiller, callback, epochs=5))

    assert len(callback.removals) == 3
    told = [x for x in warned if "regularizers pull kernel and bias" in x]
    assert len(told) == 1


def noisy_student(*behind):
    """The known student, and what stands between its two layers."""
    known = finalize(make_student())
    student = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, "relu", name="fc"),
            *behind,
            layers.Dense(4, "relu", name="free"),
            layers.Dense(2),
        ]
    )
    student.get_layer("fc").set_weights(known.get_layer("fc").get_weights())
    return student


def test_layers_that_can_never_lose_a_unit_are_told_before_training():
    noise, relu = layers.GaussianNoise(0.1), layers.ReLU(name="bent")
    student = prepare(noisy_student(noise, relu))
    heard = []
    counting = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: heard.append(len(caught))
    )
    with listening() as caught:
        fit(make_distiller(student), pruning(criterion=only_unit_0), counting)

    (warning,) = caught
    assert str(warning.message) == (
        "These layers are charged for units that can never leave: 'fc' (the "
        "noise of training gives it another mean behind bent (ReLU)). Take "
        "what stands in the way out, or the penalty: prepare(student, "
        "layers=[...]) names what pays."
    )
    assert heard[0] == 1


def test_inactive_units_that_stay_are_counted_and_told():
    student = noisy_student(
        layers.Dropout(0.5), layers.BatchNormalization(trainable=True)
    )
    normalization = student.layers[2]
    normalization.moving_mean.assign([0.0, 0.0, 0.5, 0.5])
    distiller = make_distiller(prepare(student))
    # Units 2 and 3 are dead or nearly so, and their averages lag behind.
    callback = pruning(
        criterion=lambda a, n: np.linspace(1, 0, len(n)), threshold=0.4
    )

    *_, warning = said(lambda: fit(distiller, callback, epochs=3))

    assert warning.startswith("Inactive units stay, and are charged in vain")
    assert "'fc' (2 of 4: the constant it leaves behind is 0 in trai" in warning


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_constant_that_a_bias_constraint_would_change_stays_and_is_told(
    use_bias,
):
    student = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, "relu", name="fc"),
            layers.Dropout(0.5),
            layers.BatchNormalization(trainable=False),
            layers.Dense(
                2, use_bias=use_bias, bias_constraint="non_neg", name="out"
            ),
        ]
    )
    student.layers[2].beta.assign([1.0, 2.0, 3.0, 4.0])
    callback = pruning(criterion=only_unit_0)

    (warning,) = said(lambda: fit(make_distiller(prepare(student)), callback))

    assert callback.removals == []
    assert (
        "can never leave: 'fc' (the bias_constraint of out (Dense) would "
        "change the constant)"
    ) in warning


def test_a_unit_behind_noise_leaves_and_the_certificate_tells_how():
    student = prepare(noisy_student(layers.GaussianNoise(0.1)), layers=["fc"])
    before = np.asarray(student(X))
    distiller = make_distiller(student)
    callback = pruning(criterion="never_active")

    assert fit(distiller, callback)["units"] == [4, 4, 3, 3]

    (certificate,) = callback.removals[0].certificates
    assert certificate.in_training == "in expectation"
    assert certificate.as_dict()["in_training"] == "in expectation"
    assert str(callback.removals[0]).endswith(
        "; equal in training: 1 in expectation"
    )
    np.testing.assert_allclose(distiller.student(X), before, rtol=1e-6)


def test_a_negligible_constant_that_no_bias_can_take_leaves_all_the_same():
    student = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(3, 1, activation="relu", name="conv"),
            layers.Conv2D(2, 3, padding="same"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    conv = student.get_layer("conv")
    conv.kernel.assign(np.reshape([1.0, 1.0, 0.0], (1, 1, 1, 3)))
    conv.bias.assign([0.0, 0.0, 1e-3])
    x = np.random.default_rng(0).uniform(size=(64, 4, 4, 1)).astype("float32")
    teacher = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)]
    )
    distiller = make_distiller(
        prepare(student, layers=["conv"]), teacher=teacher
    )
    callback = pruning()

    history = fit(distiller, callback, x=x, y=np.zeros(64))

    assert history["units"] == [3, 3, 2, 2]
    (certificate,) = callback.removals[0].certificates
    assert (certificate.unit, certificate.kind) == (2, "negligible")
