"""What all trainings of a comparison see, and in which order."""

from dataclasses import replace

import numpy as np
import pytest
from comparison.data import Data, Examples
from comparison.students import STUDENTS
from comparison.training import Feed, Recipe, Setting
from comparison.views import (
    KINDS,
    VIEWS,
    Views,
    as_floats,
    batches_of,
    erase,
    flip,
    order,
    shift,
)

from keras_kddp.data.packing import unpacked


class Given:
    """A generator of numbers that are given, in their order.

    Args:
        values: What is drawn.
    """

    def __init__(self, *values):
        self._values = [np.asarray(value) for value in values]

    def random(self, shape):
        return self._values.pop(0)

    def integers(self, low, high, shape):
        return self._values.pop(0)


@pytest.fixture
def images():
    """Returns 12 images of 16 by 16 greys, none of them 0."""
    greys = np.random.default_rng(0).integers(1, 256, (12, 16, 16, 1))
    return greys.astype("uint8")


@pytest.fixture
def setting():
    """Returns a run of the digits' student on ten batches of noise."""
    x = np.random.default_rng(0).random((330, 64), dtype=np.float32)
    train = Examples(x, np.arange(330) % 10)
    data = Data("digits", train, train, train, classes=10, note="")
    outputs = np.random.default_rng(1).random((VIEWS, 330, 10), np.float32)
    return Setting(
        STUDENTS["digits", "mlp"],
        data,
        Views(x, "jitter"),
        outputs.astype("float16"),
        Recipe(1e-3, 0.0, "jitter"),
        epochs=2,
        seed=3,
    )


@pytest.mark.parametrize("kind", ["none", "flip_shift_erase", "jitter"])
def test_a_view_follows_from_seed_and_number_alone(images, kind):
    first, again = Views(images, kind, 5), Views(images, kind, 5)
    later = first.fresh(3)
    first.fresh(0)

    assert np.array_equal(again.fresh(3), later)  # no other was asked before
    assert np.array_equal(first.fresh(3), later)
    assert np.array_equal(first[3 % first.count], again[3 % first.count])
    is_random = kind != "none"
    assert first.count == (VIEWS if is_random else 1)
    for other in (first.fresh(4), Views(images, kind, 6).fresh(3)):
        assert (not np.array_equal(other, later)) is is_random


@pytest.mark.parametrize("kind", ["flip", "flip_shift", "flip_shift_erase"])
def test_a_view_of_a_row_does_not_follow_from_the_other_rows(images, kind):
    view = Views(images, kind).fresh(2)
    others = np.concatenate([images[:5], images[:7]])

    assert np.array_equal(Views(others, kind).fresh(2)[:5], view[:5])


@pytest.mark.parametrize("kind", KINDS)
def test_views_leave_the_examples_as_they_are(images, kind):
    is_recording = kind == "rescale_jitter"
    x = images[..., 0].astype("float32") if is_recording else images
    before = x.copy()

    Views(x, kind).fresh(0)

    assert np.array_equal(x, before)


def test_flip_mirrors_rows_left_to_right_below_a_half():
    images = np.array([[[1, 2, 3]], [[4, 5, 6]]])[..., None]

    flipped = flip(images, Given([0.4, 0.6]))

    assert flipped[..., 0].tolist() == [[[3, 2, 1]], [[4, 5, 6]]]


def test_shift_moves_by_at_most_two_pixels_and_fills_with_0():
    images = np.arange(1, 10).reshape(1, 3, 3, 1).repeat(3, axis=0)

    # 2 is the middle of the borders of two pixels: the image as it is.
    moved = shift(images, Given([[2, 2], [0, 2], [2, 3]]))

    assert moved[0, ..., 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert moved[1, ..., 0].tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 3]]
    assert moved[2, ..., 0].tolist() == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]


def test_erase_puts_one_grey_over_a_rectangle_of_every_second_row():
    images = np.zeros((2, 4, 5, 1), "uint8")
    sides = [[2, 3], [2, 3]]
    centres = [[2, 1], [2, 1]]  # from row 2 - 2 // 2 and column 1 - 3 // 2 on

    erased = erase(
        images,
        Given(sides, centres, [0.4, 0.6], np.reshape([7, 8], (2, 1, 1, 1))),
    )

    assert erased[0, ..., 0].tolist() == [
        [0, 0, 0, 0, 0],
        [7, 7, 7, 0, 0],
        [7, 7, 7, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    assert not erased[1].any()
    assert erased.dtype == np.uint8


def test_orders_differ_between_epochs_and_seeds_and_have_every_example_once():
    first = order(20, seed=1, epoch=0)

    assert sorted(first) == list(range(20))
    assert np.array_equal(order(20, seed=1, epoch=0), first)
    assert not np.array_equal(order(20, seed=1, epoch=1), first)
    assert not np.array_equal(order(20, seed=2, epoch=0), first)


def test_all_steps_are_of_one_size_and_what_is_left_over_waits():
    steps = list(batches_of(11, 4, seed=0, epoch=2))

    assert [len(step) for step in steps] == [4, 4]  # 3 of 11 are left over
    assert np.array_equal(np.concatenate(steps), order(11, 0, 2)[:8])


def test_keras_and_pytorch_see_the_same_steps_in_the_same_order(setting):
    feed = Feed(setting)

    for epoch in (0, 1):
        feed.on_epoch_begin()
        steps = list(setting.batches(epoch))
        assert len(steps) == len(feed) == 330 // 16
        for index, (x, y, logits) in enumerate(steps):
            inputs, labels = feed[index]
            seen, [taught] = unpacked(inputs)
            assert np.array_equal(seen, x)
            assert np.array_equal(labels, y)
            assert np.array_equal(taught.values, logits)


def test_labels_alone_see_what_soft_targets_are_given_for(setting):
    alone = replace(setting, outputs=None)

    for (x, y, logits), (same_x, same_y, none) in zip(
        setting.batches(1), alone.batches(1), strict=True
    ):
        assert np.array_equal(x, same_x)
        assert np.array_equal(y, same_y)
        assert none is None and logits.dtype == np.float32


def test_greys_are_scaled_and_other_numbers_are_not():
    greys = as_floats(np.array([0, 51, 255], "uint8"))
    values = as_floats(np.array([-2.0, 300.0]))

    assert greys.tolist() == pytest.approx([0, 51 / 255, 1])
    assert values.tolist() == [-2.0, 300.0]
    assert greys.dtype == values.dtype == np.float32
