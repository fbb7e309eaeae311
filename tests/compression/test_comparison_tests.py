"""How sure it is that two models differ: values that are worked out by hand."""

import math

import numpy as np
import pytest

from keras_kddp.compression.answers import Answers, mark_answers
from keras_kddp.compression.comparison_tests import (
    between_examples,
    chance_error,
    is_near_chance,
    mcnemar,
    over_seeds,
)


def of_hits(*hits):
    """Returns answers of one per example, right (1) or wrong (0)."""
    right = np.array([hits])
    return Answers(right, np.ones_like(right), (0.5,))


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (1, 9, 2 * (1 + 10) / 2**10),
        (9, 1, 2 * (1 + 10) / 2**10),
        (0, 5, 2 / 2**5),
        (0, 6, 2 / 2**6),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_counts_what_one_model_alone_gets_right(
    only_first, only_second, p_value
):
    assert mcnemar(only_first, only_second) == pytest.approx(p_value, rel=1e-12)


def test_a_difference_comes_with_its_error():
    first, second = of_hits(1, 1, 1, 0, 1), of_hits(1, 0, 1, 1, 0)

    found = between_examples(first, second)

    # Differences 0, 1, 0, -1, 1, of mean 1 / 5.
    squares = (0.2**2 + 0.8**2 + 0.2**2 + 1.2**2 + 0.8**2) / (5 - 1)
    assert found.mean == pytest.approx(1 / 5)
    assert found.error == pytest.approx(math.sqrt(squares / 5))
    assert (found.only_first, found.only_second) == (2, 1)
    assert found.p_value == 1.0
    assert found.word == "tie"
    assert found.is_one_per_example


@pytest.mark.parametrize(
    ("differing", "word"), [(5, "tie"), (6, "better"), (9, "better")]
)
def test_six_examples_of_six_are_no_chance_any_more(differing, word):
    good = of_hits(*[1] * differing, 1, 1)
    bad = of_hits(*[0] * differing, 1, 1)
    assert between_examples(good, bad).word == word
    turned = {"better": "worse", "tie": "tie"}[word]
    assert between_examples(bad, good).word == turned


@pytest.mark.parametrize("hit", [0, 1])
def test_equal_models_tie(hit):
    same = of_hits(*[hit] * 20)
    found = between_examples(same, same)
    assert found[:5] == (0.0, 0.0, 0, 0, 1.0)
    assert found.word == "tie"


def test_one_example_has_no_error_and_tells_nothing():
    found = between_examples(of_hits(1), of_hits(0))
    assert found.mean == 1.0
    assert math.isnan(found.error)
    assert found.word == "tie"


# Examples of many answers.

LABELS = np.zeros((2, 4), int)
MASK = np.array([[True, True, True, True], [True, False, False, False]])


def tagged(wrong):
    """Returns the answers of a tagger of two classes, wrong at some steps."""
    scores = np.stack([1.0 - np.array(wrong), np.array(wrong)], axis=-1)
    return mark_answers([scores], [MASK], [LABELS])


def test_an_example_of_many_answers_counts_as_one():
    first = tagged([[0, 0, 0, 1], [0, 1, 1, 1]])  # 3 of 4, 1 of 1
    second = tagged([[0, 0, 1, 1], [1, 0, 0, 0]])  # 2 of 4, 0 of 1

    found = between_examples(first, second)

    assert first.accuracy == 4 / 5
    assert second.accuracy == 2 / 5
    np.testing.assert_allclose(first.scores, [3 / 4, 1])
    # Each example's answers, less as many as would be right on the average.
    moved = [(3 - 4 * 4 / 5) / 5, (1 - 4 / 5) / 5]
    np.testing.assert_allclose(first.deviations, moved)
    moved = [moved[0] - (2 - 4 * 2 / 5) / 5, moved[1] - (0 - 2 / 5) / 5]
    squares = moved[0] ** 2 + moved[1] ** 2
    assert found.error == pytest.approx(math.sqrt(2 / 1 * squares))
    assert (found.only_first, found.only_second) == (2, 0)
    assert not found.is_one_per_example


