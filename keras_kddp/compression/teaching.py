"""What the teacher knows, asked once, for all students of a comparison."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from keras_kddp.compression.answers import Answers, mark_answers
from keras_kddp.compression.near_chance import teacher_doubt
from keras_kddp.data.input_range import input_range
from keras_kddp.data.packing import TeacherOutput, packed, unpacked
from keras_kddp.data.splits import Split
from keras_kddp.distillation.checkpoints.files import (
    Stored,
    newest_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from keras_kddp.distillation.teacher.cache import TeacherCache
from keras_kddp.model_io import Array, all_outputs_and_masks


def with_teacher(
    teacher: keras.Model | None, split: Split, folder: Path | None = None
) -> Split:
    """Returns a split whose inputs are packed with the teacher's outputs.

    Args:
        teacher: Its outputs are computed once, and kept in memory. None: the
            split is returned as it is.
        split: Plain inputs with labels.
        folder: Where the outputs are kept as well, to the bit, or were kept
            by a former start; of this teacher and this split. None: nowhere.
    """
    if teacher is None:
        return split
    kept = None if folder is None else _kept_outputs(folder)
    if kept is not None:
        return replace(split, x=packed(split.x, kept))
    cache = TeacherCache(teacher, split.x)
    taught = replace(split, x=cache.pack(split.x))
    if folder is not None:
        _keep_outputs(folder, unpacked(taught.x)[1])
    return taught


def _kept_outputs(folder: Path) -> list[TeacherOutput] | None:
    """Returns the outputs in a folder; None where none are, or torn ones."""
    try:
        stored = newest_checkpoint(folder)
    except ValueError:
        remove_checkpoints(folder)
        return None
    if stored is None:
        return None
    flags = stored.meta["flags"]
    return [
        TeacherOutput(values, *each)
        for values, each in zip(stored.arrays, flags, strict=True)
    ]


def _keep_outputs(folder: Path, outputs: Sequence[TeacherOutput]) -> None:
    values = [np.asarray(output.values) for output in outputs]
    flags = [list(output[1:]) for output in outputs]
    write_checkpoint(folder, 1, Stored({"flags": flags}, values))


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
    train: Split,
    validation: Split,
    student: keras.Model,
    *,
    is_student: bool = False,
) -> None:
    """Warns of a teacher that is hardly right more often than chance.

    Args:
        train: From `with_teacher`.
        validation: From `with_teacher`; it is judged on these.
        student: As `taught_answers` takes it.
        is_student: It is the student itself, trained on the labels.
    """
    inputs, _ = unpacked(train.x)
    found = taught_answers(validation, student)
    doubt = teacher_doubt(found, input_range(inputs), is_student=is_student)
    if doubt:
        warnings.warn(doubt, stacklevel=5)
