"""A student that does not survive a removal."""

import warnings

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY

from keras_kddp import Budget, Distiller, DynamicPruning, prepare
from keras_kddp.pruning.collapse_guard import CollapseGuard

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(400, 6)).astype("float32")
LABELS = {
    "classes": X[:, :4].argmax(axis=1),
    "binary": (X[:, 0] * X[:, 1] > 0).astype(int),
}


def trained(y, seed=0):
    """Returns a model that has learned some labels."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(24, "relu", name="hidden"),
            keras.layers.Dense(int(y.max()) + 1, name="logits"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), CROSSENTROPY)
    model.fit(X, y, epochs=12, verbose=0, batch_size=100)
    return model


@pytest.fixture(scope="module")
def start():
    """Returns labels and a model that has learned them."""
    return LABELS["classes"], trained(LABELS["classes"])


def collapses(function):
    """Returns what a function returns, and its warnings of a collapse."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = function()
    messages = [str(each.message) for each in caught]
    return found, [each for each in messages if "collapsed after" in each]


def run(
    start,
    *others,
    metrics=("accuracy",),
    validated=True,
    optimizer=None,
    **pruning,
):
    """Returns history, callback, Distiller and what a run told of collapses."""
    y, model = start
    student = prepare(keras.models.clone_model(model), l1=0.0)
    student.set_weights(prepare(model, l1=0.0).get_weights())
    distiller = Distiller(model, student)
    distiller.compile(
        optimizer or keras.optimizers.SGD(1e-3),
        CROSSENTROPY,
        metrics=list(metrics),
        run_eagerly=True,
    )
    phases = {"warmup_epochs": 1, "ramp_epochs": 0, "finetune_epochs": 1}
    callback = DynamicPruning(**{**phases, **pruning})
    arguments = {"validation_data": (X, y), "validation_batch_size": len(X)}
    history, told = collapses(
        lambda: (
            distiller.fit(
                X,
                y,
                **(arguments if validated else {}),
                epochs=6,
                batch_size=200,
                verbose=0,
                callbacks=[callback, *others],
            ).history
        )
    )
    return history, callback, distiller, told


@pytest.mark.parametrize(
    ("labels", "validated"),
    [("classes", True), ("classes", False), ("binary", True)],
)
def test_a_removal_that_makes_a_student_collapse_is_taken_back(
    labels, validated, start
):
    if labels == "binary":
        start = LABELS[labels], trained(LABELS[labels])
    history, callback, distiller, told = run(
        start, validated=validated, threshold=0.999
    )

    column = "val_accuracy" if validated else "accuracy"
    assert f"collapsed after a removal: {column} went from 0." in told[0]
    assert "is taken back, and at most 11 groups of units leave" in told[0]
    assert history["units"][1:4] == [24, 1, 24]
    answers = keras.ops.convert_to_numpy(distiller.student(X)).argmax(axis=1)
    assert (answers == start[0]).mean() > 0.75  # not what the last epoch had
    left = distiller.student.get_layer("hidden").units
    assert left > 1
    (shown,) = callback.removals or [None]
    assert (24 if shown is None else shown.units_after["hidden"]) == left


def test_without_an_accuracy_the_loss_says_so(start):
    history, _, _, told = run(start, metrics=(), threshold=0.999)

    assert "removal: val_student_loss went from 0." in told[0]
    assert history["units"][1:4] == [24, 1, 24]


def test_the_last_removal_is_taken_back_when_the_run_ends(start):
    _, callback, distiller, told = run(
        start, threshold=0.999, warmup_epochs=4, finetune_epochs=0
    )

    assert len(told) == 1
    assert callback.removals == []
    assert distiller.student.get_layer("hidden").units == 24


