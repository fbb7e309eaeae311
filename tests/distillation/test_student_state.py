"""What a swap carries over, what it leaves alone, and who works beside it."""

import csv
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from helpers import (
    held_outputs,
    outputs_of,
    relative_error,
    to_numpy,
    variable_values,
)
from keras import optimizers
from swap_optimizers import OPTIMIZERS
from swap_reference import (
    DESIGNS,
    AtEpoch,
    assert_equal_outcomes,
    data_of,
    distiller_of,
    feature_loss,
    slots_of,
    student_of,
    swap,
    trained,
    weight_of,
)
from two_examples import (
    X,
    Y,
    compiled,
    make_student,
    make_teacher,
    with_normalization,
)

import keras_kddp as kddp
from keras_kddp import Distiller, finalize, plan_removal

TOLERANCE = 1e-10
DENSE = DESIGNS["dense"]


@pytest.mark.no_jax  # where a loss sees no numbers
@pytest.mark.no_torch  # where Keras calls the loss once more, to build it
@pytest.mark.parametrize("between", [True, False], ids=["between fits", "in"])
def test_swap_leaves_the_order_of_shuffled_data(between):
    def order_of_rows(units: dict[str, list[int]]) -> list[int]:
        seen: list[int] = []

        def loss(y: Any, outputs: Any) -> Any:
            seen.extend(np.ravel(y).tolist())
            return keras.ops.mean(keras.ops.square(outputs))

        distiller = distiller_of(
            DENSE, OPTIMIZERS["adam"], loss=loss, run_eagerly=True
        )
        x, _ = data_of(DENSE)
        rows = np.arange(len(x))
        keras.utils.set_random_seed(5)
        swap_later = AtEpoch(swap, {} if between else {1: units})
        distiller.fit(
            x, rows, 8, epochs=1 if between else 3, callbacks=[swap_later]
        )
        if between:
            swap(distiller, units)
            distiller.fit(x, rows, 8, epochs=2)
        return seen

    with_swap = order_of_rows(DENSE.removed)
    assert len(with_swap) == 3 * 32
    assert with_swap != sorted(with_swap)
    assert with_swap == order_of_rows({})


def test_swap_carries_statistics_and_seed_states():
    design = DESIGNS["convolutional"]
    distiller = distiller_of(design, OPTIMIZERS["momentum"], run_eagerly=True)
    trained(distiller, design, at={}, epochs=1)
    old = distiller.student
    swap(distiller, design.removed)
    for name, kept in (("norm1", [0, 3]), ("norm2", [1, 2, 4])):
        for weight in ("moving_mean", "moving_variance"):
            before = to_numpy(weight_of(old, name, weight))
            after = to_numpy(weight_of(distiller.student, name, weight))
            assert np.array_equal(after, before[kept])
            assert not np.any((before == 0) | (before == 1))
    (before,) = old.get_layer("last_dropout").variables
    (after,) = distiller.student.get_layer("last_dropout").variables
    assert np.array_equal(to_numpy(after), to_numpy(before))
    assert to_numpy(before)[1] > 0


def test_swap_leaves_the_old_student_and_its_optimizer_alone():
    distiller = distiller_of(DENSE, OPTIMIZERS["adam"], run_eagerly=True)
    trained(distiller, DENSE, at={}, epochs=1)
    state = [*distiller.student.variables, *distiller.optimizer.variables]
    before = [np.array(to_numpy(variable)) for variable in state]
    swap(distiller, DENSE.removed)
    trained(distiller, DENSE, at={}, epochs=1)
    assert all(map(np.array_equal, map(to_numpy, state), before))


def test_a_bias_that_folding_adds_is_trained():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, activation="sigmoid", name="fc")(inputs)
    x = kddp.layers.ActivityPenalty(0.01, name="penalty")(x)
    outputs = keras.layers.Dense(3, use_bias=False, name="logits")(x)
    student = keras.Model(inputs, outputs)
    distiller = kddp.Distiller(keras.models.clone_model(student), student)
    distiller.compile(
        optimizers.Adam(0.01),
        CROSSENTROPY,
        run_eagerly=True,
    )
    random = np.random.default_rng(0)
    x, y = random.normal(size=(32, 4)), random.integers(0, 3, 32)
    x = x.astype("float32")
    distiller.fit(x, y, 8, verbose=0)
    constants = {"fc": {1: 0.5, 3: 1.0}}
    plan = kddp.plan_removal(student, {"fc": [1, 3]}, constants=constants)
    expected = held_outputs(student, plan.removed, x, constants)
    kernel = weight_of(student, "logits", "kernel")
    before = slots_of(distiller.optimizer, kernel)
    kernel = to_numpy(kernel)

    distiller.replace_student(plan)

    bias = weight_of(distiller.student, "logits", "bias")
    folded = to_numpy(bias)
    assert np.allclose(folded, 0.5 * kernel[1] + 1.0 * kernel[3], atol=1e-7)
    assert relative_error(outputs_of(distiller.student, x), expected) < 1e-6
    slots = slots_of(distiller.optimizer, bias)
    assert sorted(slots) == ["momentum", "velocity"]
    velocities = to_numpy(before["velocity"])
    velocity = velocities[[0, 2, 4]].mean(0)  # of the rows that stay
    assert np.allclose(to_numpy(slots["velocity"]), velocity, rtol=1e-6)
    # The step that follows without a gradient is that of both rows together.
    steps = to_numpy(before["momentum"]) / (np.sqrt(0.999 * velocities) + 1e-7)
    momentum = (np.sqrt(0.999 * velocity) + 1e-7) * (0.5 * steps[1] + steps[3])
    assert np.allclose(to_numpy(slots["momentum"]), momentum, rtol=1e-5)
    assert int(distiller.optimizer.iterations) == 4
    distiller.fit(x, y, 8, verbose=0)
    assert not np.any(to_numpy(bias) == folded)
    assert all(to_numpy(slot).all() for slot in slots.values())


