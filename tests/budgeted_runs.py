"""Runs of pruning under a budget, on digits and on small random data."""

import keras
import numpy as np
from classifiers import CROSSENTROPY

from keras_kddp import Distiller, DynamicPruning, prepare
from keras_kddp.surgery import ChannelGraph


def make_student():
    """Returns a student whose convolutions and Dense layer can shrink."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    y = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="a")(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    x = keras.layers.ReLU(name="relu")(keras.layers.Add(name="add")([x, y]))
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(40, "relu", name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))


def compile_eagerly(distiller, optimizer="adam"):
    """Compiles to run without tracing, which every new student would cost."""
    distiller.compile(
        optimizer, CROSSENTROPY, metrics=["accuracy"], run_eagerly=True
    )
    return distiller


def train(
    digits,
    teacher,
    budget,
    *,
    epochs=6,
    optimizer=None,
    batch_size=64,
    **pruning,
):
    """Returns the Distiller and the callback of a run under a budget."""
    train_data, validation = digits
    distiller = Distiller(teacher, prepare(make_student()))
    compile_eagerly(distiller, optimizer or keras.optimizers.Adam(0.005))
    phases = {"warmup_epochs": 1, "ramp_epochs": 1, "finetune_epochs": 2}
    callback = DynamicPruning(budget=budget, **{**phases, **pruning})
    history = distiller.fit(
        *train_data,
        validation_data=validation,
        epochs=epochs,
        batch_size=batch_size,
        validation_batch_size=len(validation[0]),
        verbose=0,
        callbacks=[callback],
    )
    return distiller, callback, history.history


def units_of(distiller):
    return ChannelGraph(distiller.student).units


class Judged(keras.callbacks.Callback):
    """Writes given accuracies over those of the validation data."""

    runs_first = True

    def __init__(self, *accuracies):
        super().__init__()
        self.accuracies = accuracies
        self.weights = []
        self.rates = []

    def on_epoch_end(self, epoch, logs=None):
        if self.accuracies[epoch] is None:
            for name in [n for n in logs if n.startswith("val_")]:
                del logs[name]
        else:
            logs["val_accuracy"] = self.accuracies[epoch]
        self.weights.append(self.model.student.get_weights())
        self.rates.append(float(self.model.optimizer.learning_rate))


X = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")
Y = X[:, :3].argmax(axis=1)


def small(width=16, use_bias=True):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(width, "relu", name="first"),
            keras.layers.Dense(width, "relu", use_bias, name="second"),
            keras.layers.Dense(3, name="logits"),
        ]
    )


def small_run(budget, *callbacks, epochs=4, optimizer="adam", **pruning):
    """Returns Distiller and callback of a run of warm-up 1 and ramp 1."""
    start = pruning.pop("student", None) or small()
    distiller = Distiller(small(24), prepare(start))
    compile_eagerly(distiller, optimizer)
    phases = {"warmup_epochs": 1, "ramp_epochs": 1, "finetune_epochs": 1}
    callback = DynamicPruning(budget=budget, **{**phases, **pruning})
    distiller.fit(
        X,
        Y,
        validation_data=(X, Y),
        epochs=epochs,
        batch_size=len(X),
        verbose=0,
        callbacks=[*callbacks, callback],
    )
    return distiller, callback
