"""The data sets of the comparison: split, sizes, nothing in two splits."""

import numpy as np
import pytest
from comparison.data import (
    WATCH_TEST,
    WATCH_VALIDATION,
    load,
    windows_of,
)

SPLITS = ("train", "validation", "test")


def rows_of(examples):
    return {row.tobytes() for row in examples.x}


def check(data, classes):
    """Checks what holds for every data set."""
    assert data.classes == classes
    for name in SPLITS:
        part = getattr(data, name)
        assert f"{len(part):,} {name}" in data.note
        assert len(part.x) == len(part.y) == len(part)
        assert part.x.dtype in (np.uint8, np.float32)
        assert part.y.dtype == np.int64
        assert np.array_equal(np.unique(part.y), np.arange(classes))


def check_apart(data):
    """Checks that no input stands in two splits."""
    train, validation, test = (rows_of(getattr(data, n)) for n in SPLITS)
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_digits_keep_the_tests_of_the_package():
    from keras_kddp.data.datasets import load_digits

    data = load("digits")

    check(data, 10)
    check_apart(data)
    assert data.train.x.shape == (1_047, 64)
    assert len(data.validation) == 300
    assert np.array_equal(data.test.x, load_digits().test.x)
    assert data.train.x.min() == 0
    assert data.train.x.max() == 1


def test_a_data_set_is_read_once():
    assert load("digits") is load("digits")


def test_a_name_without_data_is_refused_with_those_that_have_some():
    with pytest.raises(ValueError, match="digits, fashion, .* 'digit'"):
        load("digit")


def test_windows_begin_every_50_steps_and_leave_out_what_is_left_over():
    recording = np.arange(2 * 230).reshape(230, 2)

    windows = windows_of(recording)

    assert windows.shape == (3, 100, 2)  # from 0, 50 and 100; 150 lacks 20
    assert np.array_equal(windows[2], recording[100:200])


@pytest.mark.slow
def test_fashion_is_what_the_files_hold():
    from keras_kddp.data.datasets import load_dataset

    data = load("fashion")
    read = load_dataset("idx:/usr/share/datasets/fashion-mnist")

    check(data, 10)
    assert data.train.x.shape == (55_000, 28, 28, 1)
    assert len(data.validation) == 5_000
    assert data.test.x.dtype == np.uint8
    assert np.array_equal(data.test.x / np.float32(255), read.test.x)


@pytest.mark.slow
def test_no_subject_of_the_watch_is_in_two_splits():
    from seglearn.datasets import load_watch

    data = load("watch")
    read = load_watch()
    windows = {
        name: sum(
            len(windows_of(recording))
            for recording, subject in zip(
                read["X"], read["subject"], strict=True
            )
            if subject in people
        )
        for name, people in (
            ("test", WATCH_TEST),
            ("validation", WATCH_VALIDATION),
        )
    }

    check(data, 7)
    check_apart(data)
    assert len(data.test) == windows["test"]
    assert len(data.validation) == windows["validation"]
    assert len(data.train) == 4_677 - sum(windows.values())
    assert not set(WATCH_TEST) & set(WATCH_VALIDATION)
    assert data.train.x.mean((0, 1)) == pytest.approx(np.zeros(6), abs=1e-5)
    assert data.train.x.std((0, 1)) == pytest.approx(np.ones(6), abs=1e-5)


@pytest.mark.slow
def test_no_diamond_is_in_two_splits_and_prices_are_an_input():
    data = load("diamonds")

    check(data, 5)
    check_apart(data)
    assert data.train.x.shape[1] == 7 + 7 + 8  # measures, colours, clarities
    assert len(data.train) + len(data.validation) + len(data.test) > 50_000
    assert np.abs(data.train.x.mean(0)).max() < 1e-4
    shares = [
        np.bincount(getattr(data, n).y) / len(getattr(data, n).y)
        for n in SPLITS
    ]
    assert np.ptp(shares, axis=0).max() < 1e-3
