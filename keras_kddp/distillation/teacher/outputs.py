"""What one teacher, or several together, say about batches of inputs."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.data.packing import TeacherOutput
from keras_kddp.distillation.checks import check_built
from keras_kddp.distillation.fit_checks import check_models_finite
from keras_kddp.model_io import (
    Arrays,
    Tensor,
    at_least_float32,
    log_probabilities,
    output_activations,
    output_structure,
    to_numpy,
)


def checked_teachers(teacher: Any) -> list[keras.Model]:
    """Returns the members of an ensemble; one teacher is one member.

    Raises:
        ValueError: If one is no model, was never built or has weights that are
            NaN, or their outputs differ in shape.
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
        check_built(member)
        check_models_finite(teacher=member)
    if not teachers:
        raise ValueError(
            "`teacher` must be a keras.Model, or a list of them. Received: [], "
            "an empty list."
        )
    if len(teachers) > 1:
        _check_ensemble(teachers)
    return teachers


def _check_ensemble(teachers: Sequence[keras.Model]) -> None:
    shapes = [
        [tuple(output.shape) for output in teacher.outputs]
        for teacher in teachers
        if output_activations(teacher)
    ]
    if any(other != shapes[0] for other in shapes):
        raise ValueError(
            "The teachers of an ensemble must have outputs of the same shapes. "
            f"Received: {shapes}. Leave the others out."
        )
    is_classifier = all(shape[-1] != 1 for each in shapes for shape in each)
    if not is_classifier or any(
        "sigmoid" in output_activations(teacher) for teacher in teachers
    ):
        raise ValueError(
            "The teachers of an ensemble must end in logits or softmax of "
            f"several classes. Received outputs of shape {shapes}, or a "
            "sigmoid. Cache each teacher alone."
        )


def teacher_outputs(
    teachers: Sequence[keras.Model],
    batches: Iterable[Arrays],
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
        as_logits: Give logarithms of probabilities, marked as such.
        progress: Called with the number of rows after each batch.

    Returns:
        One per flat output, (rows, ...); float32 or wider.

    Raises:
        ValueError: If there are no rows, NaN, or outputs that differ in shape.
    """
    parts: list[list[np.ndarray]] = []
    flags = _softmax_flags(teachers[0])
    for batch in batches:
        voices = [_outputs(teacher, batch) for teacher in teachers]
        if len(teachers) > 1:
            outputs = _together(teachers, voices)
        else:
            outputs = _aligned(voices[0], flags, as_logits=as_logits)
        parts.append([*map(keras.ops.convert_to_numpy, outputs)])
        if progress is not None:
            progress(len(parts[-1][0]))
    _check_outputs(parts)
    are_logits = as_logits or len(teachers) > 1
    columns = list(zip(*parts, strict=True))
    every = [_softmax_flags(t) or [False] * len(columns) for t in teachers]
    return [
        TeacherOutput(
            np.concatenate(values),
            are_probabilities=all(ends),
            are_logarithms=all(ends) and are_logits,
        )
        for values, ends in zip(columns, zip(*every, strict=True), strict=True)
    ]


def _check_outputs(parts: list[list[np.ndarray]]) -> None:
    """Raises a ValueError for no batches, or numbers that teach nothing."""
    if not parts:
        raise ValueError(
            "`x` must hold at least one example. Received none. Pass "
            "arrays, or an iterable that can be run through again."
        )
    shapes = {tuple(part.shape[1:] for part in each) for each in parts}
    if len(shapes) > 1:
        raise ValueError(
            "The outputs of `teacher` must have the same shape for every row "
            f"of `x`. Received: {sorted(shapes)}. Pad all batches to one "
            "length, or give the Distiller the teacher itself."
        )
    if not all(np.isfinite(part).all() for each in parts for part in each):
        raise ValueError(
            "The outputs of `teacher` must be finite. Received NaN or "
            "infinity for some rows of `x`. Look for NaN in the data and "
            "in the teacher's weights."
        )


def fingerprint(teachers: Sequence[keras.Model]) -> str:
    """Returns a hash of the weights and layers of teachers, in their order."""
    digest = hashlib.sha256()
    for teacher in teachers:
        digest.update(_layers_of(teacher).encode())
        for weight in teacher.weights:
            value = np.ascontiguousarray(to_numpy(weight))
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def _outputs(teacher: keras.Model, batch: Arrays) -> list[Tensor]:
    outputs = keras.tree.flatten(teacher(batch, training=False))
    return [*map(at_least_float32, outputs)]


def _layers_of(teacher: keras.Model) -> str:
    """Returns what the layers of a model do, without their names."""
    if not output_activations(teacher):
        return type(teacher).__name__  # a subclassed model has no config
    return json.dumps(
        [_wiring(teacher), _nameless(teacher.get_config())],
        default=lambda value: type(value).__name__,
    )


def _wiring(model: keras.Model) -> list[Any]:
    """Returns which layer reads which tensors, all by number."""
    numbers: dict[int, int] = {}
    layers: dict[int, int] = {}
    calls: list[Any] = []
    for node in _compat.call_nodes(model):
        layer = layers.setdefault(id(node.operation), len(layers))
        nested = _compat.functional_graph(node.operation)
        calls.append(
            [
                layer,
                [numbers.get(id(tensor)) for tensor in node.inputs],
                nested and _wiring(nested),
            ]
        )
        for tensor in node.outputs:
            numbers[id(tensor)] = len(numbers)
    ends = keras.tree.flatten(output_structure(model))
    return [calls, [numbers.get(id(tensor)) for tensor in ends]]


def _nameless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _nameless(item)
            for key, item in value.items()
            if key not in _NAMES and not str(key).startswith("build_")
        }
    if isinstance(value, (list, tuple)):
        return [_nameless(item) for item in value]
    return value


_NAMES = (
    "name",
    "inbound_nodes",
    "input_layers",
    "output_layers",
    "shared_object_id",
)


def _softmax_flags(teacher: keras.Model) -> list[bool]:
    return [name == "softmax" for name in output_activations(teacher)]


def _aligned(
    outputs: list[Tensor], flags: list[bool], *, as_logits: bool
) -> list[Tensor]:
    """Returns outputs, logits in place of probabilities where asked for."""
    if not as_logits or not any(flags):
        return outputs
    return [
        log_probabilities(output) if is_softmax else output
        for output, is_softmax in zip(outputs, flags, strict=True)
    ]


def _together(
    teachers: Sequence[keras.Model], voices: list[list[Tensor]]
) -> list[Tensor]:
    """Returns the mean of the log probabilities of several teachers."""
    members = []
    for teacher, outputs in zip(teachers, voices, strict=True):
        flags = _softmax_flags(teacher) or [False] * len(outputs)
        logits = _aligned(outputs, flags, as_logits=True)
        members.append([*map(keras.ops.log_softmax, logits)])
    return [
        keras.ops.mean(keras.ops.stack(outputs), axis=0)
        for outputs in zip(*members, strict=True)
    ]
