"""Runs of pruning on four rows, whose activity is known by hand."""

import keras
import numpy as np
from classifiers import CROSSENTROPY

from keras_kddp import Distiller, DynamicPruning, prepare

X = np.array([[1.0, 2.0], [3.0, 1.0], [2.0, 2.0], [4.0, 1.0]], "float32")
Y = np.array([0, 1, 0, 1])
# Unit 0 hands the first input on, unit 1 the second; unit 2 is dead, and unit
# 3 sends a thousandth of what unit 0 sends.
KERNEL = np.array([[1.0, 0.0, 0.0, 0.001], [0.0, 1.0, 0.0, 0.0]])
BIAS = np.array([0.0, 0.0, -1.0, 0.0])
PARAMETERS = {4: (2 * 4 + 4) + (4 * 2 + 2), 2: (2 * 2 + 2) + (2 * 2 + 2)}


def make_student():
    """Returns a prepared student with a hidden layer `fc` of four units."""
    student = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(4, "relu", name="fc"),
            keras.layers.Dense(2, name="out", kernel_initializer="ones"),
        ]
    )
    student.get_layer("fc").set_weights([KERNEL, BIAS])
    return prepare(student)


def make_distiller(
    student=None, rate=0.0, optimizer=None, teacher=None, **arguments
):
    """Returns a compiled Distiller; at rate 0 its weights stand still."""
    teacher = teacher or keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2)]
    )
    distiller = Distiller(teacher, student or make_student(), **arguments)
    distiller.compile(
        optimizer or keras.optimizers.SGD(rate),
        CROSSENTROPY,
        run_eagerly=True,
    )
    return distiller


def pruning(**arguments):
    """Returns a callback whose run is warm-up, ramp, hold, fine-tuning."""
    phases = {"warmup_epochs": 1, "ramp_epochs": 1, "finetune_epochs": 1}
    return DynamicPruning(**{**phases, **arguments})


def fit(distiller, *callbacks, epochs=4, **arguments):
    """Trains on four rows and returns what History holds."""
    arguments = {"x": X, "y": Y, "verbose": 0, **arguments}
    history = distiller.fit(
        epochs=epochs, callbacks=list(callbacks), **arguments
    )
    return history.history


class Changing:
    """A criterion that finds another unit inactive at every call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, activity, outgoing_norm):
        self.calls += 1
        scores = np.ones(len(activity.mean))
        scores[0] = 0.0
        return scores
