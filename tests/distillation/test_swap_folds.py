"""A constant folded into a bias is folded into what optimizers keep for it.

The reference is the student with all its units, in which no gradient reaches
the rows of the removed units any more. In float64.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers import outputs_of, relative_error
from keras import layers, optimizers

import keras_kddp as kddp
from keras_kddp.model_io import to_numpy

TOLERANCE = 1e-10
REMOVED = [1, 4]

MakeOptimizer = Callable[[], Any]


class Rows(layers.Dense):
    """A Dense layer; from `hold` on, some rows get no gradient."""

    def build(self, input_shape):
        super().build(input_shape)
        self.held = self.add_weight(
            name="held",
            shape=(input_shape[-1], 1),
            initializer="zeros",
            trainable=False,
        )

    def call(self, inputs):
        held = self.held * keras.ops.stop_gradient(self.kernel)
        kernel = (1 - self.held) * self.kernel + held
        outputs = keras.ops.matmul(inputs, kernel)
        return outputs + self.bias if self.use_bias else outputs

    def hold(self, rows):
        held = np.zeros(self.held.shape)
        held[rows] = 1
        self.held.assign(held)


def student_of(bias: bool, last: type = layers.Dense) -> keras.Model:
    """Units 1 and 4 never fire; the layer behind makes 1.3 and 2.2 of it."""
    student = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, "relu", name="fc"),
            layers.BatchNormalization(name="norm", trainable=False),
            last(3, use_bias=bias, name="logits"),
        ]
    )
    random = np.random.default_rng(5)
    for weight in student.trainable_weights:
        weight.assign(random.normal(0, 0.5, weight.shape))
    kernel, shift = student.get_layer("fc").get_weights()
    kernel[:, REMOVED], shift[REMOVED] = 0, -1
    student.get_layer("fc").set_weights([kernel, shift])
    student.get_layer("norm").beta.assign(np.linspace(1, 2.5, 6))
    return student


def distiller_of(
    optimizer: Any, *, bias: bool, last: type = layers.Dense
) -> kddp.Distiller:
    student = student_of(bias, last)
    distiller = kddp.Distiller(student_of(True), student)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(optimizer, loss, run_eagerly=True)
    return distiller


X = np.random.default_rng(6).normal(size=(16, 4))
Y = np.arange(16) % 3


def train(distiller: kddp.Distiller, steps: int, *, gradients: bool) -> None:
    for step in range(steps):
        rows = slice(8 * (step % 2), 8 * (step % 2) + 8)
        weights = np.full(8, float(gradients))
        distiller.train_on_batch(X[rows], Y[rows], sample_weight=weights)


def remove(distiller: kddp.Distiller) -> None:
    student = distiller.student
    if isinstance(student.get_layer("logits"), Rows):
        student.get_layer("logits").hold(REMOVED)
        return
    shift = to_numpy(student.get_layer("norm").beta)
    constants = {"fc": {unit: shift[unit] for unit in REMOVED}}
    plan = kddp.plan_removal(student, {"fc": REMOVED}, constants=constants)
    distiller.replace_student(plan)


def difference(make: MakeOptimizer, *, bias: bool, gradients: bool) -> float:
    """Returns how far the outputs are off.

    At once, two steps later, and with what the end of a run puts in place,
    where the optimizer averages: the largest of the three.
    """
    found = []
    for last in (layers.Dense, Rows):
        distiller = distiller_of(make(), bias=bias, last=last)
        train(distiller, 2, gradients=True)
        remove(distiller)
        student, optimizer = distiller.student, distiller.optimizer
        outputs = outputs_of(student, X)
        train(distiller, 2, gradients=gradients)
        outputs += outputs_of(student, X)
        optimizer.finalize_variable_values(student.trainable_variables)
        found.append([*outputs, *outputs_of(student, X)])
    return relative_error(*found)


LINEAR: dict[str, MakeOptimizer] = {
    "sgd": lambda: optimizers.SGD(0.05),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "decay": lambda: optimizers.SGD(0.05, momentum=0.9, weight_decay=0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.9, centered=True),
    "adagrad": lambda: optimizers.Adagrad(0.05),
    "adadelta": lambda: optimizers.Adadelta(1.0),
    "ftrl": lambda: optimizers.Ftrl(0.05, beta=0.5),
    "schedule_free": lambda: optimizers.ScheduleFreeAdamW(
        0.05, weight_decay=0.1
    ),
    "ema": lambda: optimizers.SGD(0.05, use_ema=True, ema_momentum=0.8),
    "ema_each_step": lambda: optimizers.SGD(
        0.05, momentum=0.9, use_ema=True, ema_overwrite_frequency=1
    ),
    "ema_sometimes": lambda: optimizers.RMSprop(
        0.01, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=3
    ),
    "ema_schedule_free": lambda: optimizers.ScheduleFreeAdamW(
        0.05, use_ema=True, ema_momentum=0.7
    ),
    "accumulation": lambda: optimizers.SGD(
        0.05, momentum=0.9, gradient_accumulation_steps=3
    ),
    "loss_scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.8)
    ),
}
UNTIL_GRADIENTS: dict[str, MakeOptimizer] = {
    # Their epsilon is not divided as the rest is: the default is felt at 1e-9.
    "adam": lambda: optimizers.Adam(0.01, epsilon=1e-12),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-12),
    "adamax": lambda: optimizers.Adamax(0.01, epsilon=1e-12),
    "nadam": lambda: optimizers.Nadam(0.01, epsilon=1e-12),
    "ftrl_l1_l2": lambda: optimizers.Ftrl(
        0.05,
        l1_regularization_strength=0.01,
        l2_regularization_strength=0.01,
    ),
    "ema_ftrl": lambda: optimizers.Ftrl(
        0.05, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=2
    ),
    "ema_adam": lambda: optimizers.Adam(
        0.01, use_ema=True, ema_momentum=0.8, epsilon=1e-12
    ),
    "loss_scale_schedule_free": lambda: optimizers.LossScaleOptimizer(
        optimizers.ScheduleFreeAdamW(0.05, use_ema=True)
    ),
    "one_optimizer_per_layer": lambda: optimizers.MultiOptimizer(
        optimizers.OptimizerMap(
            optimizers.SGD(0.05),
            {"logits/.*": optimizers.Adamax(0.01, use_ema=True)},
        )
    ),
}


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("optimizer", LINEAR)
def test_a_fold_is_exact_whatever_gradients_follow_for(optimizer):
    make = LINEAR[optimizer]
    assert difference(make, bias=True, gradients=True) <= TOLERANCE


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("optimizer", LINEAR | UNTIL_GRADIENTS)
def test_a_fold_into_a_new_bias_is_exact_until_gradients_come_for(optimizer):
    make = (LINEAR | UNTIL_GRADIENTS)[optimizer]
    assert difference(make, bias=False, gradients=False) <= TOLERANCE


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("optimizer", UNTIL_GRADIENTS)
def test_a_fold_is_exact_until_gradients_come_for(optimizer):
    make = UNTIL_GRADIENTS[optimizer]
    assert difference(make, bias=True, gradients=False) <= TOLERANCE
