"""A constant folded into a bias is folded into what optimizers keep for it.

The reference is the student with all its units, in which no gradient reaches
the rows of the removed units any more. In float64.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from helpers import outputs_of, relative_error
from keras import layers, optimizers
from swap_reference import weight_of

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


def student_of(
    bias: bool, last: type = layers.Dense, **arguments: Any
) -> keras.Model:
    """Units 1 and 4 never fire; the layer behind makes 1.3 and 2.2 of it."""
    student = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, "relu", name="fc"),
            layers.BatchNormalization(name="norm", trainable=False),
            last(3, use_bias=bias, name="logits", **arguments),
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
    optimizer: Any, *, bias: bool, last: type = layers.Dense, **arguments: Any
) -> kddp.Distiller:
    student = student_of(bias, last, **arguments)
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


def difference(
    make: MakeOptimizer, *, bias: bool, gradients: bool, **arguments: Any
) -> float:
    """Returns how far the outputs are off.

    At once, two steps later, and with what the end of a run puts in place,
    where the optimizer averages: the largest of the three.
    """
    found = []
    for last in (layers.Dense, Rows):
        distiller = distiller_of(make(), bias=bias, last=last, **arguments)
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
            {".*logits/.*": optimizers.Adamax(0.01, use_ema=True)},
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


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(
    "optimizer", ["momentum", "ema", "ftrl", "schedule_free"]
)
def test_without_the_fold_an_optimizer_takes_the_constant_back(
    optimizer, monkeypatch
):
    state = "keras_kddp.surgery.optimizer_state"
    monkeypatch.setattr(f"{state}.fold_into", lambda slots: ())
    monkeypatch.setattr(f"{state}.fold_averages", lambda every, folds: None)
    assert difference(LINEAR[optimizer], bias=True, gradients=False) > 1e-3


# What is warned of


class Own(optimizers.SGD):
    """Keeps something of its own."""

    def build(self, variables):
        super().build(variables)
        self.slow = self.add_optimizer_variables(variables, "slow")


def half_decayed() -> Any:
    optimizer = optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def two_optimizers() -> Any:
    by_path = {".*logits/bias": optimizers.SGD(0.05)}
    return optimizers.MultiOptimizer(
        optimizers.OptimizerMap(optimizers.SGD(0.01), by_path)
    )


WARNED = {
    "Lion goes on, but .* sign of a momentum": lambda: optimizers.Lion(0.01),
    "Lamb goes on, but .* moves a bias by how": lambda: optimizers.Lamb(0.01),
    "Own goes on, but .* a way of its own": lambda: Own(0.01),
    "Ftrl goes on, but .* shrinks each weight": lambda: optimizers.Ftrl(
        0.05, l2_shrinkage_regularization_strength=0.1
    ),
    "Adam goes on, but .* accumulated gradients": lambda: optimizers.Adam(
        0.01, gradient_accumulation_steps=3
    ),
    "SGD goes on, but .* accumulated gradients": lambda: optimizers.SGD(
        0.01, gradient_accumulation_steps=3, clipnorm=1.0
    ),
    "AdamW goes on, but .* one of kernel and bias decay": half_decayed,
    "SGD goes on, but .* does not train the kernels": two_optimizers,
    "Adafactor goes on, but the removed units": lambda: optimizers.Adafactor(
        0.01
    ),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "new bias"])
@pytest.mark.parametrize("message", WARNED)
def test_a_fold_that_is_not_exact_is_warned_of(message, bias):
    distiller = distiller_of(WARNED[message](), bias=bias)
    train(distiller, 2, gradients=True)
    with pytest.warns(UserWarning, match=message):
        remove(distiller)
    before = to_numpy(weight_of(distiller.student, "logits", "bias"))
    train(distiller, 3, gradients=True)
    after = to_numpy(weight_of(distiller.student, "logits", "bias"))
    assert np.isfinite(after).all()
    assert not np.any(after == before)


L1, L2 = keras.regularizers.L1, keras.regularizers.L2
PULLED: dict[str, tuple[Any, MakeOptimizer]] = {
    "kernel": ({"kernel_regularizer": L2(0.1)}, LINEAR["momentum"]),
    "bias": ({"bias_regularizer": L2(0.1)}, LINEAR["momentum"]),
    "strengths": (
        {"kernel_regularizer": L2(0.1), "bias_regularizer": L2(0.2)},
        LINEAR["sgd"],
    ),
    "l1": (
        {"kernel_regularizer": L1(0.1), "bias_regularizer": L1(0.1)},
        LINEAR["sgd"],
    ),
    "steps": (
        {"kernel_regularizer": L2(0.1), "bias_regularizer": L2(0.1)},
        UNTIL_GRADIENTS["adam"],
    ),
}


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("case", PULLED)
def test_regularizers_that_pull_kernel_and_bias_differently_are_warned_of(case):
    arguments, make = PULLED[case]
    message = "regularizers pull kernel and bias differently in .'logits'"
    with pytest.warns(UserWarning, match=message):
        off = difference(make, bias=True, gradients=True, **arguments)
    assert off > TOLERANCE


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "new bias"])
def test_regularizers_that_pull_kernel_and_bias_alike_are_exact(bias):
    alike = {"kernel_regularizer": L2(0.1), "bias_regularizer": L2(0.1)}
    make = LINEAR["momentum"]
    assert difference(make, bias=bias, gradients=bias, **alike) <= TOLERANCE


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "new bias"])
def test_a_bias_constraint_that_changes_the_constant_is_warned_of(bias):
    optimizer = optimizers.SGD(0.01)
    distiller = distiller_of(optimizer, bias=bias, bias_constraint="non_neg")
    train(distiller, 1, gradients=True)
    message = "SGD .* the bias_constraint changes the constant in .'logits'"
    with pytest.warns(UserWarning, match=message):
        remove(distiller)


def test_a_subclass_that_keeps_the_same_is_no_stranger():
    class Named(optimizers.SGD):
        pass

    distiller = distiller_of(Named(0.01, momentum=0.9), bias=True)
    train(distiller, 2, gradients=True)
    remove(distiller)  # a warning would be an error


def test_a_new_bias_decays_where_its_kernel_does():
    decayed = []
    for is_excluded in (True, False):
        optimizer = optimizers.SGD(0.5, weight_decay=0.5)
        distiller = distiller_of(optimizer, bias=False)
        if is_excluded:
            kernel = weight_of(distiller.student, "logits", "kernel")
            optimizer.exclude_from_weight_decay([kernel])
        train(distiller, 1, gradients=True)
        remove(distiller)
        bias = weight_of(distiller.student, "logits", "bias")
        before = np.array(to_numpy(bias))
        train(distiller, 1, gradients=False)
        decayed.append(to_numpy(bias) / before)
    assert np.allclose(decayed, [[1.0] * 3, [1 - 0.5 * 0.5] * 3])


def test_optimizers_inside_of_one_keep_their_exclusions_from_decay():
    inner = optimizers.SGD(0.5, weight_decay=0.5)
    optimizer = optimizers.MultiOptimizer(
        optimizers.OptimizerMap(optimizers.SGD(0.5), {".*logits/.*": inner})
    )
    distiller = distiller_of(optimizer, bias=True)
    weights = distiller.student.get_layer("logits").trainable_weights
    inner.exclude_from_weight_decay(weights)
    train(distiller, 1, gradients=True)
    remove(distiller)
    before = distiller.student.get_layer("logits").get_weights()
    train(distiller, 1, gradients=False)
    after = distiller.student.get_layer("logits").get_weights()
    assert all(map(np.array_equal, before, after))


# What lies between a unit and its consumer


def convolutional(consumer: type) -> kddp.Distiller:
    """Units 1 and 3 never fire; a trained BatchNormalization comes behind."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(5, 2, activation="relu", name="conv")(inputs)
    x = kddp.layers.ActivityPenalty(0.0, name="penalty")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = consumer(4, 2, name="consumer")(x)
    x = layers.GlobalAveragePooling2D()(x)
    student = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    random = np.random.default_rng(2)
    for weight in student.weights:
        weight.assign(random.uniform(0.1, 0.8, weight.shape))
    kernel, bias = student.get_layer("conv").get_weights()
    kernel[..., [1, 3]], bias[[1, 3]] = 0, -1
    student.get_layer("conv").set_weights([kernel, bias])
    teacher = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Flatten(), layers.Dense(3)]
    )
    distiller = kddp.Distiller(teacher, student)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = optimizers.SGD(0.1, use_ema=True, ema_momentum=0.7)
    distiller.compile(optimizer, loss, run_eagerly=True)
    return distiller


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(
    "consumer",
    [layers.Conv2D, layers.SeparableConv2D],
    ids=lambda x: x.__name__,
)
def test_the_average_takes_in_what_averaged_layers_make_of_a_constant(
    consumer,
):
    distiller = convolutional(consumer)
    images = np.random.default_rng(3).normal(size=(8, 6, 6, 2))
    for _ in range(3):
        distiller.train_on_batch(images, Y[:8])
    averaged = keras.models.clone_model(distiller.student)
    averaged.set_weights(distiller.student.get_weights())
    distiller.optimizer.finalize_variable_values(averaged.trainable_variables)
    plan = kddp.plan_removal(distiller.student, {"conv": [1, 3]})

    if consumer is layers.SeparableConv2D:
        with pytest.warns(UserWarning, match="SGD .* moves two kernels of"):
            distiller.replace_student(plan)
    else:
        distiller.replace_student(plan)

    student, optimizer = distiller.student, distiller.optimizer
    optimizer.finalize_variable_values(student.trainable_variables)
    expected = outputs_of(averaged, images)
    assert relative_error(outputs_of(student, images), expected) <= TOLERANCE


