"""The examples that are cut for validation stand for the training data."""

import numpy as np
import pytest

from keras_kddp.data.validation_split import (
    grouped_rows,
    last_rows,
    stratified_rows,
)


def classes_of(y, rows):
    """Returns the classes on both sides of a cut."""
    kept = np.delete(y, rows)
    return np.unique(y[rows]).tolist(), np.unique(kept).tolist()


@pytest.mark.parametrize("order", ["sorted", "turned", "in turn"])
def test_every_class_has_its_share(order):
    y = np.repeat([0, 1, 2, 5], [120, 60, 24, 12])
    y = {"sorted": y, "turned": y[::-1], "in turn": np.roll(y, 100)}[order]

    cut = stratified_rows(y)

    # A twelfth of each: 10, 5, 2 and 1.
    found = np.unique(y[cut.rows], return_counts=True)[1]
    assert found.tolist() == [10, 5, 2, 1]
    assert (np.diff(cut.rows) > 0).all()
    assert cut.notes == (
        "validation: 18 of 216 training examples, stratified by class, seed 0",
    )


def test_the_cut_is_the_same_each_time_and_leaves_global_seeds():
    y = np.arange(240) % 4
    np.random.seed(1)  # noqa: NPY002
    first = stratified_rows(y).rows
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(stratified_rows(y).rows, first)
    np.testing.assert_array_equal(
        np.random.get_state()[1],  # noqa: NPY002
        state,
    )


def test_a_rare_class_is_on_both_sides_and_a_single_example_stays():
    y = np.array([0] * 600 + [1] * 2 + [2] * 3 + [3])

    cut = stratified_rows(y)

    assert classes_of(y, cut.rows) == ([0, 1, 2], [0, 1, 2, 3])
    assert cut.notes[1] == "class 3: of one example, which stays in `train`"


def test_as_many_examples_as_classes_are_cut_up_to_a_third():
    y = np.arange(24) % 8  # a twelfth is 2, a third is 8
    cut = stratified_rows(y)
    assert classes_of(y, cut.rows) == ([*range(8)], [*range(8)])
    assert len(cut.rows) == 8


def test_no_class_leaves_the_training_data_where_there_are_too_many():
    y = np.arange(48) // 2  # 24 classes of two, a twelfth is 4
    cut = stratified_rows(y)
    found, kept = classes_of(y, cut.rows)
    assert len(found) == len(cut.rows) == 4
    assert kept == [*range(24)]
    assert "of as many of the 24 classes" in cut.notes[0]


@pytest.mark.parametrize("count", [12, 13, 23, 24, 37, 100])
@pytest.mark.parametrize("classes", [1, 2, 5, 11, 40])
def test_no_cut_takes_a_class_from_the_training_data(count, classes):
    y = np.random.default_rng(count).integers(0, classes, count)
    cut = stratified_rows(y)
    assert 1 <= len(cut.rows) <= max(count // 12, count // 3 + 1)
    assert classes_of(y, cut.rows)[1] == np.unique(y).tolist()


@pytest.mark.parametrize("cut", [stratified_rows, last_rows])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(11, int), "at least 12 examples, of which one is for val"),
        (np.arange(12), "a class with two examples.*12 classes of one"),
    ],
)
def test_too_few_examples_are_refused(cut, y, message):
    with pytest.raises(ValueError, match=message):
        cut(y)


def test_the_last_twelfth():
    cut = last_rows(np.zeros(25, int))
    assert cut.rows.tolist() == [23, 24]
    assert cut.notes == ("validation: the last 2 of 25 training examples",)


@pytest.mark.parametrize("is_text", [False, True])
def test_no_group_is_cut_in_two(is_text):
    y = np.arange(240) % 3
    groups = np.arange(240) // 10  # 24 recordings
    names = np.array([f"s{g:02}" for g in groups]) if is_text else groups

    cut = grouped_rows(y, names, "recording")

    held = set(groups[cut.rows])
    assert held.isdisjoint(np.delete(groups, cut.rows))
    assert len(held) == 2
    assert classes_of(y, cut.rows) == ([0, 1, 2], [0, 1, 2])
    assert cut.notes == (
        "validation: 20 of 240 training examples, 2 of 24 groups of "
        "'recording', stratified as far as groups allow, seed 0",
    )
    again = grouped_rows(y, names, "recording")
    np.testing.assert_array_equal(again.rows, cut.rows)


def test_groups_of_one_class_each_are_taken_up_to_a_third():
    y = np.repeat([0, 1], 60)
    groups = np.arange(120) // 20  # 3 groups of each class

    cut = grouped_rows(y, groups, "g")

    # A twelfth is one group of one class; a third is one of each.
    assert len(cut.rows) == 40
    assert classes_of(y, cut.rows) == ([0, 1], [0, 1])


def test_fewer_groups_than_a_twelfth_needs_are_enough():
    y = np.arange(40) % 2
    cut = grouped_rows(y, np.arange(40) // 8, "g")
    assert len(cut.rows) == 8  # one of five groups


def test_a_class_of_one_group_stays_in_the_training_data():
    y = np.array([0, 1] * 20 + [2] * 10)
    groups = np.arange(50) // 10
    assert classes_of(y, grouped_rows(y, groups, "g").rows) == (
        [0, 1],
        [0, 1, 2],
    )


@pytest.mark.parametrize(
    ("y", "groups", "message"),
    [
        (np.arange(20) % 2, np.zeros(20), r"at least two groups.*\[0.0\]"),
        (np.arange(20) % 2, np.arange(20) % 2, "leave every class in `train`"),
        (np.zeros(9, int), np.arange(9), "at least 12 examples"),
        (np.arange(12), np.arange(12) % 3, "12 classes of one"),
    ],
)
def test_groups_that_cannot_be_parted_are_refused(y, groups, message):
    with pytest.raises(ValueError, match=message):
        grouped_rows(y, groups, "g")
