"""The callback: its arguments, its lines and columns, its neighbours."""

import csv

import keras
import numpy as np
import pytest
from known_activity import PARAMETERS, X, Y, fit, make_distiller, pruning

from keras_kddp import Budget, DynamicPruning, prepare
from keras_kddp.layers.penalized_models import penalty_layers
from keras_kddp.pruning.preflight import check_pruning
from keras_kddp.surgery import ChannelGraph


class Spy(keras.callbacks.Callback):
    """Notes the student's units and the strength, as other callbacks see."""

    def __init__(self):
        super().__init__()
        self.units, self.logged, self.strengths = [], [], []

    def on_epoch_end(self, epoch, logs=None):
        (penalty,) = penalty_layers(self.model.student)
        self.strengths.append(float(penalty.strength))
        self.units.append(self.model.student.get_layer("fc").units)
        self.logged.append(logs["units"])


def test_other_callbacks_see_the_student_that_the_logs_describe():
    first, last = Spy(), Spy()

    history = fit(make_distiller(), first, pruning(), last)

    for spy in (first, last):
        assert spy.units == spy.logged == history["units"]
        assert spy.strengths == history["penalty_strength"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_logger_has_the_columns_wherever_it_is_listed(tmp_path, order):
    path = tmp_path / "log.csv"
    callbacks = [keras.callbacks.CSVLogger(path), pruning()][::order]

    history = fit(make_distiller(), *callbacks)

    with path.open() as file:
        rows = list(csv.DictReader(file))
    for name in ("units", "live_units", "parameters", "penalty_strength"):
        assert [float(row[name]) for row in rows] == history[name]


PACKINGS = {
    "nested lists": lambda *callbacks: [[callbacks[0]], *callbacks[1:]],
    "CallbackList": lambda *callbacks: keras.callbacks.CallbackList(callbacks),
    "with History": lambda *callbacks: keras.callbacks.CallbackList(
        [keras.callbacks.History(), [*callbacks]], add_history=True, epochs=9
    ),
    "CallbackList in a list": lambda *callbacks: [
        keras.callbacks.CallbackList([callbacks[0]]),
        *callbacks[1:],
    ],
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("packing", PACKINGS)
def test_callbacks_may_be_packed_in_any_way(tmp_path, packing, order):
    path, distiller = tmp_path / "log.csv", make_distiller()
    callbacks = [keras.callbacks.CSVLogger(path), pruning()][::order]

    history = distiller.fit(
        X, Y, epochs=4, verbose=0, callbacks=PACKINGS[packing](*callbacks)
    )

    assert history.history["units"] == [4, 4, 2, 2]
    with path.open() as file:
        assert [row["units"] for row in csv.DictReader(file)] == [*"4422"]


class OwnList(keras.callbacks.CallbackList):
    """A list that may call its callbacks in a way of its own."""


def test_a_list_of_a_class_of_its_own_has_to_know_the_epochs():
    distiller = make_distiller()
    arguments = {"epochs": 4, "verbose": 0}

    with pytest.raises(ValueError, match="whose params are .*, without 'epoc"):
        distiller.fit(
            X, Y, callbacks=OwnList([pruning()], model=distiller), **arguments
        )

    own = OwnList([pruning()], add_history=True, model=distiller, epochs=4)
    history = distiller.fit(X, Y, callbacks=own, **arguments)
    assert history.history["units"] == [4, 4, 2, 2]


def test_callbacks_in_a_callback_list_are_checked():
    early = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    packed = keras.callbacks.CallbackList([pruning(), early])
    with pytest.raises(ValueError, match="`EarlyStopping` keeps weights"):
        make_distiller().fit(X, Y, callbacks=packed, epochs=4, verbose=0)


def test_a_verbose_run_prints_one_line_per_removal(capsys):
    fit(make_distiller(), pruning(verbose=1))

    printed = capsys.readouterr().out.split("\n")
    assert [line for line in printed if line] == [
        f"Epoch 3: removed units (fc 4 -> 2), parameters {PARAMETERS[4]} -> "
        f"{PARAMETERS[2]}; 1 observed dead (fire on < 75.00% of examples, 95 % "
        "confidence), 1 negligible (contribute <= 0.10% of the largest)"
    ]


def test_a_run_is_silent_by_default(capsys):
    fit(make_distiller(), pruning())

    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "make",
    [
        lambda path: keras.callbacks.EarlyStopping("loss", patience=9),
        lambda path: keras.callbacks.ModelCheckpoint(path / "{epoch}.keras"),
        lambda path: keras.callbacks.ReduceLROnPlateau("loss"),
        lambda path: keras.callbacks.LearningRateScheduler(lambda epoch: 0.0),
        lambda path: keras.callbacks.TerminateOnNaN(),
    ],
    ids=["early", "checkpoint", "plateau", "schedule", "nan"],
)
def test_it_gets_along_with_other_callbacks(tmp_path, make):
    history = fit(make_distiller(), pruning(), make(tmp_path))

    assert history["units"] == [4, 4, 2, 2]
    for path in tmp_path.glob("*.keras"):
        saved = keras.models.load_model(path).student
        units = history["units"][int(path.stem) - 1]
        assert saved.get_layer("fc").units == units


@pytest.mark.parametrize(
    "criterion", ["apoz", "Contribution", None, 0.02, ["contribution"]]
)
def test_a_criterion_that_does_not_exist_is_refused(criterion):
    message = r"one of \['contribution', .*'never_active', .*\] or a function"
    with pytest.raises(ValueError, match=message):
        DynamicPruning(criterion)


@pytest.mark.parametrize("name", ["threshold", "minimum_change"])
@pytest.mark.parametrize("value", [-0.1, 1, 1.0, float("nan"), "0.1", [0.1]])
def test_a_share_outside_of_0_to_1_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be a number in \[0"):
        DynamicPruning(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", 0),
        ("samples", 0.5),
        ("minimum_units", 0),
        ("minimum_units", True),
        ("warmup_epochs", -1),
        ("ramp_epochs", 1.5),
        ("finetune_epochs", "3"),
    ],
)
def test_a_count_that_is_none_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer >="):
        DynamicPruning(**{name: value})


def test_numbers_may_be_of_numpy():
    callback = DynamicPruning(
        threshold=np.float32(0.5), samples=np.int64(4), warmup_epochs=np.int8(0)
    )

    history = fit(make_distiller(), callback, epochs=3)

    assert history["units"][-1] < 4


def test_an_argument_that_is_moved_in_the_middle_counts_from_then_on():
    callback = pruning(threshold=0.0, finetune_epochs=0)
    moving = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(
            callback, "threshold", 0.02 * (epoch >= 2)
        )
    )

    history = fit(make_distiller(), callback, moving)

    assert history["units"] == [4, 4, 3, 2]


