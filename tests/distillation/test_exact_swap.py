"""The swap inside `fit` equals a student that is masked and never rebuilt.

`swap_reference` has the students and the reference. In float64 what differs by
more than 1e-10 is wrong, not rounded.
"""

import functools
from typing import Any

import numpy as np
import pytest
from helpers import relative_error
from swap_optimizers import (
    ALL_OPTIMIZERS,
    MORE_OPTIMIZERS,
    OPTIMIZERS,
    SPECIAL_CASES,
)
from swap_reference import (
    DESIGNS,
    Outcome,
    assert_equal_outcomes,
    data_of,
    distiller_of,
    feature_loss,
    mask_units,
    slots_of,
    swap,
    trained,
    weight_of,
    worst_difference,
)

import keras_kddp as kddp
from keras_kddp.model_io import to_numpy

TOLERANCE = 1e-10
DENSE = DESIGNS["dense"]


@functools.cache
def reference(
    design: str,
    optimizer: str,
    *,
    dead: bool,
    epochs: int,
    steps: int,
    **execution: Any,
) -> Outcome:
    """Returns the masked run, in float64."""
    make = ALL_OPTIMIZERS[optimizer]
    distiller = distiller_of(
        DESIGNS[design], make, masked=True, dead=dead, **execution
    )
    return trained(distiller, DESIGNS[design], epochs=epochs, steps=steps)


def assert_swap_is_exact(
    design: str,
    optimizer: str,
    *,
    dead: bool = False,
    epochs: int = 3,
    steps: int = 4,
    **execution: Any,
) -> None:
    make = ALL_OPTIMIZERS[optimizer]
    distiller = distiller_of(DESIGNS[design], make, dead=dead, **execution)
    length = {"epochs": epochs, "steps": steps}
    received = trained(distiller, DESIGNS[design], **length)
    # Eager execution is the cheapest and rounds like the others, with two
    # exceptions: schedules compute in float32, and XLA has its own Dropout.
    is_own = optimizer == "adamw_schedule" or "jit_compile" in execution
    execution = execution if is_own else {"run_eagerly": True}
    expected = reference(design, optimizer, dead=dead, **length, **execution)
    assert_equal_outcomes(received, expected, TOLERANCE)


_float32 = pytest.mark.no_torch  # where Keras' moments are of float32
_no_torch = pytest.mark.no_torch  # which has neither XLA nor several steps


