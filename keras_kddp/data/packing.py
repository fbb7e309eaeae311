"""Teacher outputs that travel beside the inputs they belong to."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# No `keras.Input` has such a name, so a student of dict inputs is told apart.
_PREFIX = "keras_kddp."
_INPUTS = f"{_PREFIX}inputs"
_LOGITS = f"{_PREFIX}teacher_logits."
_PROBABILITIES = f"{_PREFIX}teacher_probabilities."
_LOGARITHMS = f"{_PREFIX}teacher_log_probabilities."


class TeacherOutput(NamedTuple):
    """One output of a teacher.

    Attributes:
        values: (batch, ..., classes).
        are_probabilities: The teacher ends in softmax.
        are_logarithms: The values are logarithms of those probabilities.
    """

    values: Any
    are_probabilities: bool
    are_logarithms: bool = False


def packed(inputs: Any, outputs: Sequence[TeacherOutput]) -> dict[str, Any]:
    """Returns inputs and teacher outputs as one structure that `fit` takes.

    Args:
        inputs: What the student takes: an array, or a dict or list of them.
        outputs: The teacher's flat outputs for them, row by row.
    """
    entries = {
        f"{_prefix(output)}{index}": output.values
        for index, output in enumerate(outputs)
    }
    return {_INPUTS: inputs, **entries}


def unpacked(x: Any) -> tuple[Any, list[TeacherOutput]]:
    """Returns the inputs in what `fit` was given, and the teacher's outputs.

    Args:
        x: From `packed`, or plain inputs, which come with no outputs.
    """
    if not isinstance(x, Mapping) or _INPUTS not in x:
        return x, []
    outputs = {
        int(key.rpartition(".")[2]): TeacherOutput(
            values,
            key.startswith((_PROBABILITIES, _LOGARITHMS)),
            key.startswith(_LOGARITHMS),
        )
        for key, values in x.items()
        if key != _INPUTS
    }
    return x[_INPUTS], [outputs[index] for index in sorted(outputs)]


def plain_inputs(data: Any) -> Any:
    """Returns the student's inputs in arrays that may be packed.

    Args:
        data: From `packed`, alone or as `(x, y)` or `(x, y, w)`; anything else
            is returned as it is.
    """
    x = data[0] if isinstance(data, tuple) and data else data
    is_packed = isinstance(x, Mapping) and _INPUTS in x
    return x[_INPUTS] if is_packed else data


def _prefix(output: TeacherOutput) -> str:
    if output.are_logarithms:
        return _LOGARITHMS
    return _PROBABILITIES if output.are_probabilities else _LOGITS
