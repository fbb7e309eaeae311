"""Removal equals the model whose removed units are held, on random graphs.

The reference is `helpers.held_outputs`, which never rebuilds a model. Float64
throughout: what differs by more than 1e-10 is wrong, not rounded.
"""

from collections import Counter
from collections.abc import Callable

import keras
import numpy as np
import pytest
from helpers import (
    float64,
    held_outputs,
    outputs_of,
    random_inputs,
    randomize,
    relative_error,
    to_numpy,
    variable_values,
)
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from strategies import Case, cases, held_constants

from keras_kddp.layers.preparation import finalize, prepare
from keras_kddp.surgery import (
    ChannelGraph,
    SurgeryError,
    explain,
    plan_removal,
    remove_units,
)
from keras_kddp.surgery.folding import fold_constants

TOLERANCE = 1e-10

# Keras says so of every convolution behind a mask, and of nested models.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Layer .* was passed an input with a mask:UserWarning"
)


def on_examples(count: int) -> Callable[[Callable], Callable]:
    """Returns the same `count` examples at every run."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def describe(case: Case) -> None:
    note(explain(case.model))
    note(f"units: {case.units}")
    note(str([layer.get_config() for layer in case.model.layers]))


def compare_with_oracle(case, constants=None) -> str:
    """Checks one removal; says how it ended."""
    describe(case)
    x = random_inputs(case.model, case.seed)
    try:
        plan = plan_removal(case.model, case.units, constants=constants)
    except SurgeryError as error:
        assert "cannot be removed: " in str(error)
        return "refused"
    expected = held_outputs(case.model, case.units, x, constants)
    received = outputs_of(plan.build(), x)
    assert relative_error(received, expected) <= TOLERANCE
    return "folded" if plan.folds else "equal"


def check_removal(count: int) -> Counter:
    outcomes = Counter()

    @on_examples(count)
    @given(cases())
    def removal_equals_oracle(case):
        outcomes[compare_with_oracle(case)] += 1

    removal_equals_oracle()
    return outcomes


def check_removal_with_constants(count: int) -> Counter:
    outcomes = Counter()

    @on_examples(count)
    @given(st.data())
    def removal_equals_oracle(data):
        case = data.draw(cases())
        constants = data.draw(held_constants(case.model, case.units))
        outcomes[compare_with_oracle(case, constants)] += 1

    removal_equals_oracle()
    return outcomes


MASKS = ("Embedding", "Masking")
PREPARATION = (
    *["Normalization", "Discretization", "CategoryEncoding"],
    *["IntegerLookup", "StringLookup", "Hashing"],
)
NOISE = (
    *["Dropout", "GaussianNoise", "GaussianDropout"],
    *["SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"],
)


def kinds_in(model: keras.Model) -> set[str]:
    """Says what a model has of masks, prepared data and noise."""
    operations = [node.operation for node in ChannelGraph(model).nodes]
    names = {type(operation).__name__ for operation in operations}
    found = {
        "prepared": not names.isdisjoint(PREPARATION),
        "noise": not names.isdisjoint(NOISE),
        "masks": "Masking" in names
        or any(getattr(x, "mask_zero", False) for x in operations),
    }
    return {kind for kind, is_there in found.items() if is_there}


def check_prepared(count: int) -> Counter:
    """Removals behind masks, prepared data and noise, at 0 and elsewhere."""
    outcomes = Counter()

    @on_examples(count)
    @given(st.data())
    def removal_equals_oracle(data):
        case = data.draw(cases(prepared=1.0))
        constants = data.draw(held_constants(case.model, case.units))
        outcomes.update(kinds_in(case.model))
        outcomes[compare_with_oracle(case)] += 1
        outcomes[compare_with_oracle(case, constants)] += 1

    removal_equals_oracle()
    return outcomes


def check_removal_in_training_mode(count: int, **options) -> Counter:
    """What folding accepts for training equals the oracle in that mode."""
    outcomes = Counter()

    @on_examples(count)
    @given(st.data())
    def removal_equals_oracle_in_training(data):
        case = data.draw(cases(dropout=False, **options))
        constants = data.draw(held_constants(case.model, case.units))
        describe(case)
        graph = ChannelGraph(case.model)
        groups = {
            int(graph.group_numbers[graph.units[name][unit]])
            for name, indices in case.units.items()
            for unit in indices
        }
        folding = fold_constants(graph, groups, constants, training=True)
        if folding.refusals or folding.precisions:
            outcomes["refused"] += 1
            return
        x = random_inputs(case.model, case.seed)
        smaller = remove_units(case.model, case.units, constants=constants)
        expected = held_outputs(
            case.model, case.units, x, constants, training=True
        )
        received = outputs_of(smaller, x, training=True)
        assert relative_error(received, expected) <= TOLERANCE
        outcomes["equal"] += 1

    removal_equals_oracle_in_training()
    return outcomes


def test_the_oracle_without_removed_units_is_the_model_itself():
    @on_examples(20)
    @given(cases())
    def oracle_is_model(case):
        x = random_inputs(case.model, case.seed)
        expected = outputs_of(case.model, x)
        received = held_outputs(case.model, {}, x)
        assert relative_error(received, expected) == 0

    oracle_is_model()


def test_removal_equals_the_oracle():
    outcomes = check_removal(50)
    assert outcomes["equal"] + outcomes["folded"] >= 40


@pytest.mark.slow
def test_removal_equals_the_oracle_on_many_graphs():
    outcomes = check_removal(500)
    assert outcomes["equal"] + outcomes["folded"] >= 400
    assert outcomes["folded"] >= 10


def test_removal_with_constants_equals_the_oracle_or_is_refused():
    outcomes = check_removal_with_constants(50)
    assert outcomes["folded"] >= 10


@pytest.mark.slow
def test_removal_with_constants_equals_the_oracle_on_many_graphs():
    outcomes = check_removal_with_constants(500)
    assert outcomes["folded"] >= 100


def test_removal_accepted_for_training_equals_the_oracle_in_training():
    assert check_removal_in_training_mode(30)["equal"] >= 10


@pytest.mark.slow
def test_removal_accepted_for_training_equals_the_oracle_on_many_graphs():
    assert check_removal_in_training_mode(500)["equal"] >= 200


def test_removal_behind_masks_prepared_data_and_noise_equals_the_oracle():
    outcomes = check_prepared(10)
    assert outcomes["equal"] + outcomes["folded"] >= 12


@pytest.mark.slow
def test_removal_behind_masks_equals_the_oracle_on_many_graphs():
    outcomes = check_prepared(300)
    assert outcomes["masks"] >= 150
    assert outcomes["prepared"] >= 150
    assert outcomes["noise"] >= 60
    assert outcomes["folded"] >= 60
    assert outcomes["equal"] + outcomes["folded"] >= 500


@pytest.mark.slow
def test_removal_behind_masks_accepted_for_training_equals_the_oracle():
    assert check_removal_in_training_mode(200, prepared=1.0)["equal"] >= 80


@pytest.mark.slow
def test_penalties_put_in_and_taken_out_leave_many_graphs_as_they_are():
    outcomes = Counter()

    @on_examples(100)
    @given(cases(prepared=1.0))
    def outputs_stay(case):
        describe(case)
        if not ChannelGraph(case.model).removable_layers():
            return
        x = random_inputs(case.model, case.seed)
        expected = outputs_of(case.model, x)
        prepared = prepare(case.model)
        for model in (prepared, finalize(prepared)):
            assert relative_error(outputs_of(model, x), expected) == 0
        outcomes["equal"] += 1

    outputs_stay()
    assert outcomes["equal"] >= 80


def check_two_steps(count: int) -> Counter:
    outcomes = Counter()

    @on_examples(count)
    @given(st.data())
    def two_steps_equal_one(data):
        case = data.draw(cases())
        describe(case)
        first = data.draw(whole_groups_of(case))
        x = random_inputs(case.model, case.seed)
        try:
            at_once = remove_units(case.model, case.units)
        except SurgeryError:
            with pytest.raises(SurgeryError):
                remove_in_two_steps(case, first)
            outcomes["refused"] += 1
            return
        in_two_steps = remove_in_two_steps(case, first)
        error = relative_error(
            outputs_of(in_two_steps, x), outputs_of(at_once, x)
        )
        assert error <= TOLERANCE
        outcomes["equal"] += 1

    two_steps_equal_one()
    return outcomes


@st.composite
def whole_groups_of(draw, case):
    """Draws which of a case's units go in the first of two steps."""
    first = {}
    for group in ChannelGraph(case.model).groups().values():
        name, unit = group.members[0]
        if unit in case.units.get(name, ()) and draw(st.booleans()):
            for name, unit in group.members:
                first.setdefault(name, []).append(unit)
    return first


