"""What the teacher's cached outputs say of it before a student trains."""

import keras
import numpy as np
import pytest

from keras_kddp.compression.answers import Answers
from keras_kddp.compression.teaching import (
    taught_answers,
    warn_of_poor_teacher,
    with_teacher,
)
from keras_kddp.compression.training import answers_of
from keras_kddp.data.splits import Split

ONE_HOT = np.eye(4, dtype="float32")[np.arange(40) % 4]
LABELS = np.arange(40) % 4


def identity(activation="linear", shift=0):
    """Returns a teacher that names the class of a one-hot input, or another."""
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, activation, use_bias=False)]
    )
    model.set_weights([np.roll(np.eye(4), shift, axis=1)])
    return model


@pytest.mark.parametrize("activation", ["linear", "softmax"])
def test_cached_outputs_tell_what_the_teacher_gets_right(activation):
    teacher = identity(activation)
    split = Split(ONE_HOT, np.where(np.arange(40) < 10, 0, LABELS))
    taught = with_teacher(teacher, split)

    found = taught_answers(taught, identity())

    expected = answers_of(teacher, split)
    np.testing.assert_array_equal(found.right, expected.right)
    assert found.accuracy == expected.accuracy == (40 - 7) / 40
    assert found.chances == ((10 + 7) / 40,)


@pytest.mark.parametrize("shift", [0, 1])
def test_a_teacher_whose_classes_are_numbered_otherwise_is_told(shift):
    split = Split(ONE_HOT, LABELS)
    taught = with_teacher(identity(shift=shift), split)
    if not shift:
        warn_of_poor_teacher(taught, taught, identity())  # says nothing
        return
    with pytest.warns(UserWarning, match="near chance: 0.00 % of its answers"):
        warn_of_poor_teacher(taught, taught, identity())


def test_padding_is_left_out_as_the_student_masks_it():
    def tagger(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((3,), dtype="int32")
        words = keras.layers.Embedding(4, 5, mask_zero=True)(inputs)
        return keras.Model(inputs, keras.layers.Dense(3)(words))

    teacher, student = tagger(0), tagger(1)
    words = np.array([[3, 1, 0], [2, 0, 0]] * 20)
    split = Split(words, np.where(words > 0, words - 1, 0))

    found = taught_answers(with_teacher(teacher, split), student)

    assert isinstance(found, Answers)
    np.testing.assert_array_equal(found.counts, [[2, 1] * 20])
    expected = answers_of(teacher, split)
    np.testing.assert_array_equal(found.right, expected.right)
    assert found.chances == (1 / 3,)  # 20 each of three classes
