"""Inputs that were scaled in another way are warned about."""

import warnings

import numpy as np
import pytest

from keras_kddp.data.input_range import input_range, warn_of_other_range


def test_the_range_runs_over_all_inputs():
    x = {"a": np.array([1, 5]), "b": [np.array([-2.5]), np.array([3])]}
    assert input_range(x) == (-2.5, 5.0)


@pytest.mark.parametrize(
    ("seen", "given"),
    [((0, 1), [0, 255]), ((0, 255), [0, 1]), ((-1, 1), [-20])],
)
def test_another_range_warns(seen, given):
    with pytest.warns(
        UserWarning, match="`x` must be scaled like the training"
    ):
        warn_of_other_range(seen, np.array(given), "x")


@pytest.mark.parametrize(
    ("seen", "given"),
    [((0, 1), [0, 1]), ((-2.1, 2.6), [-3, 1.0]), ((0, 255), [40, 200])],
)
def test_samples_of_the_same_range_do_not_warn(seen, given):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_other_range(seen, np.array(given), "x")
