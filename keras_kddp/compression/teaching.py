"""What the teacher knows, asked once, for all students of a comparison."""

import warnings
from dataclasses import replace

import keras
import numpy as np

from keras_kddp.compression.answers import Answers, mark_answers
from keras_kddp.compression.verdicts import teacher_doubt
from keras_kddp.data.input_range import input_range
from keras_kddp.data.packing import unpacked
from keras_kddp.data.splits import Split
from keras_kddp.distillation.teacher.cache import TeacherCache
from keras_kddp.model_io import Array, all_outputs_and_masks


def with_teacher(teacher: keras.Model, split: Split) -> Split:
    """Returns a split whose inputs are packed with the teacher's outputs.

    Args:
        teacher: Its outputs are computed once, and kept in memory.
        split: Plain inputs with labels.
    """
    cache = TeacherCache(teacher, split.x)
    return replace(split, x=cache.pack(split.x))


def taught_answers(taught: Split, student: keras.Model) -> Answers:
    """Returns which answers of the teacher are right, without asking it again.

    Args:
        taught: From `with_teacher`.
        student: Its masks say which steps are padding, of labels that have
            steps: packed outputs carry none.
    """
    inputs, outputs = unpacked(taught.x)
    labels = keras.tree.flatten(taught.y)
    masks: list[Array | None] = [None] * len(labels)
    if any(np.ndim(label) > 1 for label in labels):
        _, masks = all_outputs_and_masks(student, inputs)
    return mark_answers([output.values for output in outputs], masks, labels)


def warn_of_poor_teacher(
    train: Split, validation: Split, student: keras.Model
) -> None:
    """Warns of a teacher that is hardly right more often than chance.

    Args:
        train: From `with_teacher`.
        validation: From `with_teacher`; it is judged on these.
        student: As `taught_answers` takes it.
    """
    inputs, _ = unpacked(train.x)
    found = taught_answers(validation, student)
    if doubt := teacher_doubt(found, input_range(inputs)):
        warnings.warn(doubt, stacklevel=5)
