"""Layers that lose too much, by what is removed and what is observed."""

import keras
import numpy as np
import pytest
from known_activity import fit as fit_rows
from known_activity import make_distiller, pruning

from keras_kddp import Budget, prepare
from keras_kddp.pruning.certificates import Removal
from keras_kddp.pruning.lost_units import LostUnitWarnings


def told(before, after, *, dead=None, budget=None, warnings=None):
    """Returns what is said of a removal from layers of these widths."""
    lost = {name: before[name] - after[name] for name in before}
    inactive = {n: range(count) for n, count in (dead or lost).items()}
    removal = Removal(3, before, after, 1000, 100)
    return (warnings or LostUnitWarnings()).of_removal(
        removal, inactive, budget
    )


def test_most_of_a_layer_at_one_removal_is_told_with_its_numbers():
    before, after = {"hidden": 512, "other": 64}, {"hidden": 6, "other": 60}
    assert told(before, after) == [
        "506 of 512 units of 'hidden' died at one removal, at the beginning of "
        "epoch 4: 6 stay. Lower `l1`, ramp longer (`ramp_epochs`) or lower "
        "`threshold`."
    ]


@pytest.mark.parametrize(
    ("after", "is_told"),
    [(128, False), (100, False), (22, False), (13, False), (12, True)],
)
def test_more_than_nine_in_ten_is_most(after, is_told):
    assert bool(told({"hidden": 128}, {"hidden": after})) is is_told


def test_the_last_unit_of_a_large_layer_is_told_once():
    (warning,) = told({"hidden": 128}, {"hidden": 1})
    assert warning.startswith("127 of 128 units of 'hidden' died at one")


def test_a_layer_that_falls_to_one_unit_later_is_told_again():
    warnings = LostUnitWarnings()
    assert told({"hidden": 128}, {"hidden": 4}, warnings=warnings)
    (later,) = told({"hidden": 4}, {"hidden": 1}, warnings=warnings)
    assert later.startswith("Only minimum_units=1 stay in 'hidden' from epoch")
    assert told({"hidden": 4}, {"hidden": 1}, warnings=warnings) == []


@pytest.mark.parametrize("dead", [{"hidden": 122}, {"hidden": 3}])
def test_what_a_budget_asks_for_is_not_told(dead):
    budget = Budget(max_parameters=100)
    assert told({"hidden": 128}, {"hidden": 6}, dead=dead, budget=budget) == []


def test_units_that_are_cut_although_they_are_active_did_not_die():
    assert told({"hidden": 128}, {"hidden": 6}, dead={"hidden": 100}) == []


# In a run.


def student_of(units, bias):
    """Returns a prepared student whose hidden units are dead from bias -9."""
    student = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(units, "relu", name="fc"),
            keras.layers.Dense(2),
        ]
    )
    kernel = np.ones((2, units))
    student.get_layer("fc").set_weights([kernel, np.array(bias)])
    return prepare(student)


def test_a_run_that_loses_most_of_a_layer_says_so_when_it_happens():
    student = student_of(24, [0.0] * 2 + [-9.0] * 22)
    callback = pruning(criterion="never_active")
    with pytest.warns(UserWarning, match="22 of 24 units of 'fc' died at one"):
        fit_rows(make_distiller(student), callback)
    assert callback.removals[0].units_after == {"fc": 2}


def test_a_layer_that_falls_silent_is_told_once():
    callback = pruning(criterion="never_active", minimum_units=2)
    with pytest.warns(UserWarning) as caught:
        fit_rows(make_distiller(student_of(4, [-9.0] * 4)), callback)
    heard = [x.message for x in caught if x.category is UserWarning]
    assert [*map(str, heard)] == [
        "No unit fires any more in 'fc' at the end of epoch 1: nothing but a "
        "constant comes out. Lower `l1` or the learning rate, or warm up "
        "longer (`warmup_epochs`)."
    ]
