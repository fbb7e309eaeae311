"""Three examples, and a teacher whose outputs for them are written down."""

import keras
import numpy as np

X = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]], dtype="float32")
Y = np.array([0, 1, 1])
KERNEL = np.array([[0.0, 3.0], [2.0, 0.0]])
LOGITS = np.array([[0.0, 3.0], [4.0, 0.0], [2.0, 9.0]])  # X @ KERNEL


def make_teacher(activation=None):
    dense = keras.layers.Dense(2, activation, use_bias=False)
    model = keras.Sequential([keras.Input((2,)), dense])
    dense.kernel.assign(KERNEL)
    return model


def make_student():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(8, "relu", name="hidden"),
            keras.layers.Dense(2),
        ]
    )
