"""What must make no difference at all, and what must."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from helpers import outputs_of, relative_error

import keras_kddp as kddp
from keras_kddp.layers.penalized_models import set_penalty_strength
from keras_kddp.model_io import to_numpy

TOLERANCE = 1e-12
CLASSES = 3


def dense_student() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="fc1"),
            keras.layers.Dropout(0.1, name="dropout"),
            keras.layers.Dense(6, activation="relu", name="fc2"),
            keras.layers.Dense(CLASSES, name="logits"),
        ],
        name="dense_student",
    )


def convolutional_student() -> keras.Model:
    inputs = keras.Input((5, 5, 1), name="image")
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    y = keras.layers.Conv2D(4, 1, name="branch")(x)
    x = keras.layers.Add(name="sum")([x, y])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(inputs, outputs, name="convolutional_student")


both_students = pytest.mark.parametrize(
    "make_student", [dense_student, convolutional_student]
)
REMOVED = {
    "dense_student": {"fc1": [1, 4], "fc2": [0]},
    "convolutional_student": {"conv": [2], "branch": [2]},
}


def with_weights(model: keras.Model) -> keras.Model:
    """Gives a model fixed weights that are not those of a new one."""
    random = np.random.default_rng(2)
    for weight in model.weights:
        if weight.name == "penalty_strength":
            continue
        value = random.normal(0.1, 0.5, weight.shape)
        is_scale = weight.name in ("gamma", "moving_variance")
        weight.assign(1 + value**2 if is_scale else value)
    return model


def data_for(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    x = random.normal(size=(24, *model.input_shape[1:]))
    return x.astype(keras.config.floatx()), random.integers(0, CLASSES, 24)


class Run(NamedTuple):
    """The logged losses of a run, and the student that it left."""

    losses: dict[str, list[float]]
    student: keras.Model


def fitted(
    make: Callable[[], keras.Model],
    *callbacks: Any,
    epochs: int = 3,
    run_eagerly: bool = True,
) -> Run:
    """Distils a student; makes and trains it with one seed."""
    keras.utils.set_random_seed(4)
    student = make()
    teacher = keras.Sequential(
        [
            keras.Input(student.input_shape[1:]),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, kernel_initializer="ones"),
        ]
    )
    distiller = kddp.Distiller(teacher, student)
    # Made here: a loss has the dtype of its making, float64 in most tests.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(0.003)
    distiller.compile(optimizer, loss, run_eagerly=run_eagerly)
    x, y = data_for(student)
    keras.utils.set_random_seed(5)
    logs = distiller.fit(
        x, y, batch_size=8, epochs=epochs, callbacks=callbacks, verbose=0
    ).history
    losses = {key: logs[key] for key in logs if key.endswith("loss")}
    return Run(losses, distiller.student)


def numbers(run: Run) -> dict[str, np.ndarray]:
    """Returns losses, weights and outputs by name, without penalties."""
    x, _ = data_for(run.student)
    (outputs,) = outputs_of(run.student, x)
    weights = {
        f"{layer.name} {weight.name}": to_numpy(weight)
        for layer in run.student.layers
        for weight in layer.weights
        if weight.name != "penalty_strength"
    }
    losses = {name: np.array(values) for name, values in run.losses.items()}
    return {**losses, **weights, "outputs": outputs}


def assert_same_runs(received: Run, expected: Run, tolerance: float) -> None:
    first, second = numbers(received), numbers(expected)
    assert first.keys() == second.keys()
    for name, value in second.items():
        assert np.isfinite(value).all()
        assert relative_error([first[name]], [value]) <= tolerance, name


# Penalty 0 and no pruning: plain distillation


@pytest.mark.usefixtures("in_float64")
@both_students
def test_penalty_of_zero_is_plain_distillation(make_student):
    def prepared() -> keras.Model:
        return kddp.prepare(make_student(), l1=0.0)

    plain = fitted(make_student)
    assert_same_runs(fitted(prepared), plain, TOLERANCE)
    assert plain.losses["loss"][0] > plain.losses["loss"][-1] > 0


@pytest.mark.usefixtures("in_float64")
def test_penalty_of_strength_zero_is_plain_distillation():
    def prepared() -> keras.Model:
        student = kddp.prepare(dense_student(), l1=0.1)
        set_penalty_strength(student, 0.0)
        return student

    assert_same_runs(fitted(prepared), fitted(dense_student), TOLERANCE)


@pytest.mark.usefixtures("in_float64")
def test_a_penalty_is_not_plain_distillation():
    def prepared() -> keras.Model:
        return kddp.prepare(dense_student(), l1=0.1)

    with pytest.raises(AssertionError):
        assert_same_runs(fitted(prepared), fitted(dense_student), 1e-3)


@pytest.mark.usefixtures("in_float64")
@both_students
def test_pruning_that_removes_nothing_is_no_callback(make_student):
    def prepared() -> keras.Model:
        return kddp.prepare(with_weights(make_student()), l1=0.01)

    # Strength 1 in every epoch, as it is without the callback.
    pruning = kddp.DynamicPruning(
        "never_active",
        0.0,
        warmup_epochs=0,
        ramp_epochs=0,
        finetune_epochs=0,
        minimum_change=0.0,
    )
    with pytest.warns(UserWarning, match="Nothing was removed: no unit sco"):
        received = fitted(prepared, pruning)
    assert pruning.removals == []
    assert_same_runs(received, fitted(prepared), TOLERANCE)


# Nothing removed: the very same


@both_students
def test_removing_nothing_gives_the_very_same_outputs(make_student):
    model = with_weights(make_student())
    x, _ = data_for(model)
    (expected,) = outputs_of(model, x)
    for units in ({}, {name: [] for name in REMOVED[model.name]}):
        (received,) = outputs_of(kddp.remove_units(model, units), x)
        assert np.array_equal(received, expected)


@both_students
def test_replacing_a_student_by_itself_changes_no_bit(make_student):
    class SwapNothing(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            old = self.model.student
            self.model.replace_student(kddp.plan_removal(old, {}))
            assert self.model.student is not old

    swapped = fitted(make_student, SwapNothing())
    assert_same_runs(swapped, fitted(make_student), 0.0)


@both_students
def test_removing_a_live_unit_changes_the_outputs(make_student):
    model = with_weights(make_student())
    x, _ = data_for(model)
    expected = outputs_of(model, x)
    activity = kddp.collect_activity(model, x)
    tried = 0
    for group in kddp.unit_groups(model):
        if group.reason:
            continue
        units: dict[str, list[int]] = {}
        for name, unit in group.members:
            assert activity[name].live[unit]
            units.setdefault(name, []).append(unit)
        received = outputs_of(kddp.remove_units(model, units), x)
        assert relative_error(received, expected) > 1e-3
        tried += 1
    assert (
        tried
        == {"dense_student": 8 + 6, "convolutional_student": 4}[model.name]
    )


def test_removing_a_dead_unit_changes_nothing():
    model = with_weights(dense_student())
    bias = model.get_layer("fc1").bias
    bias.assign(np.where(np.arange(8) == 3, -50.0, to_numpy(bias)))
    x, _ = data_for(model)
    received = outputs_of(kddp.remove_units(model, {"fc1": [3]}), x)
    assert relative_error(received, outputs_of(model, x)) < 1e-6


# The same seed: the same student


@pytest.mark.parametrize(
    ("make_student", "run_eagerly", "threshold"),
    [
        (dense_student, False, 0.4),
        pytest.param(
            convolutional_student,
            True,
            0.7,
            marks=pytest.mark.no_torch,  # its random numbers keep all units
        ),
    ],
)
def test_same_seed_gives_the_same_student_bit_by_bit(
    make_student, run_eagerly, threshold
):
    def prepared() -> keras.Model:
        return kddp.prepare(make_student(), l1=0.1)

    runs, removals = [], []
    for _ in range(2):
        pruning = kddp.DynamicPruning(
            threshold=threshold,
            warmup_epochs=0,
            finetune_epochs=1,
            minimum_change=0,
        )
        run = fitted(prepared, pruning, epochs=4, run_eagerly=run_eagerly)
        runs.append(run)
        removals.append(pruning.removals)
    assert removals[0] == removals[1]
    assert removals[0]
    assert_same_runs(runs[0], runs[1], 0.0)


def test_another_seed_gives_another_student():
    runs = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        runs.append(outputs_of(dense_student(), np.ones((1, 6)))[0])
    assert not np.any(runs[0] == runs[1])


# In and out again: the same model


@both_students
def test_finalize_undoes_prepare(make_student):
    student = with_weights(make_student())
    prepared = kddp.prepare(student)
    compact = kddp.finalize(prepared)
    x, _ = data_for(student)
    (expected,) = outputs_of(student, x)
    for model in (prepared, compact):
        (received,) = outputs_of(model, x)
        assert np.array_equal(received, expected)
    assert "keras_kddp" in prepared.to_json()
    assert "keras_kddp" not in compact.to_json()
    assert compact.get_config() == student.get_config()
    for received, wanted in zip(compact.weights, student.weights, strict=True):
        assert received.path == wanted.path
        assert np.array_equal(to_numpy(received), to_numpy(wanted))


def test_finalized_regularized_dense_is_dense():
    def student_of(make_layer: Callable[..., Any]) -> keras.Model:
        return with_weights(
            keras.Sequential(
                [
                    keras.Input((6,)),
                    make_layer(5, activation="relu", name="fc"),
                    keras.layers.Dense(CLASSES, name="logits"),
                ],
                name="student",
            )
        )

    compact = kddp.finalize(student_of(kddp.layers.ActivityRegularizedDense))
    plain = student_of(keras.layers.Dense)
    assert type(compact.get_layer("fc")) is keras.layers.Dense
    x, _ = data_for(plain)
    assert np.array_equal(outputs_of(compact, x), outputs_of(plain, x))