def remove_in_two_steps(case, first):
    middle = remove_units(case.model, first)
    second = {
        name: [
            unit - sum(other < unit for other in first.get(name, ()))
            for unit in indices
            if unit not in first.get(name, ())
        ]
        for name, indices in case.units.items()
    }
    return remove_units(middle, second)


def test_two_removals_equal_one():
    assert check_two_steps(30)["equal"] >= 20


@pytest.mark.slow
def test_two_removals_equal_one_on_many_graphs():
    assert check_two_steps(500)["equal"] >= 400


def test_removing_nothing_gives_bit_equal_outputs():
    @on_examples(20)
    @given(cases())
    def outputs_are_bit_equal(case):
        x = random_inputs(case.model, case.seed)
        copy = remove_units(case.model, {})
        for a, b in zip(
            outputs_of(copy, x), outputs_of(case.model, x), strict=True
        ):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(
            variable_values(copy), variable_values(case.model), strict=True
        ):
            np.testing.assert_array_equal(a, b)

    outputs_are_bit_equal()


def test_exactly_the_removed_units_are_gone():
    @on_examples(20)
    @given(cases())
    def counts_fall(case):
        try:
            plan = plan_removal(case.model, case.units)
        except SurgeryError:
            return
        after = ChannelGraph(plan.build()).units
        for name, labels in ChannelGraph(case.model).units.items():
            removed = case.units.get(name, ())
            assert len(after[name]) == len(labels) - len(removed)

    counts_fall()


