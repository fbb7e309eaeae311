"""Examples of one purpose, checked against the model that takes them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_kddp.data.batches import Batches, finite_batches
from keras_kddp.model_io import Arrays, output_structure


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one purpose.

    Attributes:
        x: Inputs, (examples, ...); for several inputs a dict or list of them.
        y: Class numbers, (examples, ...) integers; for several outputs a dict
            or list of them.
        sample_weight: Factor on each example's losses, (examples,), or None.
    """

    x: Arrays
    y: Arrays
    sample_weight: Arrays | None = None

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(keras.tree.flatten(self.y)[0])

    def as_tuple(self) -> tuple[Arrays, ...]:
        """Returns what Keras takes as `validation_data`."""
        if self.sample_weight is None:
            return self.x, self.y
        return self.x, self.y, self.sample_weight


def as_split(name: str, data: Batches | Split) -> Split:
    """Returns data as arrays.

    Args:
        name: What errors call the data.
        data: A `Split`, a tuple `(x, y)` or `(x, y, sample_weight)` of arrays,
            or a finite iterable of such batches, which is read once, as a
            whole, into memory.

    Raises:
        ValueError: If it is neither, or empty.
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, tuple) and len(data) in (2, 3):
        parts = data
    elif isinstance(data, Iterable) and not isinstance(data, (Mapping, tuple)):
        parts = _read_whole(name, data)
    else:
        raise ValueError(
            f"`{name}` must be (x, y), (x, y, sample_weight) or an iterable of "
            f"such batches. Received: {type(data).__name__}."
        )
    return Split(*map(_as_arrays, parts))


def _read_whole(name: str, data: Iterable[Any]) -> tuple[Arrays, ...]:
    """Returns the batches of an iterable joined: (x, y) and any weights."""
    batches = [
        keras.tree.map_structure(keras.ops.convert_to_numpy, batch)
        for batch in finite_batches(name, data)
    ]
    if not all(isinstance(b, tuple) and len(b) in (2, 3) for b in batches):
        raise ValueError(
            f"`{name}` must give batches (x, y) or (x, y, sample_weight). "
            f"Received: {type(batches[0]).__name__}."
        )
    if not batches:
        raise ValueError(
            f"`{name}` must hold examples. Received an empty "
            f"{type(data).__name__}."
        )
    joined: tuple[Arrays, ...] = keras.tree.map_structure(
        lambda *leaves: np.concatenate(leaves), *batches
    )
    return joined


def _as_arrays(part: Arrays) -> Arrays:
    """Returns a part of the data as arrays; None stays."""
    if isinstance(part, list) and len(part) == 1 and np.ndim(part[0]):
        part = part[0]  # one input or output in a list
    is_numbers = isinstance(part, (list, tuple)) and not any(
        np.ndim(leaf) for leaf in keras.tree.flatten(part)
    )
    if part is None or is_numbers:
        return part if part is None else np.asarray(part)
    return keras.tree.map_structure(np.asarray, part)


def check_split(
    name: str, split: Split, model: keras.Model, *, every_class: bool = False
) -> None:
    """Checks that a model can learn from examples, or be judged by them.

    Args:
        name: What errors call the split.
        split: Inputs and class numbers.
        model: A built Sequential or Functional classifier.
        every_class: Each class needs an example.

    Raises:
        ValueError: If not.
    """
    _check_inputs(name, split, model)
    _check_weights(name, split)
    _check_label_structure(name, split, model)
    for numbers, output in zip(
        keras.tree.flatten(split.y), model.outputs, strict=True
    ):
        shape = tuple(output.shape)
        _check_labels(name, numbers, len(split), shape)
        missing = np.setdiff1d(np.arange(shape[-1]), numbers)
        if every_class and len(missing):
            is_from_1 = missing.tolist() == [0]
            start = " They start at 1: subtract 1." if is_from_1 else ""
            raise ValueError(
                f"`{name}` must have an example of each of the {shape[-1]} "
                f"classes. Received none of {missing.tolist()}.{start} Leave "
                "these classes out of the models, or shuffle the data before "
                "it is split."
            )


def _check_label_structure(name: str, split: Split, model: keras.Model) -> None:
    """Checks that the labels come as the outputs do: alone, list or dict."""
    count = len(model.outputs)
    labels = keras.tree.flatten(split.y)
    if len(labels) != count:
        raise ValueError(
            f"The labels of `{name}` must be one array per output "
            f"({count}). Received: {len(labels)}."
        )
    structures = [
        keras.tree.map_structure(lambda _: "array", part)
        for part in (split.y, output_structure(model))
    ]
    if len(labels) > 1 and structures[0] != structures[1]:
        raise ValueError(
            f"The labels of `{name}` must have the structure of the outputs, "
            f"{structures[1]}. Received: {structures[0]}."
        )


def _check_inputs(name: str, split: Split, model: keras.Model) -> None:
    """Checks the shapes, lengths and numbers of the inputs."""
    inputs = keras.tree.flatten(split.x)
    expected = [tuple(tensor.shape) for tensor in model.inputs]
    received = [tuple(array.shape) for array in inputs]
    if not len(split):
        raise ValueError(f"`{name}` must hold examples. Received none.")
    fits = len(inputs) == len(expected) and all(
        len(shape) == len(wanted)
        and all(b in (None, a) for a, b in zip(shape, wanted, strict=True))
        for shape, wanted in zip(received, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            f"The inputs of `{name}` must have the shapes that the student "
            f"takes, {expected}. Received: {received}. "
            f"{_mending_of(received, expected)}"
        )
    counts = {shape[0] for shape in received} | {len(split)}
    if len(counts) > 1:
        raise ValueError(
            f"`{name}` must have a label for each input. Received lengths: "
            f"{sorted(counts)}."
        )
    _check_numbers(name, inputs)


def _mending_of(
    received: list[tuple[int, ...]], expected: list[tuple[int | None, ...]]
) -> str:
    """Returns how inputs of a wrong shape are brought into the right one."""
    if len(received) == len(expected) == 1 and None not in expected[0][1:]:
        given, wanted = received[0][1:], expected[0][1:]
        if (*given, 1) == wanted:
            return "Add the channel axis: x[..., np.newaxis]."
        if given == (*wanted, 1):
            return "Take the channel axis away: x[..., 0]."
        sizes = [math.prod(n or 0 for n in shape) for shape in (given, wanted)]
        if sizes[0] == sizes[1]:
            return f"Reshape the data: x.reshape({(-1, *wanted)})."
    return "Change the student's Input, or the data."


def _check_numbers(name: str, inputs: list[np.ndarray]) -> None:
    """Checks that arrays hold finite numbers."""
    for array in inputs:
        is_number = np.issubdtype(array.dtype, np.number)
        if not is_number or not np.isfinite(array).all():
            raise ValueError(
                f"The inputs of `{name}` must be finite numbers. Received: "
                f"{array.dtype}{' with NaN or infinity' if is_number else ''}. "
                "Leave such examples out, or cast what is no number: "
                "x.astype('float32')."
            )


def _check_weights(name: str, split: Split) -> None:
    if split.sample_weight is None:
        return
    for weights in keras.tree.flatten(split.sample_weight):
        is_number = weights.dtype.kind in "iufb"
        if (
            weights.shape[:1] != (len(split),)
            or not is_number
            or not (np.isfinite(weights) & (weights >= 0)).all()
        ):
            raise ValueError(
                f"The sample weights of `{name}` must be finite numbers >= 0, "
                f"one for each of {len(split)} examples. Received an array of "
                f"{weights.dtype} of shape {weights.shape}, with negative "
                "numbers, or NaN. Leave such examples out, or give them 0."
            )
        if not weights.any():
            raise ValueError(
                f"The sample weights of `{name}` must not all be 0: nothing "
                f"would count. Received {len(split)} zeros. Leave the weights "
                "out."
            )


def _check_labels(
    name: str, labels: np.ndarray, count: int, shape: tuple[Any, ...]
) -> None:
    classes = shape[-1]
    if labels.ndim != len(shape) - 1 or len(labels) != count:
        raise ValueError(
            f"The labels of `{name}` must be class numbers, one for each "
            f"example ({count}). Received an array of shape {labels.shape}. "
            "Take the argmax of one-hot labels, y[:, 0] of a column."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"The labels of `{name}` must be integers. Received: "
            f"{labels.dtype}."
        )
    if labels.min() < 0 or labels.max() >= classes:
        mending = (
            "Give the models an output for each class, or mend the labels."
        )
        if (labels.min(), labels.max()) == (1, classes):
            mending = "They start at 1: subtract 1."
        raise ValueError(
            f"The labels of `{name}` must lie in 0 to {classes - 1}, since "
            f"the student has {classes} classes. Received: "
            f"{labels.min()} to {labels.max()}. {mending}"
        )
