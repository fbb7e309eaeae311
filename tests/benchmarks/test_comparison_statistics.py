"""How sure the comparison is of a difference."""

import numpy as np
import pytest
from comparison.statistics import (
    Difference,
    better_length,
    correct,
    difference,
    is_above,
    is_not_below,
    outcome,
    pooled,
    standard_error,
    verdict,
)
from hypothesis import given, settings
from hypothesis import strategies as st

ANSWERS = st.lists(st.booleans(), min_size=12, max_size=12)
SEEDS = st.dictionaries(st.integers(0, 4), ANSWERS, min_size=1)


def run(seed, answers, length="short", **splits):
    """Returns a cell that got right what `answers` says, on validation."""
    splits = {"validation": answers, **splits}
    return {"seed": seed, "length": length} | {
        split: outcome(np.array(found, bool)) for split, found in splits.items()
    }


def runs(by_seed):
    """Returns a method's cells from its answers by seed."""
    return [run(seed, answers) for seed, answers in by_seed.items()]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_packed_answers_are_read_back_bit_by_bit(answers):
    cell = run(0, answers)

    assert correct(cell, "validation").tolist() == answers
    assert cell["validation"]["examples"] == len(answers)
    assert cell["validation"]["accuracy"] == np.mean(answers)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(SEEDS, SEEDS)
def test_a_difference_turned_round_has_the_other_sign(first, second):
    second[0], first[0] = first.get(0, [True] * 12), [False] * 12

    there = difference(runs(first), runs(second), "validation")
    back = difference(runs(second), runs(first), "validation")

    assert there.mean == -back.mean
    assert there.error == pytest.approx(back.error)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(SEEDS)
def test_a_method_is_neither_above_nor_below_itself(answers):
    found = difference(runs(answers), runs(answers), "validation")

    assert found == (0, 0)
    assert not is_above(found)
    assert is_not_below(found)


def test_one_seed_has_the_error_over_the_examples():
    a, b = run(0, [1, 1, 1, 0]), run(0, [1, 0, 0, 0])

    found = difference([a], [b], "validation")

    # Of 0, 1, 1, 0: mean 1/2, variance 4 * (1/2)**2 / 3 = 1/3.
    assert found.mean == 50
    assert found.error == pytest.approx(100 * (1 / 3 / 4) ** 0.5)


def test_the_error_over_seeds_counts_where_it_is_larger():
    # Seed 0 gains all 4 examples, seed 1 none: 1 and 0; each example: 1/2.
    a = runs({0: [1, 1, 1, 1], 1: [0, 0, 0, 0]})
    b = runs({0: [0, 0, 0, 0], 1: [0, 0, 0, 0]})

    found = difference(a, b, "validation")

    assert found.mean == 50
    # Of 1 and 0: variance (1/4 + 1/4) / 1 = 1/2, over two seeds 1/4.
    assert found.error == pytest.approx(100 * (1 / 4) ** 0.5)


def test_the_error_over_examples_counts_where_it_is_larger():
    # Each seed gains the same 2 of 4 examples: no scatter over the seeds.
    a = runs({0: [1, 1, 0, 0], 1: [1, 1, 0, 0]})
    b = runs({0: [0, 0, 0, 0], 1: [0, 0, 0, 0]})

    found = difference(a, b, "validation")

    assert found.error == pytest.approx(100 * (1 / 3 / 4) ** 0.5)


def test_only_the_seeds_of_both_are_paired():
    a = runs({0: [1, 1], 1: [0, 0], 5: [0, 0]})
    b = runs({7: [1, 1], 0: [1, 0]})

    assert difference(a, b, "validation").mean == 50


def test_seeds_of_which_none_is_in_both_are_refused():
    with pytest.raises(ValueError, match=r"\[0\] and \[1\].*Run a seed"):
        difference(runs({0: [1]}), runs({1: [1]}), "validation")


def test_two_runs_of_one_seed_are_refused():
    twice = [run(3, [1]), run(3, [0], "long")]

    with pytest.raises(ValueError, match=r"\[3, 3\].*one length"):
        difference(twice, runs({3: [1]}), "validation")


def test_answers_to_other_examples_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) of 'test'.*earlier split"):
        difference(
            [run(0, [1], test=[1, 1])], [run(0, [1], test=[1, 0, 1])], "test"
        )


@pytest.mark.parametrize(
    ("mean", "error", "expected"),
    [
        (0.25, 0.1, "above"),  # 2.5 errors
        (0.20, 0.1, "not below"),  # 2.0 errors
        (0.0, 0.0, "not below"),
        (-0.20, 0.1, "not below"),  # -0.2 + 0.213 >= 0
        (-0.20, 0.05, "below"),  # -0.2 + 0.1065 < 0: small, but sure
        (-0.3, 0.2, "not below"),  # just the margin
        (-0.31, 0.2, "undecided"),  # -0.31 + 0.426 >= 0
        (-1.0, 0.2, "below"),
    ],
)
def test_a_verdict_asks_for_2_13_errors_and_at_most_0_3_points(
    mean, error, expected
):
    assert verdict(Difference(mean, error)) == expected


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.floats(-2, 2), st.floats(0, 1))
def test_what_is_above_is_not_below_and_never_both_ways(mean, error):
    there, back = Difference(mean, error), Difference(-mean, error)

    assert is_not_below(there) or not is_above(there)
    assert not (is_above(there) and is_above(back))


def test_three_in_a_thousand_are_the_margin_exactly():
    worse = [False] * 3 + [True] * 997

    found = difference(runs({0: worse}), runs({0: [True] * 1000}), "validation")

    assert found.mean == -0.3
    assert found.mean + 2.13 * found.error >= 0  # -0.3 + 2.13 * 0.173
    assert is_not_below(found)


@pytest.mark.parametrize(
    ("means", "holds"),
    [
        ([0.5, -1.0], True),  # mean -0.25
        ([1.5, -1.01], False),  # one far below
        ([-0.2, -0.4], True),  # mean -0.3, and in floats a hair less
        ([-0.2, -0.41], False),  # mean -0.305
    ],
)
def test_settings_are_pooled_by_their_mean_and_their_worst(means, holds):
    found = pooled([Difference(mean, 0.1) for mean in means])

    assert found.is_not_below is holds
    assert found.worst == min(means)


def test_the_length_is_chosen_on_validation_alone():
    short = run(0, [1, 0, 0], test=[1, 1, 1])
    long = run(0, [1, 1, 0], "long", test=[0, 0, 0])

    assert better_length([short, long]) == "long"


def test_lengths_are_compared_by_the_seeds_of_both():
    short = [run(0, [1, 1, 0]), run(1, [0, 0, 0])]
    long = [run(0, [1, 0, 0], "long")]

    assert better_length(short + long) == "short"


def test_of_equal_lengths_the_short_one_is_taken():
    assert better_length([run(0, [1]), run(0, [1], "long")]) == "short"
    assert better_length([run(0, [1], "long")]) == "long"


def test_a_mean_of_one_value_has_no_error():
    assert standard_error([3.0]) == 0
    assert standard_error([1.0, 3.0]) == pytest.approx((2 / 2) ** 0.5)