# What else keeps a state


def test_what_was_before_a_fold_comes_back_with_its_averages():
    optimizer = optimizers.Adam(0.01, use_ema=True, ema_momentum=0.7)
    distiller = distiller_of(optimizer, bias=False)
    train(distiller, 2, gradients=True)
    snapshot = distiller.snapshot()
    expected = [np.array(to_numpy(x)) for x in optimizer.variables]
    remove(distiller)
    train(distiller, 2, gradients=True)

    distiller.restore(snapshot)

    assert distiller.optimizer is optimizer
    received = [to_numpy(x) for x in optimizer.variables]
    assert all(map(np.array_equal, received, expected))
    train(distiller, 2, gradients=True)


class Loose(optimizers.SGD):
    """Makes a slot without saying for which weight."""

    def build(self, variables):
        super().build(variables)
        self.sums = [self.add_variable(v.shape, name="sum") for v in variables]


def test_a_slot_of_unknown_weight_is_cut_by_its_shape():
    distiller = distiller_of(Loose(0.01), bias=True)
    train(distiller, 1, gradients=True)
    for slot in distiller.optimizer.sums:
        slot.assign(np.arange(np.prod(slot.shape)).reshape(slot.shape))
    with pytest.warns(UserWarning, match="Loose goes on, but it takes in a co"):
        remove(distiller)
    rows = [0, 2, 3, 5]
    expected = [np.arange(24).reshape(4, 6)[:, rows], np.array(rows)]
    received = [to_numpy(x) for x in distiller.optimizer.sums]
    assert all(map(np.array_equal, received[:2], expected))
    assert np.array_equal(received[2], np.arange(18).reshape(6, 3)[rows])