def same_objects(first: list[Any], second: list[Any]) -> bool:
    return sorted(map(id, first)) == sorted(map(id, second))


def test_distiller_keeps_nothing_of_the_old_student():
    distiller = distiller_of(DENSE, OPTIMIZERS["adam"], run_eagerly=True)
    old = weakref.ref(distiller.student)
    trained(distiller, DENSE, epochs=2)
    swap(distiller, {"fc1": [0]})
    teacher, student = distiller.teacher, distiller.student
    assert distiller.layers == [teacher, student]
    assert same_objects(
        distiller.variables, [*teacher.variables, *student.variables]
    )
    assert same_objects(
        distiller.trainable_variables, student.trainable_variables
    )
    assert len(distiller.optimizer.variables) == 2 + 2 * len(
        student.trainable_variables
    )
    gc.collect()
    assert old() is None


def test_a_distiller_takes_layers_after_a_swap_before_it_is_built():
    distiller = distiller_of(DENSE, OPTIMIZERS["adam"])
    swap(distiller, {"fc1": [0]})

    distiller.extra = keras.layers.Dense(2)

    assert distiller.extra in distiller.layers


# What a swap refuses
def unchanged(distiller: kddp.Distiller, action: Callable[[], None]) -> bool:
    """Says whether a Distiller is as it was before an action."""
    student, optimizer = distiller.student, distiller.optimizer
    before = [*variable_values(distiller), *map(to_numpy, optimizer.variables)]
    action()
    after = [*variable_values(distiller), *map(to_numpy, optimizer.variables)]
    return (
        distiller.student is student
        and distiller.optimizer is optimizer
        and all(map(np.array_equal, before, after))
    )


def test_plan_for_another_model_is_refused():
    distiller = distiller_of(DENSE, OPTIMIZERS["adam"], run_eagerly=True)
    trained(distiller, DENSE, at={}, epochs=1)
    other = kddp.plan_removal(
        student_of(DENSE, masked=False, dead=False), DENSE.removed
    )

    def attempt() -> None:
        with pytest.raises(ValueError, match="made for the Distiller's presen"):
            distiller.replace_student(other)

    assert unchanged(distiller, attempt)


def test_plan_that_was_carried_out_is_refused():
    distiller = distiller_of(DENSE, OPTIMIZERS["adam"], run_eagerly=True)
    plan = kddp.plan_removal(distiller.student, DENSE.removed)
    distiller.replace_student(plan)
    with pytest.raises(ValueError, match=r"Call `plan_removal\(distiller"):
        distiller.replace_student(plan)


@pytest.mark.usefixtures("in_float64")
def test_features_of_a_loss_cannot_leave():
    distiller = distiller_of(
        DENSE, OPTIMIZERS["adam"], losses=feature_loss(), run_eagerly=True
    )
    trained(distiller, DENSE, at={}, epochs=1)

    def attempt() -> None:
        with pytest.raises(ValueError, match="FeatureDistillation matches its"):
            swap(distiller, DENSE.removed)

    assert unchanged(distiller, attempt)


def test_a_plan_for_another_model_is_refused():
    student = with_normalization("student")
    distiller = Distiller(make_teacher(), student)
    plan = plan_removal(finalize(student), {"student_dense": [0]})

    with pytest.raises(ValueError, match="Received one for another model"):
        distiller.replace_student(plan)

    assert distiller.student is student


@pytest.mark.parametrize("plan", [None, "plan"])
def test_a_plan_that_is_none_is_refused(plan):
    distiller = Distiller(make_teacher(), make_student())
    with pytest.raises(ValueError, match="what `keras_kddp.plan_removal`"):
        distiller.replace_student(plan)


def test_a_snapshot_of_an_unbuilt_optimizer_restores_its_first_state():
    distiller = compiled(Distiller(make_teacher(), make_student()), "adam")
    snapshot = distiller.snapshot()
    distiller.fit(X, Y, verbose=0)

    distiller.restore(snapshot)

    assert all(not to_numpy(v).any() for v in distiller.optimizer.variables[2:])


def test_a_snapshot_from_before_compile_is_refused_after_it():
    distiller = Distiller(make_teacher(), make_student())
    snapshot = distiller.snapshot()
    distiller.restore(snapshot)
    compiled(distiller)

    with pytest.raises(ValueError, match="one taken before `compile`"):
        distiller.restore(snapshot)


