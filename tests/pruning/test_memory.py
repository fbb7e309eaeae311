"""What a removal replaces is let go: students, optimizers, traced steps."""

import gc
import weakref

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY

from keras_kddp import Budget, Distiller, DynamicPruning, prepare

X = np.random.default_rng(0).random((32, 4), "float32")
Y = np.arange(32) % 2
EPOCHS = 3


def one_unit_each(activity, outgoing_norm):
    """Finds the first unit of a layer inactive."""
    scores = np.ones(len(activity.mean))
    scores[0] = 0.0
    return scores


class Watch(keras.callbacks.Callback):
    """Notes what each epoch trained, and what of it lives at the next end."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.alive = []
        self.registered = []

    def on_epoch_end(self, epoch, logs=None):
        self.alive.append(
            [
                sum(x() is not None for x in kind)
                for kind in zip(*self.seen, strict=True)
            ]
        )
        trained = (
            self.model.student,
            self.model.optimizer,
            self.model.train_function,
        )
        self.seen.append([weakref.ref(x) for x in trained])
        self.registered.append(registered_gradients())


def registered_gradients():
    if keras.backend.backend() != "tensorflow":
        return 0
    from tensorflow.python.framework import ops

    return len(ops.gradient_registry.list())


def fit(optimizer="adam", validation_data=None, **arguments):
    """Trains with a removal before every epoch but the first."""
    layers = keras.layers
    models = [
        keras.Sequential(
            [keras.Input((4,)), layers.Dense(9, "relu"), layers.Dense(2)]
        )
        for _ in range(2)
    ]
    distiller = Distiller(models[0], prepare(models[1]))
    distiller.compile(optimizer, CROSSENTROPY, metrics=["accuracy"])
    phases = {"warmup_epochs": 0, "ramp_epochs": 0, "finetune_epochs": 0}
    pruning = DynamicPruning(one_unit_each, **phases, **arguments)
    watch = Watch()
    gc.disable()  # what is freed is freed by the removal
    try:
        distiller.fit(
            X,
            Y,
            validation_data=validation_data,
            epochs=EPOCHS,
            verbose=0,
            callbacks=[pruning, watch],
        )
    finally:
        gc.enable()
    assert len(pruning.removals) == EPOCHS - 1
    return watch


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.1, gradient_accumulation_steps=2),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
    ],
    ids=["accumulating", "scaled"],
)
def test_a_removal_frees_what_was_trained_before(make):
    before = registered_gradients()

    watch = fit(make())

    assert watch.registered == [before] * EPOCHS
    # Until this epoch was judged there was a student to go back to.
    for students, optimizers, steps in watch.alive[1:]:
        assert max(students, optimizers) <= 1
        assert steps == 0


def test_an_accuracy_guard_holds_the_last_good_student_and_no_other():
    budget = Budget(max_accuracy_drop=0.9, max_parameters=30)

    watch = fit(validation_data=(X, Y), budget=budget)

    assert max(students for students, *_ in watch.alive[1:]) <= 1
