"""The callback that ends a run with its best student."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from known_activity import X, Y, fit, make_distiller, pruning
from resumed_runs import EndAt, EndedError

from keras_kddp import BestStudent, Budget, ResumableCheckpoint
from keras_kddp.distillation.checkpoints import resumable
from keras_kddp.layers.penalized_models import penalty_layers
from keras_kddp.pruning.budget import forecast

UNITS = [4, 4, 2, 2]  # of `fc` in the epochs of a pruned run
PARAMETERS = {4: 22, 2: 12}


class Scores(keras.callbacks.Callback):
    """Writes the numbers of a column, and keeps the weights of each epoch."""

    runs_first = True

    def __init__(self, *values, name="score"):
        super().__init__()
        self.values, self.name = values, name
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        if self.values[epoch] is not None:
            logs[self.name] = self.values[epoch]
        self.weights.append(self.model.student.get_weights())


def best(*arguments, **named):
    return BestStudent("score", "max", *arguments, **named)


def assert_is_of(distiller, scores, epoch):
    """Checks that the student is that of an epoch."""
    found = [
        w for w in distiller.student.weights if w.name != "penalty_strength"
    ]
    expected = scores.weights[epoch]
    names = [w.name for w in distiller.student.weights]
    expected = [
        w
        for name, w in zip(names, expected, strict=True)
        if name != "penalty_strength"
    ]
    for weight, then in zip(found, expected, strict=True):
        np.testing.assert_array_equal(weight.numpy(), then)


@pytest.mark.parametrize(("epoch", "order"), [(0, 1), (1, -1), (2, 1), (3, -1)])
def test_the_best_student_comes_back_whatever_its_shape(epoch, order):
    scores = Scores(*(float(x == epoch) for x in range(4)))
    distiller, keeping, removing = make_distiller(rate=0.01), best(), pruning()

    logs = fit(distiller, scores, *[keeping, removing][::order])

    assert logs["units"] == UNITS
    assert distiller.student.get_layer("fc").units == UNITS[epoch]
    assert_is_of(distiller, scores, epoch)
    assert int(distiller.optimizer.iterations) == epoch + 1
    assert (keeping.best, keeping.best_epoch) == (1.0, epoch)
    assert len(removing.removals) == (UNITS[epoch] == 2)
    (penalty,) = penalty_layers(distiller.student)
    assert float(penalty.strength) == logs["penalty_strength"][-1] == 0.0


def test_without_removals_it_does_what_early_stopping_does():
    scores = Scores(3.0, 1.0, 2.0, name="val_loss")
    distiller = make_distiller(rate=0.5)
    fit(distiller, BestStudent(), scores, epochs=3)
    assert_is_of(distiller, scores, 1)


def test_the_first_of_equals_stays():
    keeping = best()
    fit(make_distiller(), keeping, Scores(1, 2, 2, 0))
    assert keeping.best_epoch == 1


def test_numbers_that_are_not_finite_do_not_count():
    keeping = best()
    fit(make_distiller(), keeping, Scores(float("inf"), 1, float("nan"), 0))
    assert keeping.best_epoch == 1


@pytest.mark.parametrize(
    "budget", [Budget(max_parameters=PARAMETERS[2]), Budget(max_macs=8)]
)
def test_the_best_that_fits_its_budget_comes_back(budget):
    scores = Scores(9, 8, 1, 2)
    distiller, keeping = make_distiller(rate=0.01), best(budget=budget)
    fit(distiller, pruning(), keeping, scores)
    assert_is_of(distiller, scores, 3)
    assert keeping.best == 2


def test_an_int8_file_is_measured_once_for_each_student(monkeypatch):
    sizes = []

    def size(student, data):
        sizes.append(student.get_layer("fc").units)
        assert data.shape == (4, 2)
        return 100 * sizes[-1]

    measure = forecast.Measure(size, 0, 0.0)
    monkeypatch.setitem(forecast.MEASURED, "bytes", measure)
    keeping = best(budget=Budget(max_bytes=250))
    fit(make_distiller(), pruning(), keeping, Scores(1, 2, 3, 4))
    assert keeping.best_epoch == 3
    assert sizes == [4, 2]


def test_none_that_fits_is_said():
    distiller = make_distiller()
    keeping = best(budget=Budget(max_parameters=3))
    with pytest.warns(UserWarning, match="No student of this run fits Budget"):
        fit(distiller, keeping, Scores(1, 2, 3, 4))
    assert keeping.best is None


def test_a_column_that_never_came_is_said():
    with pytest.warns(UserWarning, match="No epoch had a finite 'val_loss'"):
        fit(make_distiller(), BestStudent())


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="`monitor` must be a column of the"):
        fit(make_distiller(), best())
    with pytest.raises(ValueError, match="Received: monitor='val_score'"):
        fit(
            make_distiller(),
            BestStudent("val_score", "max"),
            validation_data=(X, Y),
        )


def guarded(*accuracies):
    """Returns a run in which the accuracy may fall by a tenth."""
    distiller = make_distiller(rate=0.01)
    distiller.compile(
        distiller.optimizer,
        distiller.loss,
        metrics=["accuracy"],
        run_eagerly=True,
    )
    judged = Scores(*accuracies, name="val_accuracy")
    return distiller, judged, pruning(budget=Budget(max_accuracy_drop=0.1))


@pytest.mark.parametrize("order", [1, -1])
def test_an_epoch_that_exceeds_the_accuracy_drop_does_not_count(order):
    distiller, judged, removing = guarded(0.9, 0.9, 0.5, 0.5, 0.9, 0.9)
    keeping, scores = best(), Scores(1, 2, 9, 8, 3, 4)
    fit(
        distiller,
        judged,
        scores,
        *[removing, keeping][::order],
        validation_data=(X, Y),
        epochs=6,
    )
    assert keeping.best_epoch not in (2, 3)
    assert_is_of(distiller, scores, keeping.best_epoch)


def test_none_that_keeps_the_accuracy_is_said():
    distiller, _, removing = guarded()
    removing.budget = Budget(max_accuracy_drop=0.1, reference=0.99)
    with pytest.warns(UserWarning) as caught:
        fit(
            distiller,
            Scores(0.1, 0.1, 0.1, 0.1, name="val_accuracy"),
            Scores(1, 2, 3, 4),
            removing,
            best(),
            validation_data=(X, Y),
        )
    said = [str(x.message) for x in caught]
    assert any("run kept the `max_accuracy_drop`: the last" in x for x in said)


@pytest.mark.parametrize("swap_on_epoch", [None, True, False])
def test_with_averages_the_weights_are_those_that_were_judged(swap_on_epoch):
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    distiller = make_distiller(optimizer=optimizer)
    judged = []

    class Judge(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            judged.append(self.model.student.get_weights())

    others = [Judge(), best(), Scores(1, 3, 2)]
    if swap_on_epoch is not None:
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)
        others.insert(1, swap)
    fit(distiller, *others, validation_data=(X, Y), epochs=3)

    pairs = zip(distiller.student.get_weights(), judged[1], strict=True)
    for weight, then in pairs:
        np.testing.assert_allclose(weight, then, rtol=1e-6)


def test_the_best_student_so_far_goes_on_with_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN", 0.0)
    scores = Scores(1, 9, 2, 3)
    first = [scores, pruning(), best(), ResumableCheckpoint(tmp_path / "a")]
    with pytest.raises(EndedError):
        fit(make_distiller(rate=0.01), *first, EndAt(3))

    distiller, keeping = make_distiller(rate=0.01), best()
    again = [Scores(0, 0, 0, 3), pruning(), keeping]
    fit(distiller, *again, ResumableCheckpoint(tmp_path / "a"))

    assert keeping.best_epoch == 1
    assert distiller.student.get_layer("fc").units == 4
    assert_is_of(distiller, scores, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score",), "`mode` must be 'min' or 'max' for a column that does"),
        (("loss", "lowest"), "`mode` must be 'auto', 'min' or 'max'"),
        ((3,), "`monitor` must be the name of a column"),
        (("", "max"), "`monitor` must be the name of a column"),
        (("loss", "min", 9), "`budget` must be a keras_kddp.Budget"),
        (
            ("loss", "min", Budget(max_accuracy_drop=0.1)),
            "`budget` must limit a size",
        ),
    ],
    ids=["auto", "mode", "number", "empty", "budget", "accuracy"],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BestStudent(*arguments)


@pytest.mark.parametrize(
    ("monitor", "larger"),
    [("val_loss", False), ("val_accuracy", True), ("units", False)],
)
def test_the_name_of_a_column_says_which_is_better(monitor, larger):
    keeping = BestStudent(monitor)
    fit(make_distiller(), keeping, Scores(1, 3, 0, name=monitor), epochs=3)
    assert keeping.best == (3 if larger else 0)


def test_the_fit_of_another_model_is_refused():
    model = make_distiller().student
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Received: the fit of a Sequential"):
        model.fit(X, np.ones((4, 2)), callbacks=[BestStudent()], verbose=0)


def test_a_file_that_cannot_be_measured_is_refused():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    keeping = best(budget=Budget(max_bytes=10))
    with pytest.raises(ValueError, match="limits an int8 file, which takes"):
        fit(make_distiller(), keeping, x=data, y=None, shuffle=False)


def test_several_are_refused():
    with pytest.raises(ValueError, match="One BestStudent must be in"):
        fit(make_distiller(), BestStudent("loss"), BestStudent("val_loss"))
