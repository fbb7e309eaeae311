"""A loss or a weight that becomes NaN or infinite in a plain training."""

import warnings

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY, Subclassed
from helpers import to_numpy, variable_values

from keras_kddp import Distiller, DynamicPruning, TeacherCache, prepare
from keras_kddp.distillation.loss_guard import LossGuard, with_loss_guard

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X[:, :3].argmax(axis=1)
WITH_NAN = np.where(np.arange(32)[:, None] == 3, np.nan, X)


def network(units=6):
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units, "relu", name="hidden"),
            keras.layers.Dense(3, name="out"),
        ]
    )


def compiled(model, optimizer="sgd"):
    model.compile(
        optimizer, CROSSENTROPY, metrics=["accuracy"], run_eagerly=True
    )
    return model


def distiller(student=None, teacher=None, **options):
    made = Distiller(teacher or network(8), student or network())
    return compiled(made, **options)


def fit(model, *callbacks, x=X, **options):
    """Returns history and warnings of a run of three epochs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = model.fit(
            x,
            Y,
            **{"epochs": 3, "batch_size": 16, "verbose": 0, **options},
            callbacks=[*callbacks],
        ).history
    return history, [
        str(each.message) for each in caught if each.category is UserWarning
    ]


class Before(keras.callbacks.Callback):
    """Notes the values that a student has as each epoch begins."""

    def on_epoch_begin(self, epoch, logs=None):
        self.values = variable_values(self.model.student)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_lost_loss_stops_a_distillation_without_pruning(epoch, value):
    made = distiller()
    before = Before()

    class Spoil(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if len(self.model.history.epoch) == epoch:
                bias = self.model.student.get_layer("out").bias
                bias.assign([value, 0, 0])

    history, (message,) = fit(made, before, Spoil())

    assert len(history["loss"]) == epoch + 1
    assert f"NaN or infinite in epoch {epoch + 1}: training stops" in message
    assert "the model is as it was when that epoch began" in message
    for now, then in zip(
        variable_values(made.student), before.values, strict=True
    ):
        np.testing.assert_array_equal(now, then)
    history, told = fit(made)
    assert np.isfinite(history["loss"]).all()
    assert told == []


RUNS = {
    "rate": lambda: fit(distiller(optimizer=keras.optimizers.SGD(1e30))),
    "inputs": lambda: fit(distiller(), x=WITH_NAN),
    "penalty": lambda: fit(distiller(prepare(network(), l1=3e38))),
    "subclassed": lambda: fit(distiller(Subclassed(3)), x=WITH_NAN),
}


@pytest.mark.parametrize("name", RUNS)
def test_what_loses_a_loss_ends_in_one_warning(name):
    history, (message,) = RUNS[name]()

    assert len(history["loss"]) < 3
    assert "training stops" in message


def test_a_penalty_that_is_infinite_ends_a_run_of_pruning():
    made = distiller(prepare(network(), l1=3e38))
    history, told = fit(made, DynamicPruning(warmup_epochs=1), epochs=4)

    assert len(history["loss"]) == 2
    assert "in epoch 2: training stops" in " ".join(told)
    assert np.isfinite(to_numpy(made.student(X))).all()


@pytest.mark.parametrize("is_pruned", [True, False])
def test_a_validation_loss_that_is_lost_alone_is_told_once(is_pruned):
    made = distiller(prepare(network(), l1=0.0))
    pruning = [DynamicPruning(threshold=0.0)] if is_pruned else []
    history, told = fit(made, *pruning, validation_data=(WITH_NAN, Y), epochs=3)

    assert len(history["loss"]) == 3
    lost = [each for each in told if "validation loss is NaN" in each]
    assert len(lost) == 1
    assert "in epoch 1, and that of the training is not" in lost[0]


def test_a_plain_model_is_guarded_alike():
    model = compiled(network(), keras.optimizers.SGD(1e30))
    before = variable_values(model)
    with pytest.warns(UserWarning, match="in epoch 1 of the control: training"):
        model.fit(
            *(X, Y),
            epochs=3,
            batch_size=8,
            verbose=0,
            callbacks=with_loss_guard([LossGuard("the control")]),
        )
    for now, then in zip(variable_values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_fatal_loss_raises():
    model = compiled(network(), keras.optimizers.SGD(1e30))
    guard = LossGuard("the teacher", is_fatal=True)
    with pytest.raises(RuntimeError, match="of the teacher: nothing can be"):
        model.fit(X, Y, epochs=3, batch_size=8, verbose=0, callbacks=[guard])


def test_a_guard_stands_before_what_wants_to_be_last():
    class Last(keras.callbacks.Callback):
        runs_last = True

    first, last = keras.callbacks.Callback(), Last()
    found = with_loss_guard([last, first])

    assert found[0] is first
    assert isinstance(found[1], LossGuard)
    assert found[2] is last
    assert with_loss_guard(found) is found
    assert isinstance(with_loss_guard(None)[0], LossGuard)


def test_teacher_outputs_that_are_lost_are_found_in_a_live_teacher():
    teacher = network(8)
    teacher.get_layer("hidden").kernel.assign(np.full((4, 8), 3e38))
    teacher.get_layer("out").kernel.assign(np.full((8, 3), 3e38))

    _, (message,) = fit(distiller(teacher=teacher))
    assert "the teacher's outputs" in message
    with pytest.raises(ValueError, match="outputs of `teacher` must be finite"):
        TeacherCache(teacher, X)


def test_labels_that_a_loss_ignores_may_be_there():
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-1
    )
    made = Distiller(network(8), network())
    made.compile("sgd", loss, run_eagerly=True)
    labels = np.where(np.arange(32) == 3, -1, Y)

    assert len(made.fit(X, labels, verbose=0).history["loss"]) == 1


def test_labels_do_not_count_where_they_weigh_nothing():
    made = Distiller(network(8), network(), student_loss_weight=0.0)
    made.compile("sgd", run_eagerly=True)

    assert len(made.fit(X, Y + 9, verbose=0).history["loss"]) == 1
