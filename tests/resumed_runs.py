"""Runs that are ended at an epoch and go on, beside those that never were."""

import random

import keras
import numpy as np
from classifiers import CROSSENTROPY

from keras_kddp import Distiller, DynamicPruning, ResumableCheckpoint, prepare

X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
Y = X[:, :3].argmax(axis=1)
PHASES = {"warmup_epochs": 1, "ramp_epochs": 1, "finetune_epochs": 1}


class EndedError(Exception):
    """Stands for a process that dies."""


class EndAt(keras.callbacks.Callback):
    """Ends a run as an epoch begins, before the others hear of it."""

    runs_first = True

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise EndedError


class Doubling(keras.layers.Layer):
    """A layer of a user, which is not registered; it has state."""

    def build(self, shape):
        self.seen = self.add_weight(shape=(), trainable=False, name="seen")

    def call(self, x):
        self.seen.assign_add(1.0)
        return 2 * x


def student(width=16):
    """Returns a student with noise, moving averages and a layer of a user."""
    x = inputs = keras.Input((6,), name="x")
    x = keras.layers.Dense(width, "relu", name="first")(x)
    x = keras.layers.Dropout(0.2, name="drop")(x)
    x = keras.layers.Dense(width, use_bias=False, name="second")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = Doubling(name="own")(keras.layers.ReLU(name="relu")(x))
    x = keras.layers.Dense(3, name="logits")(x)
    return keras.Model(inputs, x, name="student")


def distiller(optimizer="adam", *, start=None, **arguments):
    """Returns a compiled Distiller; eager, since a trace takes longer."""
    arguments = {"run_eagerly": True, **arguments}
    losses = arguments.pop("distillation_losses", None)
    keras.utils.set_random_seed(0)
    made = Distiller(student(24), prepare(start or student()), losses)
    made.compile(optimizer, CROSSENTROPY, metrics=["accuracy"], **arguments)
    return made


def pruning(**arguments):
    """Returns a callback that removes units after epochs 2 to 4 of 6."""
    settings = {"criterion": "mean_activity", "threshold": 0.25}
    return DynamicPruning(**{**settings, **PHASES, **arguments})


def fit(model, *callbacks, **arguments):
    """Trains for 6 epochs of one step and returns the History."""
    data = {"x": X, "y": Y, "validation_data": (X, Y), "batch_size": 48}
    arguments = {"epochs": 6, **data, **arguments}
    return model.fit(callbacks=list(callbacks), verbose=0, **arguments)


class Outcome:
    """What a run came to, to be compared bit by bit.

    Args:
        make: Returns model, callbacks and arguments of `fit`, all new.
        extra: Further callbacks.
        disturbed: Draw other random numbers before `fit`.
    """

    def __init__(self, make, *extra, disturbed=False):
        self.model, callbacks, arguments = make()
        if disturbed:
            keras.utils.set_random_seed(99)
            keras.random.normal((3,))
        else:
            keras.utils.set_random_seed(5)
        self.history = fit(self.model, *extra, *callbacks, **arguments)
        self.removals = [
            x.removals for x in callbacks if isinstance(x, DynamicPruning)
        ]
        self.random = random.random(), np.random.rand()
        drawn = keras.ops.convert_to_numpy(keras.random.normal((2,)))
        self.random += (drawn.tolist(),)
        self.values = values(self.model)


def values(model):
    """Returns all that training moves: path -> value."""
    if isinstance(model, Distiller):
        variables = model.training_state().variables
    else:
        variables = [*model.variables, *model.optimizer.variables]
    return [(v.path, v.numpy()) for v in variables]


def resumed(make, folder, *ends):
    """Returns the outcome of a run that was ended as epochs began."""
    for end in ends:
        try:
            Outcome(
                make,
                ResumableCheckpoint(folder),
                EndAt(end),
                disturbed=end != ends[0],
            )
        except EndedError:
            continue
        raise AssertionError("The run was not ended.")
    return Outcome(make, ResumableCheckpoint(folder), disturbed=True)


def assert_equal(found, expected):
    """Checks that two outcomes are equal, bit by bit."""
    assert found.history.history == expected.history.history
    assert found.history.epoch == expected.history.epoch
    assert found.removals == expected.removals
    assert found.random == expected.random
    pairs = zip(found.values, expected.values, strict=True)
    for (name, value), (_, then) in pairs:
        np.testing.assert_array_equal(value, then, err_msg=name)
