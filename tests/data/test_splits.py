"""What is said of examples that do not fit a model, or lack a class."""

import warnings

import keras
import numpy as np
import pytest

from keras_kddp.data.class_coverage import naming, warn_of_missing_classes
from keras_kddp.data.splits import Split, check_split


def classifier(shape, classes=3):
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(classes),
        ]
    )


@pytest.mark.parametrize(
    ("given", "taken", "mending"),
    [
        ((4, 3), (4, 3, 1), r"Add the channel axis: x\[\.\.\., np.newaxis\]"),
        ((4, 3, 1), (4, 3), r"Take the channel axis away: x\[\.\.\., 0\]"),
        ((4, 3), (12,), r"Reshape the data: x.reshape\(\(-1, 12\)\)"),
        ((12,), (4, 3, 1), r"Reshape the data: x.reshape\(\(-1, 4, 3, 1\)\)"),
        ((4, 3), (5, 3), "Change the student's Input, or the data"),
        ((4, 3, 3), (4, 3, 1), "Change the student's Input, or the data"),
    ],
)
def test_inputs_of_another_shape_are_told_how_to_fit(given, taken, mending):
    split = Split(np.zeros((6, *given), "float32"), np.arange(6) % 3)
    with pytest.raises(ValueError, match=f"must have the shapes.*{mending}"):
        check_split("train", split, classifier(taken))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[1.0], [np.nan], [2]]), "float64 with NaN or infinity"),
        (
            np.array([[True], [False], [True]]),
            "Received: bool.*cast what is no",
        ),
    ],
)
def test_inputs_that_are_no_finite_numbers_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        check_split("train", Split(x, np.arange(3)), classifier((1,)))


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([1, 2, 3], 3, "1 to 3. They start at 1: subtract 1"),
        ([1, 2, 3], 4, r"none of \[0\]. They start at 1: subtract 1"),
        ([0, 1, 5], 3, "0 to 5. Give the models an output for each class"),
        ([-1, 0, 1], 2, "-1 to 1. Give the models an output for each class"),
        ([0, 1, 3], 4, r"none of \[2\]. Leave these"),
        ([1, 2, 2], 4, r"none of \[0, 3\]. Leave these"),
    ],
)
def test_labels_that_do_not_fit_are_told_how_to(labels, classes, message):
    split = Split(np.zeros((3, 2)), np.array(labels))
    with pytest.raises(ValueError, match=message):
        check_split("train", split, classifier((2,), classes), every_class=True)


def test_a_split_without_some_classes_is_warned_about():
    split = Split(np.zeros((4, 2)), np.array([0, 0, 2, 2]))
    with pytest.warns(
        UserWarning, match="`test` has no example of classes 1 and 3, of 4"
    ):
        warn_of_missing_classes("test", split, classifier((2,), 4))


def test_a_split_of_all_classes_is_not_warned_about():
    split = Split(np.zeros((4, 2)), np.array([0, 1, 2, 2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_missing_classes("test", split, classifier((2,), 3))


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ([3], "class 3"),
        ([3, 7], "classes 3 and 7"),
        ([1, 3, 7], "classes 1, 3 and 7"),
        (range(10), "classes 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"),
    ],
)
def test_classes_are_named(classes, text):
    assert naming(np.array(classes)) == text