def small_image_model() -> keras.Model:
    with float64():
        return keras.Sequential(
            [
                keras.Input((3, 3, 2)),
                keras.layers.Conv2D(4, 2, name="conv"),
                keras.layers.BatchNormalization(name="bn"),
                keras.layers.ReLU(),
                keras.layers.Flatten(),
                keras.layers.Dense(3, name="head"),
            ]
        )


def with_filters_in_order(model, order):
    """Returns the same model with the filters of `conv` in another order."""
    permuted = remove_units(model, {})
    conv, bn = permuted.get_layer("conv"), permuted.get_layer("bn")
    conv.kernel.assign(to_numpy(conv.kernel)[..., order])
    conv.bias.assign(to_numpy(conv.bias)[order])
    for weight in bn.weights:
        weight.assign(to_numpy(weight)[order])
    kernel = permuted.get_layer("head").kernel
    by_position = to_numpy(kernel).reshape(2 * 2, len(order), 3)
    kernel.assign(by_position[:, order].reshape(-1, 3))
    return permuted


@on_examples(10)
@given(st.permutations(range(4)), st.sets(st.integers(0, 3), max_size=3))
def test_permuted_units_give_the_permuted_result(order, removed):
    model = randomize(small_image_model(), seed=1)
    smaller = remove_units(model, {"conv": sorted(removed)})
    kept = [unit for unit in range(4) if unit not in removed]
    new_order = [kept.index(unit) for unit in order if unit in kept]

    received = remove_units(
        with_filters_in_order(model, order),
        {"conv": [order.index(unit) for unit in removed]},
    )

    expected = with_filters_in_order(smaller, new_order)
    for a, b in zip(received.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


@pytest.mark.parametrize("unit", [0, 1, 2, 3])
def test_removing_a_live_unit_changes_the_outputs(unit):
    model = randomize(small_image_model(), seed=2)
    model.get_layer("bn").beta.assign([1.0, 2.0, 3.0, 4.0])
    x = random_inputs(model, seed=3)
    smaller = remove_units(model, {"conv": [unit]})
    assert relative_error(outputs_of(smaller, x), outputs_of(model, x)) > 1e-3


def test_removing_dead_units_keeps_the_outputs():
    model = randomize(small_image_model(), seed=4)
    bn = model.get_layer("bn")
    # gamma = 0 leaves beta = -1, which the ReLU turns into 0.
    bn.gamma.assign([1.0, 0.0, 1.0, 0.0])
    bn.beta.assign([1.0, -1.0, 1.0, -1.0])
    x = random_inputs(model, seed=5)
    smaller = remove_units(model, {"conv": [1, 3]})
    assert (
        relative_error(outputs_of(smaller, x), outputs_of(model, x))
        <= TOLERANCE
    )