# The matrix
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("dead", [True, False], ids=["dead", "alive"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_swap_is_exact_for(optimizer, dead):
    assert_swap_is_exact("dense", optimizer, dead=dead)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("optimizer", MORE_OPTIMIZERS | SPECIAL_CASES)
def test_swap_is_exact_eagerly_for(optimizer):
    assert_swap_is_exact(
        "dense", optimizer, epochs=2, steps=2, run_eagerly=True
    )


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("dead", [True, False], ids=["dead", "alive"])
@pytest.mark.parametrize(
    "design",
    [
        pytest.param("convolutional", marks=_float32),
        "residual",
        pytest.param("sequence", marks=_float32),
    ],
)
def test_swap_is_exact_in_a_student_that_is(design, dead):
    assert_swap_is_exact(design, "momentum", dead=dead)


XLA, EAGER = {"jit_compile": True}, {"run_eagerly": True}
STEPS = {"steps_per_execution": 4, "steps": 6}
CONVOLVED = "convolutional", "momentum"


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(
    ("design", "optimizer", "execution"),
    [
        pytest.param("dense", "adam", XLA, marks=_no_torch, id="jit"),
        pytest.param("dense", "adam", EAGER, id="eager"),
        pytest.param("dense", "adam", STEPS, marks=_no_torch, id="4 steps"),
        pytest.param(*CONVOLVED, EAGER, marks=_float32, id="eager-conv"),
        pytest.param(*CONVOLVED, STEPS, marks=_no_torch, id="4 steps-conv"),
    ],
)
def test_swap_is_exact_under(design, optimizer, execution):
    assert_swap_is_exact(design, optimizer, **execution)


@pytest.mark.parametrize("optimizer", OPTIMIZERS | MORE_OPTIMIZERS)
def test_swap_is_close_in_float32_for(optimizer):
    make = ALL_OPTIMIZERS[optimizer]
    received, expected = (
        trained(
            distiller_of(DENSE, make, masked=masked, run_eagerly=True),
            DENSE,
            epochs=2,
            steps=2,
        )
        for masked in (False, True)
    )
    assert_equal_outcomes(received, expected, 1e-3)


@pytest.mark.usefixtures("in_float64")
def test_two_swaps_in_one_fit_are_exact():
    distiller = distiller_of(DENSE, OPTIMIZERS["adam"])
    # After unit 1 has left, units 4 and 7 are 3 and 6.
    later = {1: {"fc1": [1]}, 2: {"fc1": [3, 6], "fc2": [0, 3]}}
    received = trained(distiller, DENSE, at=later)
    masked = distiller_of(
        DENSE, OPTIMIZERS["adam"], masked=True, run_eagerly=True
    )
    later = {1: {"fc1": [1]}, 2: {"fc1": [4, 7], "fc2": [0, 3]}}
    expected = trained(masked, DENSE, at=later)
    assert_equal_outcomes(received, expected, TOLERANCE)


@pytest.mark.usefixtures("in_float64")
def test_swap_between_two_fits_is_exact():
    outcomes = []
    for masked in (False, True):
        distiller = distiller_of(
            DENSE, OPTIMIZERS["adam"], masked=masked, run_eagerly=masked
        )
        trained(distiller, DENSE, at={}, epochs=1)
        if masked:
            mask_units(distiller, DENSE.removed, DENSE)
        else:
            swap(distiller, DENSE.removed)
        outcomes.append(trained(distiller, DENSE, at={}, epochs=3))
    assert_equal_outcomes(*outcomes, TOLERANCE)


# That the matrix can fail
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("design", DESIGNS)
def test_units_of_the_matrix_are_what_they_are_called(design):
    design = DESIGNS[design]
    x, _ = data_of(design)
    for dead in (True, False):
        distiller = distiller_of(
            design, OPTIMIZERS["momentum"], dead=dead, run_eagerly=True
        )
        trained(distiller, design, at={}, epochs=1)
        activity = kddp.collect_activity(distiller.student, x)
        for name, units in design.removed.items():
            live = activity[name].live[units].tolist()
            assert live == [not dead] * len(units)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("optimizer", OPTIMIZERS | MORE_OPTIMIZERS)
def test_slots_of_the_matrix_hold_something_at_the_swap(optimizer):
    make = ALL_OPTIMIZERS[optimizer]
    distiller = distiller_of(DENSE, make, run_eagerly=True)
    trained(distiller, DENSE, at={}, epochs=1)
    kernel = weight_of(distiller.student, "fc2", "kernel")
    slots = slots_of(distiller.optimizer, kernel)
    assert slots
    for slot in slots.values():
        assert np.all(to_numpy(slot)[DENSE.removed["fc1"]].any(axis=1))


@pytest.mark.usefixtures("in_float64")
def test_a_run_without_the_swap_differs():
    distiller = distiller_of(DENSE, OPTIMIZERS["adam"], run_eagerly=True)
    masked = distiller_of(
        DENSE, OPTIMIZERS["adam"], masked=True, run_eagerly=True
    )
    unchanged = trained(distiller, DENSE, at={})
    assert worst_difference(unchanged, trained(masked, DENSE, at={}))[1] <= (
        TOLERANCE
    )
    expected = reference(
        "dense", "adam", dead=False, epochs=3, steps=4, run_eagerly=True
    )
    losses = unchanged.values["loss"], expected.values["loss"]
    assert relative_error([losses[0][:1]], [losses[1][:1]]) <= TOLERANCE
    assert relative_error([losses[0][1:]], [losses[1][1:]]) > 1e-3


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(
    "optimizer", ["momentum", "ema", "gradient_accumulation"]
)
def test_a_swap_that_forgets_the_optimizer_differs(optimizer, monkeypatch):
    def fresh(optimizer, transfers, trainable_variables, folds):
        successor = type(optimizer).from_config(optimizer.get_config())
        successor.build(trainable_variables)
        return successor

    monkeypatch.setattr(
        "keras_kddp.distillation.student_state.carry_optimizer", fresh
    )
    with pytest.raises(AssertionError, match="differs by"):
        assert_swap_is_exact("dense", optimizer, run_eagerly=True)


@pytest.mark.usefixtures("in_float64")
def test_swap_is_exact_beside_a_feature_loss():
    received, expected = (
        trained(
            distiller_of(
                DENSE,
                OPTIMIZERS["adam"],
                masked=masked,
                losses=feature_loss(),
                run_eagerly=masked,
            ),
            DENSE,
            at={1: {"fc1": DENSE.removed["fc1"]}},
        )
        for masked in (False, True)
    )
    assert_equal_outcomes(received, expected, TOLERANCE)