def test_more_examples_do_not_make_it_better_where_the_mean_is_worse():
    # 9 examples with one answer more, and one with 40 answers less.
    right = np.array([[6] * 9 + [0]])
    others = np.array([[5] * 9 + [40]])
    counts = np.full_like(right, 40)
    found = between_examples(
        Answers(right, counts, (0.5,)), Answers(others, counts, (0.5,))
    )
    assert found.p_value == pytest.approx(2 * (1 + 10) / 2**10)
    assert found.mean < 0
    assert found.word == "tie"


def test_the_accuracies_of_several_outputs_are_averaged():
    one_hot = np.eye(3)
    found = mark_answers(
        [one_hot, one_hot[:, :2]],
        [None, None],
        [np.array([0, 1, 0]), np.array([0, 0, 0])],
    )
    # Right: 0, 1, not 2 for 0; and 0, not 1, the last (0, 0) for 0.
    assert found.right.tolist() == [[1, 1, 0], [1, 0, 1]]
    assert found.accuracies.tolist() == [2 / 3, 2 / 3]
    assert found.scores.tolist() == [1.0, 0.5, 0.5]
    assert found.deviations.sum() == pytest.approx(0)
    # The second labels are of one class: then chance is one in two classes.
    assert found.chances == (2 / 3, 1 / 2)
    assert not found.is_one_per_example


def test_padding_is_no_answer():
    found = mark_answers([np.ones((2, 4, 3))], [MASK & False], [LABELS])
    assert found.counts.tolist() == [[0, 0]]
    assert found.accuracy == 0.0
    assert found.chances == (1 / 3,)
    assert between_examples(found, found).word == "tie"


# Several seeds.


def test_two_seeds_have_an_interval_as_wide_as_it_is():
    found = over_seeds([0.01, 0.03])
    assert found.mean == pytest.approx(0.02)
    assert found.error == pytest.approx(0.01)  # |0.03 - 0.01| / 2
    t = math.tan(math.pi / 2 * 0.95)  # of one degree of freedom: Cauchy's
    assert found.low == pytest.approx(0.02 - 0.01 * t)
    assert found.high == pytest.approx(0.02 + 0.01 * t)
    assert found.word == "tie"


@pytest.mark.parametrize(("sign", "word"), [(1, "better"), (-1, "worse")])
def test_many_seeds_tell(sign, word):
    found = over_seeds([sign * x for x in (0.01, 0.02, 0.03, 0.02)])
    # Squares of -1, 0, 1, 0 points over 4 - 1, over 4 seeds.
    assert found.error == pytest.approx(0.01 * math.sqrt(2 / 3 / 4))
    assert found.word == word


@pytest.mark.parametrize(
    ("differences", "word"),
    [
        ([0.0, 0.0], "tie"),
        ([0.01] * 2, "tie"),  # 2 of 2 signs: p = 2 / 2**2
        ([0.01] * 5, "tie"),  # 2 / 2**5 = 0.0625
        ([-0.01] * 6, "worse"),  # 2 / 2**6 = 0.03125
        ([0.1 + 0.2 - 0.3 + 0.01, 0.01], "tie"),  # equal, but for rounding
    ],
)
def test_one_difference_in_all_seeds_is_judged_by_its_signs(differences, word):
    found = over_seeds(differences)
    assert found.error == 0
    assert found.word == word


# Chance.


@pytest.mark.parametrize(
    ("accuracy", "count", "chance", "is_near"),
    [
        (0.12, 150, 0.1, True),
        (0.0, 150, 0.1, True),
        (0.15, 10_000, 0.1, True),  # 17 errors above, but next to nothing
        (0.20, 10_000, 0.1, False),
        (0.20, 10, 0.1, True),  # two of ten, or more: 26 %
        (0.30, 150, 0.1, False),
        (0.93, 150, 0.9, True),
        (0.7, 10, 0.5, True),  # seven of ten, or more: 17 %
        (0.8, 10, 0.5, False),  # 5.5 %, but more than half of the way
        (1.0, 150, 0.9, False),
        (0.5, 4, 0.5, False),  # four of four would be 1 / 16: no one can tell
        (0.5, 5, 0.5, True),
        (0.0, 1, 0.5, False),
        (1.0, 20, 1.0, False),
    ],
)
def test_near_chance_is_not_above_it_or_by_next_to_nothing(
    accuracy, count, chance, is_near
):
    assert is_near_chance(accuracy, count, chance) is is_near


def test_chance_has_an_error_too():
    assert chance_error(0.1, 900) == pytest.approx(math.sqrt(0.09 / 900))
