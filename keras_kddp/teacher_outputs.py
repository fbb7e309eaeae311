"""What one teacher, or several together, say about batches of inputs."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_kddp.losses import log_probabilities, output_activations
from keras_kddp.packing import TeacherOutput
from keras_kddp.surgery.rebuild import to_numpy


def checked_teachers(teacher: Any) -> list[keras.Model]:
    """Returns the members of an ensemble; one teacher is one member.

    Raises:
        ValueError: If one is no model, or their outputs differ in shape.
    """
    teachers = (
        list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
    )
    for member in teachers:
        if not isinstance(member, keras.Model):
            raise ValueError(
                "`teacher` must be a keras.Model, or a list of them. Received: "
                f"{type(member).__name__}."
            )
    if not teachers:
        raise ValueError(
            "`teacher` must be a keras.Model, or a list of them. Received: []."
        )
    return teachers


def teacher_outputs(
    teachers: Sequence[keras.Model],
    batches: Iterable[Any],
    *,
    as_logits: bool,
    progress: Any = None,
) -> list[TeacherOutput]:
    """Returns the outputs of the teachers for all rows of some batches.

    Several teachers speak with one voice: the mean of their log probabilities,
    which is the geometric mean of their distributions (Hinton, Vinyals & Dean
    2015, section 1, average an ensemble's predictions so or arithmetically).

    Args:
        teachers: One or more; they run in inference mode.
        batches: Inputs.
        as_logits: Give log probabilities where one ends in softmax.
        progress: Called with the number of rows after each batch.

    Returns:
        One a flat output; float32 or wider.

    Raises:
        ValueError: If there are no rows, NaN, or outputs that differ.
    """
    parts: list[list[np.ndarray]] = []
    flags = _softmax_flags(teachers[0])
    for batch in batches:
        voices = [
            keras.tree.flatten(t(batch, training=False)) for t in teachers
        ]
        if len(teachers) > 1:
            outputs = _together(teachers, voices)
        else:
            outputs = _aligned(voices[0], flags, as_logits=as_logits)
        parts.append([*map(keras.ops.convert_to_numpy, outputs)])
        if progress is not None:
            progress(len(parts[-1][0]))
    if not parts:
        raise ValueError(
            "`x` must hold at least one example. Received none. Pass "
            "arrays, or an iterable that can be run through again."
        )
    if not all(np.isfinite(part).all() for each in parts for part in each):
        raise ValueError(
            "The outputs of `teacher` must be finite. Received NaN or "
            "infinity for some rows of `x`. Look for NaN in the data and "
            "in the teacher's weights."
        )
    are_logits = as_logits or len(teachers) > 1
    columns = list(zip(*parts, strict=True))
    flags = flags or [False] * len(columns)
    return [
        TeacherOutput(np.concatenate(values), is_softmax and not are_logits)
        for values, is_softmax in zip(columns, flags, strict=True)
    ]


def fingerprint(teachers: Sequence[keras.Model]) -> str:
    """Returns a hash of the weights of the teachers, in their order."""
    digest = hashlib.sha256()
    for teacher in teachers:
        digest.update(type(teacher).__name__.encode())
        for weight in teacher.weights:
            value = np.ascontiguousarray(to_numpy(weight))
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def _softmax_flags(teacher: keras.Model) -> list[bool]:
    return [name == "softmax" for name in output_activations(teacher)]


def _aligned(
    outputs: list[Any], flags: list[bool], *, as_logits: bool
) -> list[Any]:
    if not as_logits or not any(flags):
        return outputs
    return [
        log_probabilities(output) if is_softmax else output
        for output, is_softmax in zip(outputs, flags, strict=True)
    ]


def _together(
    teachers: Sequence[keras.Model], voices: list[list[Any]]
) -> list[Any]:
    """Returns the mean of the log probabilities of several teachers."""
    members = []
    for teacher, outputs in zip(teachers, voices, strict=True):
        flags = _softmax_flags(teacher) or [False] * len(outputs)
        logits = _aligned(outputs, flags, as_logits=True)
        members.append([*map(keras.ops.log_softmax, logits)])
    shapes = {tuple(tuple(x.shape) for x in member) for member in members}
    if len(shapes) > 1:
        raise ValueError(
            "The teachers of an ensemble must have outputs of the same shapes. "
            f"Received: {sorted(shapes)}."
        )
    return [
        keras.ops.mean(keras.ops.stack(outputs), axis=0)
        for outputs in zip(*members, strict=True)
    ]