def test_an_argument_that_is_spoilt_is_refused_before_the_run():
    callback = pruning()
    callback.threshold = 2

    with pytest.raises(ValueError, match=r"`threshold` must be .* \[0, 1\)"):
        fit(make_distiller(), callback)


class Late(DynamicPruning):
    """A subclass with arguments and phases of its own."""

    def __init__(self, note, **arguments):
        super().__init__(**arguments)
        self.note = note

    def phases(self, epochs):
        return super().phases(epochs)._replace(warmup=2, ramp=1, finetune=1)


def test_the_phases_of_a_subclass_are_the_phases_of_its_runs():
    history = fit(make_distiller(), Late("late"))

    assert history["penalty_strength"] == [0.0, 0.0, 1.0, 0.0]


def test_a_callback_for_another_run_has_all_arguments_and_no_state():
    callback = Late("late", threshold=0.1)
    fit(make_distiller(), callback)
    budget = Budget(max_parameters=10)

    other = callback.for_another_run(budget)

    assert (other.note, other.threshold, other.budget) == ("late", 0.1, budget)
    assert other.removals == []
    assert callback.budget is None
    assert callback.removals != []


def test_what_was_checked_of_another_student_is_not_used():
    small, callback = make_distiller(), pruning()
    graph = ChannelGraph(small.student)
    callback.preflight = check_pruning(callback.settings(), graph, X[:1])
    inputs = keras.Input((2,))
    x = keras.layers.Dense(7, "relu", name="fc")(inputs)
    wide = prepare(keras.Model(inputs, keras.layers.Dense(2)(x)))

    assert callback.preflight.is_for(callback.settings(), graph)
    assert not callback.preflight.is_for(
        callback.settings(), ChannelGraph(wide)
    )
    assert not callback.preflight.is_for(pruning(data=X).settings(), graph)
    fit(make_distiller(wide), callback)  # observes the rows of this fit
    assert callback.removals[0].certificates[0].examples == len(X)
