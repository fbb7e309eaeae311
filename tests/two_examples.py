"""A teacher and a student whose losses for two examples are known by hand."""

import keras
import numpy as np
from classifiers import CROSSENTROPY, softmax
from helpers import to_numpy

from keras_kddp import Distiller

# Two examples whose inputs are also the logits of a student that hands them
# on, and the logits of the teacher for them.
X = np.array([[1.0, 0.0], [0.0, 2.0]], dtype="float32")
TEACHER_LOGITS = np.array([[0.0, 3.0], [4.0, 0.0]])
Y = np.array([0, 0])


def linear(kernel, *layers, **arguments):
    """Returns a model that multiplies by a kernel."""
    kernel = np.array(kernel, dtype="float64")
    dense = keras.layers.Dense(
        kernel.shape[1], use_bias=False, name="logits", **arguments
    )
    model = keras.Sequential([keras.Input(kernel.shape[:1]), dense, *layers])
    dense.kernel.assign(kernel)
    return model


def make_teacher(*layers, **arguments):
    """Returns a model that gives `TEACHER_LOGITS` for `X`."""
    return linear([[0.0, 3.0], [2.0, 0.0]], *layers, **arguments)


def make_student(*layers, **arguments):
    """Returns a model that hands its inputs on as logits."""
    return linear(np.eye(2), *layers, **arguments)


def soft_losses(temperature):
    """Returns T^2 KL(teacher || student) of both examples."""
    p = softmax(TEACHER_LOGITS / temperature)
    q = softmax(X / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(axis=-1)


def hard_losses():
    """Returns the crossentropy of both examples."""
    return -np.log(softmax(X)[[0, 1], Y])


def compiled(distiller, optimizer=None, **arguments):
    """Compiles a Distiller to run without tracing."""
    arguments = {"loss": CROSSENTROPY, "run_eagerly": True, **arguments}
    distiller.compile(optimizer or keras.optimizers.SGD(0.5), **arguments)
    return distiller


def training_loss(distiller, y=Y, sample_weight=None):
    """Returns the loss of a training step on `X`."""
    loss = distiller.compute_loss(
        X, y, sample_weight=sample_weight, training=True
    )
    return float(to_numpy(loss))


def trained_kernel(distiller, **arguments):
    """Returns the student's first kernel after a step on `X`."""
    distiller.fit(X, Y, verbose=0, **arguments)
    return to_numpy(distiller.student.layers[0].kernel)


def ours(teacher, student, **arguments):
    return compiled(Distiller(teacher, student, **arguments))


def ending(activation):
    return [] if activation is None else [keras.layers.Activation(activation)]


def with_normalization(name):
    """Returns a model with BatchNormalization, and Dropout behind it."""
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, name=f"{name}_dense"),
            keras.layers.BatchNormalization(name=f"{name}_norm"),
            keras.layers.ReLU(name=f"{name}_relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
    )
