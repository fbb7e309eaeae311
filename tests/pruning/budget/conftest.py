"""Digits and a teacher of them, for the budgets that are met by training."""

import keras
import pytest
from classifiers import CROSSENTROPY
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """Training and validation rows of digits, as images."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    return (x[:640], y[:640]), (x[1200:], y[1200:])


@pytest.fixture(scope="session")
def teacher(digits):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, "relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile("adam", CROSSENTROPY)
    model.fit(*digits[0], epochs=30, verbose=0)
    return model
