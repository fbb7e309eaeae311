"""How often a teacher is right on validation data."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_kddp.data.batches import Batches, are_arrays, finite_batches
from keras_kddp.data.packing import unpacked
from keras_kddp.distillation.distiller import Distiller
from keras_kddp.model_io import Arrays, count_hits, outputs_and_masks


def teacher_accuracy(distiller: Distiller) -> float:
    """Returns the share of right answers of the teacher on validation data.

    Steps that Keras masks in the student's outputs count nothing: they are
    left out of the student's accuracy, and packed outputs carry no masks.

    Args:
        distiller: Inside its `fit`.

    Raises:
        ValueError: If the models have several outputs, or there is no teacher
            and the data are not packed.
    """
    right = count = 0
    for x, labels in _labelled(distiller.fit_validation):
        inputs, outputs = unpacked(x)
        teacher = distiller.teacher
        if not outputs and teacher is None:
            raise ValueError(
                "`reference='teacher'` needs the teacher. Received: "
                "teacher=None and validation data without its outputs. Pack "
                "them with keras_kddp.TeacherCache."
            )
        all_found: list[Any] = [output.values for output in outputs]
        if teacher is not None and not all_found:
            all_found, _ = outputs_and_masks(teacher, inputs)
        if len(all_found) > 1:
            raise ValueError(
                "`reference='teacher'` needs models of one output. Received: "
                f"{len(all_found)} outputs. Give an accuracy."
            )
        found = keras.ops.convert_to_numpy(all_found[0])
        hits = found.argmax(axis=-1) == _classes(labels, found)
        _, masks = outputs_and_masks(distiller.student, inputs)
        part = count_hits(hits, masks[0])
        right, count = right + part[0], count + part[1]
    return right / max(count, 1)


def _classes(labels: Arrays, outputs: np.ndarray) -> np.ndarray:
    """Returns class numbers: as given, or of one-hot labels."""
    array = keras.ops.convert_to_numpy(labels)
    if array.shape == outputs.shape:
        return array.argmax(axis=-1)
    return array.reshape(outputs.shape[:-1])


def _labelled(validation: Batches) -> Iterable[Any]:
    """Yields inputs and class numbers, batch by batch."""
    if isinstance(validation, (tuple, list)) and are_arrays(validation[0]):
        x, y = (*validation, None)[:2]
        if y is None:
            raise ValueError(
                "`reference='teacher'` needs labels beside the validation "
                "inputs. Received none. Pass validation_data=(x_val, y_val)."
            )
        for start in range(0, len(y), 256):
            rows = slice(start, start + 256)
            part = keras.tree.map_structure(lambda a, r=rows: a[r], x)
            yield part, y[rows]
        return
    for batch in finite_batches("validation_data", validation):
        yield batch[0], batch[1]
