"""A removal before it is built: what it says, and what it refuses."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from helpers import float64, randomize, to_numpy
from small_models import (
    dense_model,
    model_with_late_normalization,
    small_model,
)

from keras_kddp.surgery import (
    SurgeryError,
    plan_removal,
    remove_units,
)

layers = keras.layers


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


def test_a_plan_prints_the_dry_run():
    plan = plan_removal(model_with_late_normalization(), {"fc": [0]})
    assert str(plan).splitlines() == [
        "fc: 2 -> 1 units, without 0",
        "  fc: kernel axis 1 to 1, bias axis 0 to 1",
        "  bn: gamma axis 0 to 1, beta axis 0 to 1, moving_mean axis 0 to 1, "
        "moving_variance axis 0 to 1",
        "  other: kernel axis 0 to 1",
        "  reader: kernel axis 0 to 1",
        "  reader: constants fold into bias",
    ]


def test_a_plan_shortens_long_lists():
    model = keras.Sequential(
        [keras.Input((1,)), layers.Dense(20, name="fc"), layers.Dense(1)]
    )
    plan = plan_removal(model, {"fc": range(15)})
    assert str(plan).startswith(
        "fc: 20 -> 5 units, without 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 "
        "more"
    )


def test_an_empty_plan_says_so():
    assert str(plan_removal(dense_model(), {})) == "Nothing is removed."
    assert str(plan_removal(dense_model(), {"fc": []})) == "Nothing is removed."


def test_a_plan_becomes_json():
    plan = plan_removal(dense_model(), {"fc": [1]}, constants={"fc": {1: 0.5}})
    assert json.loads(plan.to_json()) == {
        "removed": {"fc": [1]},
        "arguments": {"fc": {"units": 2}},
        "slices": {
            "fc": {"kernel": {"1": [0, 2]}, "bias": {"0": [0, 2]}},
            "head": {"kernel": {"0": [0, 2]}},
        },
        "folds": {"head": [0.5 * 20]},
        "errors": {},
    }


def test_a_plan_is_frozen():
    plan = plan_removal(dense_model(), {"fc": [1]})
    with pytest.raises(dataclasses.FrozenInstanceError, match="removed"):
        plan.removed = {}


def test_a_plan_can_be_built_twice():
    plan = plan_removal(dense_model(), {"fc": [1]})
    first, second = plan.build(), plan.build()
    assert first is not second
    for a, b in zip(first.weights, second.weights, strict=True):
        assert a is not b
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def test_a_plan_folds_constants_into_the_weights_of_the_moment_it_is_built():
    model = randomize(small_model(), 0)
    plan = plan_removal(model, {"fc": [0]}, constants={"fc": {0: 2.0}})
    model.set_weights([3 * value for value in model.get_weights()])
    now = remove_units(model, {"fc": [0]}, constants={"fc": {0: 2.0}})
    for built, fresh in zip(
        plan.build().get_weights(), now.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(built, fresh)


def test_units_may_come_from_an_iterator():
    plan = plan_removal(small_model(), {"fc": (i for i in [1, 2])})
    assert plan.removed == {"fc": (1, 2)}


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (
            {"nowhere": [0]},
            r"`units` must name layers that have removable units: \['fc'\]. "
            "Received: 'nowhere'",
        ),
        ({"fc": 1}, "'fc' must be a list of integers. Received: 1"),
        ({"fc": "1"}, "'fc' must be integers from 0 to 2. Received: '1'"),
        ({"fc": [3]}, "'fc' must be integers from 0 to 2. Received: 3"),
        ({"fc": [-1]}, "integers from 0 to 2. Received: -1"),
        ({"fc": [1.0]}, "integers from 0 to 2. Received: 1.0"),
        ({"fc": [True]}, "integers from 0 to 2. Received: True"),
        (
            {"fc": [0, 1, 2]},
            "'fc' must keep at least one unit. Received all 3 of its units for "
            "removal. Leave one out.",
        ),
    ],
)
def test_units_that_make_no_sense_are_refused(units, message):
    with pytest.raises(SurgeryError, match=message):
        plan_removal(dense_model(), units)


@pytest.mark.parametrize("units", [["fc"], None, [("fc", 1)]])
def test_units_that_are_no_dict_are_refused(units):
    with pytest.raises(SurgeryError, match="`units` must be a dict"):
        plan_removal(small_model(), units)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        (
            {"fc": {0: 1.0}},
            "must be given for units that are removed. Received one for unit 0 "
            "of layer 'fc'",
        ),
        ({"fc": {1: float("nan")}}, "finite numbers. Received: nan for unit 1"),
        ({"fc": {1: float("inf")}}, "finite numbers. Received: inf for unit 1"),
    ],
)
def test_constants_that_make_no_sense_are_refused(constants, message):
    with pytest.raises(SurgeryError, match=message):
        plan_removal(dense_model(), {"fc": [1]}, constants=constants)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ([0.5], "`constants` must be a dict"),
        ({"fc": 0.5}, r"`constants\['fc'\]` must be a dict"),
        ({"fc": {0: "a"}}, "must be finite numbers"),
    ],
)
def test_constants_that_are_no_numbers_by_unit_are_refused(constants, message):
    with pytest.raises(SurgeryError, match=message):
        plan_removal(small_model(), {"fc": [0]}, constants=constants)