def test_a_slot_of_unknown_weight_is_refused_where_it_cannot_be_told():
    student = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, "relu", name="a"),
            layers.Dense(4, "relu", name="b"),
            layers.Dense(2),
        ]
    )
    distiller = kddp.Distiller(keras.models.clone_model(student), student)
    distiller.compile(Loose(0.01), CROSSENTROPY)
    distiller.build_optimizer()
    plan = kddp.plan_removal(student, {"a": [0], "b": [1]})
    with pytest.raises(ValueError, match="Received: Loose, whose slots have"):
        distiller.replace_student(plan)
    assert distiller.student is student


def test_a_new_bias_needs_slots_that_say_for_which_weight():
    distiller = distiller_of(Loose(0.01), bias=False)
    train(distiller, 1, gradients=True)
    student = distiller.student
    with pytest.raises(ValueError, match="by `add_variable_from_reference`"):
        remove(distiller)
    assert distiller.student is student


def test_a_divisor_of_zero_moves_nothing():
    distiller = distiller_of(optimizers.Adam(0.01, epsilon=0.0), bias=True)
    distiller.build_optimizer()  # no gradient has come yet
    remove(distiller)
    train(distiller, 1, gradients=True)
    bias = weight_of(distiller.student, "logits", "bias")
    assert np.isfinite(to_numpy(bias)).all()


def test_a_bias_that_decays_beside_a_frozen_kernel_is_warned_of():
    optimizer = optimizers.SGD(0.1, weight_decay=0.1)
    distiller = distiller_of(optimizer, bias=True)
    weight_of(distiller.student, "logits", "kernel").trainable = False
    train(distiller, 1, gradients=True)
    with pytest.warns(UserWarning, match="SGD .* one of kernel and bias decay"):
        remove(distiller)
