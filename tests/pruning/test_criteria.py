"""The scores of the criteria, by hand."""

import numpy as np
import pytest

from keras_kddp.pruning.activity import UnitActivity
from keras_kddp.pruning.criteria import (
    CRITERIA,
    contribution,
    mean_activity,
    never_active,
    zero_fraction,
)


def activity(minimum, maximum, mean_abs, zero_fraction=None):
    """Returns statistics of which a criterion reads only these."""
    zeros = np.zeros(len(minimum))
    return UnitActivity(
        minimum=np.array(minimum),
        maximum=np.array(maximum),
        mean=zeros,
        mean_abs=np.array(mean_abs),
        variance=zeros,
        zero_fraction=zeros if zero_fraction is None else zero_fraction,
        count=4,
    )


def test_only_units_that_never_fired_score_zero_by_the_papers_criterion():
    statistics = activity(
        minimum=[0.0, 0.0, -1.0, -1.0],
        maximum=[0.0, 1e-9, 0.0, 1.0],
        mean_abs=[0.0, 1e-9, 1.0, 1.0],
    )

    scores = never_active(statistics, np.ones(4))

    assert scores.tolist() == [0.0, 1.0, 1.0, 1.0]


def test_a_contribution_is_what_a_unit_sends_on_relative_to_the_largest():
    statistics = activity([0.0] * 3, [9.0] * 3, mean_abs=[1.0, 4.0, 2.0])

    scores = contribution(statistics, np.array([3.0, 2.0, 0.5]))

    assert scores.tolist() == [1 * 3 / 8, 4 * 2 / 8, 2 * 0.5 / 8]


def test_a_mean_activity_is_relative_to_the_largest():
    statistics = activity([0.0] * 3, [9.0] * 3, mean_abs=[1.0, 4.0, 0.0])

    scores = mean_activity(statistics, np.array([3.0, 2.0, 0.5]))

    assert scores.tolist() == [1 / 4, 1.0, 0.0]
    silent = activity([0.0] * 2, [0.0] * 2, mean_abs=[0.0, 0.0])
    assert mean_activity(silent, np.ones(2)).tolist() == [0.0, 0.0]


def test_a_zero_fraction_scores_how_often_a_unit_fires():
    fractions = np.array([1.0, 0.75, 0.0])
    statistics = activity([0.0] * 3, [9.0] * 3, [0.0] * 3, fractions)

    scores = zero_fraction(statistics, np.array([3.0, 2.0, 0.5]))

    assert scores.tolist() == [0.0, 0.25, 1.0]


def test_a_unit_that_nothing_reads_contributes_nothing():
    statistics = activity([0.0] * 2, [9.0] * 2, mean_abs=[5.0, 1.0])

    assert contribution(statistics, np.array([0.0, 2.0])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("mean_abs", "norms"), [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0])]
)
def test_a_layer_that_sends_nothing_scores_zero_throughout(mean_abs, norms):
    statistics = activity([0.0] * 2, [0.0] * 2, mean_abs)

    assert contribution(statistics, np.array(norms)).tolist() == [0.0, 0.0]


def test_activations_that_are_not_numbers_have_no_score():
    statistics = activity([0.0] * 2, [9.0] * 2, mean_abs=[np.nan, 1.0])

    assert np.isnan(contribution(statistics, np.ones(2))).all()


def test_the_scale_of_a_layer_does_not_change_its_contributions():
    small = activity([0.0] * 2, [9.0] * 2, mean_abs=[1.0, 4.0])
    large = activity([0.0] * 2, [9.0] * 2, mean_abs=[8.0, 32.0])
    norms = np.array([2.0, 3.0])

    np.testing.assert_array_equal(
        contribution(small, norms), contribution(large, norms / 8)
    )


def test_every_criterion_is_found_by_its_name_with_its_threshold():
    assert CRITERIA == {
        "never_active": (never_active, 0.0),
        "mean_activity": (mean_activity, 0.01),
        "zero_fraction": (zero_fraction, 0.01),
        "contribution": (contribution, 0.02),
    }
