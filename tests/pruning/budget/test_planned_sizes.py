"""Sizes that are planned, beside those of the student that is built."""

import numpy as np
import pytest
from budgeted_runs import make_student
from helpers import randomize
from hypothesis import given, reject, settings
from strategies import Case, cases

from keras_kddp.profiling import profile
from keras_kddp.pruning.budget.int8_trial import int8_bytes
from keras_kddp.pruning.budget.planned_sizes import PlannedSizes
from keras_kddp.surgery import (
    ChannelGraph,
    SurgeryError,
    plan_removal,
    remove_units,
)


@pytest.mark.filterwarnings(
    "ignore:Layer .* was passed an input with a mask:UserWarning"
)
@given(cases())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_planned_sizes_are_those_of_the_smaller_model(case: Case):
    graph = ChannelGraph(case.model)
    names = {
        (name, unit) for name, units in case.units.items() for unit in units
    }
    numbers = {
        number
        for number, group in graph.groups().items()
        if names & set(group.members)
    }
    gone = np.isin(graph.group_numbers, list(numbers))

    planned = PlannedSizes(graph).without(gone)

    try:
        plan = plan_removal(case.model, case.units)
    except SurgeryError:  # what these units leave behind cannot be folded
        reject()
    smaller = profile(plan.build())
    assert planned["macs"] == smaller.macs
    assert planned["parameters"] + plan.gained_biases() == smaller.parameters


def test_the_line_of_bytes_follows_the_real_file(digits):
    (x, _), _ = digits
    student = randomize(make_student(), 0)
    smaller = remove_units(student, {"hidden": range(20)})

    saved = int8_bytes(student, x) - int8_bytes(smaller, x)

    # A unit has 288 weights in, 10 out and 28 bytes beside.
    assert saved == pytest.approx(20 * (288 + 10 + 28), rel=0.05)