class Averages(keras.callbacks.Callback):
    """Notes the averages of the weights as the steps of an epoch end."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 4:
            optimizer = self.model.optimizer
            self.found = np.array(optimizer._model_variables_moving_average[0])


@pytest.mark.parametrize("swap_on_epoch", [None, False, True])
def test_a_student_that_is_taken_back_in_the_end_has_averages(
    swap_on_epoch, start
):
    others = [averages := Averages()]
    if swap_on_epoch is not None:
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)
        others.append(swap)
    _, _, distiller, told = run(
        start,
        *others,
        optimizer=keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9),
        threshold=0.999,
        warmup_epochs=4,
        finetune_epochs=0,
    )

    assert len(told) == 1
    kernel = distiller.student.get_layer("hidden").kernel
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(kernel), averages.found, rtol=1e-5
    )


def test_a_size_that_was_asked_for_is_kept_and_the_collapse_is_said(start):
    budget = Budget(max_parameters=6 + 1 + 4 + 4)  # of one unit
    _, _, distiller, told = run(
        start, budget=budget, warmup_epochs=3, finetune_epochs=1
    )

    assert "it stays, for the size that was asked for" in told[-1]
    assert distiller.student.get_layer("hidden").units == 1


def test_a_usual_removal_is_kept(start):
    history, _, _, told = run(start, threshold=0.2)

    assert told == []
    assert 1 < history["units"][-1] < 24


class Fake:
    """Stands for a Distiller whose validation has some rows."""

    student_loss_weight = 1.0

    def __init__(self, rows, classes=2, ones=0):
        labels = np.arange(rows) < ones
        self.fit_validation = (np.zeros((rows, 1)), labels.astype(int))
        self.student = keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(classes)]
        )

    def snapshot(self):
        return self


def judged(before, after, *, rows=10_000, **options):
    """Says whether a guard finds a collapse between two epochs."""
    distiller = Fake(rows, **options)
    guard = CollapseGuard(distiller)
    guard.goes_back(0, before, True)
    guard.note_removal(distiller)
    return guard.goes_back(1, after, True)


def logs(accuracy, loss=1.0, val_loss=1.0):
    return {
        "student_loss": loss,
        "distillation_loss": 0.0,
        "val_accuracy": accuracy,
        "val_student_loss": val_loss,
        "val_distillation_loss": 0.0,
    }


@pytest.mark.parametrize(
    ("before", "after", "options"),
    [
        # Chance is 1 / 2: half of 0.4 above it is 0.2.
        ((0.9, 1.0), (0.71, 1.5), {}),
        ((0.9, 1.0), (0.69, 0.9), {}),  # the loss in training fell
        ((0.62, 1.0), (0.53, 1.5), {}),  # less than ten points
        ((0.9, 1.0), (0.6, 1.5), {"rows": 16}),  # 3 sqrt(0.5 / 16) = 0.53
        ((0.9, 0.1, 0.3), (0.9, 0.5, 0.8), {}),  # less than three times
        ((0.9, 0.1, 0.1), (0.9, 0.5, 0.39), {}),  # (0.1 + log 2) / 2 = 0.397
    ],
)
def test_what_a_usual_run_does_is_no_collapse(before, after, options):
    assert not judged(logs(*before), logs(*after), **options)


@pytest.mark.parametrize(
    ("before", "after", "options"),
    [
        ((0.9, 1.0), (0.69, 1.5), {}),
        ((0.9, 1.0), (0.49, 1.5), {"classes": 10}),
        ((0.9, 0.1, 0.1), (0.9, 0.5, 0.4), {}),
        # One label in ten is 1: who knows that alone is right in 90 %, at a
        # loss of 0.325.
        ((0.97, 0.1, 0.08), (0.9, 0.5, 0.325), {"ones": 1_000}),
    ],
)
def test_what_loses_more_than_half_is_a_collapse(before, after, options):
    with pytest.warns(UserWarning, match="collapsed after a removal"):
        assert judged(logs(*before), logs(*after), **options)


def test_an_epoch_without_validation_is_not_judged():
    distiller = Fake(10_000)
    guard = CollapseGuard(distiller)
    guard.goes_back(0, logs(0.9, 1.0), True)
    guard.note_removal(distiller)
    missing = {"student_loss": 9.0, "distillation_loss": 0.0}

    assert not guard.goes_back(1, missing, True)
    with pytest.warns(UserWarning, match="in epoch 3"):
        assert guard.goes_back(2, logs(0.5, 2.0), True)


def test_fewer_groups_leave_each_time_until_none_does():
    guard = CollapseGuard(Fake(10))
    assert guard.allowed(5) == 5
    for most in (2, 1, 0):
        guard.note_removal(type("Same", (Fake,), {})(10))
        guard._good = None
        guard.most = guard._planned // 2
        assert guard.allowed(5) == most
