"""What is trained before a removal is trained after it, and nothing else."""

import contextlib
from typing import Any

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from keras import layers, optimizers

import keras_kddp as kddp
from keras_kddp.model_io import to_numpy

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.arange(16) % 3

FROZEN = {
    "first": ["first/bias", "first/kernel"],
    "norm": ["norm/beta", "norm/gamma"],
    "inner": ["inner/second/bias", "inner/second/kernel"],
    "second": ["inner/second/bias", "inner/second/kernel"],
}


def distiller_of(optimizer: Any = "adam", **arguments: Any) -> kddp.Distiller:
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, "relu", name="second")],
        name="inner",
    )
    inputs = keras.Input((4,))
    x = layers.Dense(6, "relu", name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dense(3, name="logits")(inner(x))
    teacher = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    student = kddp.prepare(keras.Model(inputs, x), l1=0.0)
    distiller = kddp.Distiller(teacher, student)
    distiller.compile(optimizer, CROSSENTROPY, **arguments)
    return distiller


def layer_of(distiller: kddp.Distiller, name: str) -> Any:
    student = distiller.student
    if name == "all":
        return student
    inside = student.get_layer("inner")
    return (
        inside.get_layer(name) if name == "second" else student.get_layer(name)
    )


def fit(distiller: kddp.Distiller, epochs: int = 1, *callbacks: Any) -> None:
    distiller.fit(X, Y, 8, epochs=epochs, verbose=0, callbacks=callbacks)


def remove(distiller: kddp.Distiller) -> None:
    plan = kddp.plan_removal(distiller.student, {"first": [1, 2]})
    distiller.replace_student(plan)


def moved(distiller: kddp.Distiller) -> list[str]:
    """Returns the weights that an epoch moves, statistics aside."""
    weights = [w for w in distiller.student.weights if "moving" not in w.path]
    before = [np.array(to_numpy(weight)) for weight in weights]
    fit(distiller)
    return sorted(
        weight.path
        for weight, value in zip(weights, before, strict=True)
        if not np.array_equal(to_numpy(weight), value)
    )


ALL = sorted(
    [*FROZEN["first"], *FROZEN["norm"], *FROZEN["inner"]]
    + ["logits/bias", "logits/kernel"]
)


@pytest.mark.parametrize("name", FROZEN)
def test_layers_frozen_before_training_stay_so_behind_a_removal(name):
    distiller = distiller_of(run_eagerly=name != "first")
    if name == "first":
        distiller.build_optimizer()  # it then has slots of what is frozen
    layer_of(distiller, name).trainable = False
    expected = sorted(set(ALL) - set(FROZEN[name]))
    assert moved(distiller) == expected
    remove(distiller)
    assert moved(distiller) == expected
    assert not layer_of(distiller, name).trainable
    assert distiller.student.get_layer("first").units == 4


@pytest.mark.parametrize("name", ["first", "norm"])
def test_layers_frozen_between_steps_that_run_eagerly_stay_so(name):
    distiller = distiller_of(run_eagerly=True)
    fit(distiller)
    layer_of(distiller, name).trainable = False
    expected = sorted(set(ALL) - set(FROZEN[name]))
    remove(distiller)
    assert moved(distiller) == expected
    layer_of(distiller, name).trainable = True  # its slots are still there
    remove(distiller)
    assert moved(distiller) == ALL


@pytest.mark.filterwarnings("ignore:The model does not have any trainable")
def test_a_student_that_is_frozen_as_a_whole_stays_so():
    distiller = distiller_of(run_eagerly=True)
    distiller.student.trainable = False
    assert moved(distiller) == []
    remove(distiller)
    assert moved(distiller) == []


@pytest.mark.parametrize("name", ["norm", "second", "all"])
def test_layers_frozen_since_a_step_was_compiled_are_refused(name):
    distiller = distiller_of()
    fit(distiller)
    student, optimizer = distiller.student, distiller.optimizer
    layer_of(distiller, name).trainable = False
    message = rf"since, in layers \[.*'{'norm' if name == 'all' else ''}"
    with pytest.raises(ValueError, match=message):
        remove(distiller)
    assert distiller.student is student
    assert distiller.optimizer is optimizer

    layer_of(distiller, name).trainable = True

    remove(distiller)
    assert len(distiller.trainable_variables) == len(ALL)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_layers_that_the_optimizer_does_not_know_are_refused(run_eagerly):
    distiller = distiller_of(run_eagerly=run_eagerly)
    distiller.student.get_layer("first").trainable = False
    fit(distiller)
    distiller.student.get_layer("first").trainable = True
    with pytest.raises(ValueError, match=r"since, in layers \['first'\]"):
        remove(distiller)

    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)

    remove(distiller)
    assert moved(distiller) == ALL


def test_a_layer_frozen_inside_of_fit_is_refused_at_the_next_removal():
    class Freeze(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.student.get_layer("logits").trainable = False
                remove(self.model)

    with pytest.raises(ValueError, match=r"since, in layers \['logits'\]"):
        fit(distiller_of(), 2, Freeze())


# The optimizer is there before the first step is compiled

OPTIMIZERS = {
    "adam": lambda: optimizers.Adam(0.01),
    "ema": lambda: optimizers.SGD(0.05, use_ema=True),
    "loss_scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.ScheduleFreeAdamW(0.01)
    ),
    "schedule_free": lambda: optimizers.ScheduleFreeAdamW(0.01),
}


def _said(is_pruned):
    """Returns what expects the words for a run without a removal."""
    if is_pruned:
        return pytest.warns(UserWarning, match="Nothing was removed")
    return contextlib.nullcontext()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_removes_nothing_is_a_plain_one_with(optimizer):
    histories = []
    for is_pruned in (False, True):
        keras.utils.set_random_seed(1)
        distiller = distiller_of(OPTIMIZERS[optimizer]())
        pruning = kddp.DynamicPruning(
            "mean_activity",
            0.0,
            minimum_units=6,
            warmup_epochs=0,
            ramp_epochs=0,
            finetune_epochs=1,
        )
        callbacks = [pruning] if is_pruned else []
        with _said(is_pruned):
            run = distiller.fit(
                X, Y, 8, epochs=2, shuffle=False, verbose=0, callbacks=callbacks
            )
        assert not pruning.removals
        histories.append(run.history["loss"])
    assert histories[0] == histories[1]
    assert histories[0][1] < histories[0][0]


def test_one_batch_too_finds_an_optimizer_that_is_built():
    values = []
    for builds in (False, True):
        keras.utils.set_random_seed(1)
        distiller = distiller_of(optimizers.ScheduleFreeAdamW(0.1))
        if builds:
            distiller.build_optimizer()
        values.append([distiller.train_on_batch(X, Y)[0] for _ in range(3)])
    assert values[0] == values[1]


def test_a_student_that_is_not_built_is_left_to_the_first_step():
    class Student(keras.Model):
        def __init__(self):
            super().__init__()
            self.logits = layers.Dense(3)

        def call(self, inputs):
            return self.logits(inputs)

    teacher = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    distiller = kddp.Distiller(teacher, Student())
    distiller.compile("adam", CROSSENTROPY)
    fit(distiller)
    assert int(distiller.optimizer.iterations) == 2