# What goes on across a swap


def test_callbacks_work_across_a_swap(tmp_path):
    distiller = distiller_of(DENSE, OPTIMIZERS["adam"], metrics=["accuracy"])
    x, y = data_of(DENSE)
    patience = keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=0, cooldown=0, min_delta=1e9
    )
    history = distiller.fit(
        x,
        y,
        batch_size=8,
        epochs=4,
        validation_data=(x[:16], y[:16]),
        verbose=0,
        callbacks=[
            AtEpoch(swap, {2: DENSE.removed}),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            patience,
        ],
    ).history
    assert {len(values) for values in history.values()} == {4}
    # Every epoch but the first halves it, the two after the swap too.
    assert history["learning_rate"] == pytest.approx(
        [0.01, 0.01, 0.005, 0.0025]
    )
    assert float(distiller.optimizer.learning_rate) == pytest.approx(0.00125)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in rows] == pytest.approx(
        history["val_loss"]
    )
    last = distiller.evaluate(x[:16], y[:16], verbose=0, return_dict=True)
    assert last["loss"] == pytest.approx(history["val_loss"][-1])
    widths = [
        keras.models.load_model(tmp_path / f"{epoch}.keras")
        .student.get_layer("fc1")
        .units
        for epoch in (2, 3, 4)
    ]
    assert widths == [8, 5, 5]


@pytest.mark.no_jax  # where a loaded model shuffles once to build itself
@pytest.mark.no_torch
@pytest.mark.usefixtures("in_float64")
def test_saved_distiller_trains_on_after_a_swap(tmp_path):
    distiller = distiller_of(
        DENSE, OPTIMIZERS["adam"], losses=kddp.SoftTargets(2.0)
    )
    trained(distiller, DENSE, epochs=2)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    for old, new in zip(distiller.variables, loaded.variables, strict=True):
        if "seed_generator" in old.name:  # Keras does not save them
            new.assign(to_numpy(old))
    received = trained(loaded, DENSE, at={}, epochs=1)
    expected = trained(distiller, DENSE, at={}, epochs=1)
    assert_equal_outcomes(received, expected, TOLERANCE)


@pytest.fixture
def in_mixed_float16() -> Iterator[None]:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(policy)


@pytest.mark.usefixtures("in_mixed_float16")
def test_mixed_float16_trains_on_after_a_swap():
    distiller = distiller_of(
        DENSE,
        lambda _: optimizers.LossScaleOptimizer(
            optimizers.Adam(0.01), 2.0**10, dynamic_growth_steps=4
        ),
    )
    trained(distiller, DENSE, at={}, epochs=1, steps=6)
    old = distiller.optimizer
    swap(distiller, DENSE.removed)
    new = distiller.optimizer
    # 6 steps: the scale doubled once, and 2 more were finite.
    for optimizer in (old, new):
        assert float(optimizer.dynamic_scale) == 2.0**11
        assert int(optimizer.step_counter) == 2
        assert int(optimizer.iterations) == 6
    weight = weight_of(distiller.student, "fc1", "kernel")
    slots = slots_of(new, weight)
    assert {slot.shape for slot in slots.values()} == {(6, 5)}
    assert all(to_numpy(slot).any() for slot in slots.values())
    before = np.array(to_numpy(weight))
    after = trained(distiller, DENSE, at={}, epochs=1).values
    assert int(new.iterations) == 10
    assert np.isfinite(after["loss"]).all()
    assert not np.any(to_numpy(weight) == before)


@pytest.mark.usefixtures("in_mixed_float16")
def test_mixed_float16_swaps_inside_fit_with_the_scale_that_keras_adds():
    distiller = distiller_of(DENSE, OPTIMIZERS["adam"], run_eagerly=True)
    values = trained(distiller, DENSE, epochs=2, steps=2).values
    assert isinstance(distiller.optimizer, optimizers.LossScaleOptimizer)
    assert values["fc1 kernel "].shape == (6, 5)
    assert all(np.isfinite(value).all() for value in values.values())


@pytest.mark.parametrize(
    ("name", "arguments"),
    # 1e-30, Keras' default, squared is 0 in float32: a unit that is silent in
    # a batch then makes Adafactor's update NaN, with surgery or without.
    [("Adafactor", {"epsilon_1": 1e-15}), ("Muon", {})],
)
def test_optimizers_that_look_at_whole_matrices_warn_and_train_on(
    name, arguments
):
    distiller = distiller_of(
        DENSE, lambda _: getattr(optimizers, name)(0.01, **arguments)
    )
    with pytest.warns(UserWarning, match=f"The state of {name} goes on, but"):
        values = trained(distiller, DENSE, epochs=3).values
    assert values["fc1 kernel "].shape == (6, 5)
    assert all(np.isfinite(value).all() for value in values.values())
    assert type(distiller.optimizer).__name__ == name


def test_the_optimizers_state_is_refused_before_compile():
    student = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    distiller = Distiller(keras.models.clone_model(student), student)

    with pytest.raises(ValueError, match="that was not compiled. Call compile"):
        distiller.build_optimizer()
