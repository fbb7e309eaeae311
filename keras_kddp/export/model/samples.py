"""Data as users hold it, checked and laid out as the runtimes take it."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_kddp.data.packing import plain_inputs
from keras_kddp.export.model.signature import InputSignature
from keras_kddp.model_io import Array, Arrays


def arrange_inputs(
    x: Arrays, inputs: Sequence[InputSignature], *, name: str = "x"
) -> list[Array]:
    """Returns one array per input, in the order and dtype of the inputs.

    Args:
        x: An array for a single input; for several a sequence in the order
            of `model.inputs`, a dict by the names of the inputs, or the dicts
            and lists in each other that the model takes; or what
            `keras_kddp.TeacherCache` packed of these.
        inputs: The signature of the model.
        name: What errors call `x`.

    Raises:
        ValueError: If number, names, shapes, dtypes or lengths do not fit.
    """
    parts = _parts(plain_inputs(x), inputs, name)
    arrays = [
        _checked(part, entry, name)
        for part, entry in zip(parts, inputs, strict=True)
    ]
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1 or lengths[0] == 0:
        raise ValueError(
            f"`{name}` must have at least one sample, equally many per input. "
            f"Received: {lengths} samples. Pass the same rows for each input."
        )
    return arrays


def class_labels(y: Arrays, output: Array) -> NDArray[np.int64]:
    """Returns the class of every arg max of the output.

    Args:
        y: Integer classes of shape `(samples, ...)`, or one-hot of shape
            `(samples, ..., classes)`.
        output: Outputs of a classifier, shape `(samples, ..., classes)`.

    Raises:
        ValueError: If the output is no classifier's or `y` no class labels.
    """
    classes = output.shape[-1]
    if output.ndim < 2 or classes < 2:
        raise ValueError(
            "`y` must belong to an output with one value per class. Received:"
            f" an output of shape {output.shape}. Leave `y` out; the outputs "
            "are compared all the same."
        )
    labels = np.asarray(y)
    is_one_hot = labels.shape == output.shape and _is_one_hot(labels)
    if is_one_hot:
        return labels.argmax(axis=-1)
    if labels.shape == (*output.shape[:-1], 1):
        labels = labels[..., 0]
    if (
        labels.shape != output.shape[:-1]
        or not np.isin(labels, np.arange(classes)).all()
    ):
        raise ValueError(
            f"`y` must hold integer classes below {classes} of shape "
            f"{output.shape[:-1]}, or one-hot rows of shape {output.shape}. "
            f"Received: {labels.dtype} of shape {np.shape(y)}. Pass the labels "
            "of `x`, row by row; leave `y` out where the targets are numbers: "
            "the outputs are compared all the same."
        )
    return labels.astype(np.int64)


def _is_one_hot(labels: Array) -> bool:
    is_binary = np.isin(labels, (0, 1)).all()
    return bool(is_binary and (labels.sum(axis=-1) == 1).all())


def _parts(x: Arrays, inputs: Sequence[InputSignature], name: str) -> list[Any]:
    names = [entry.keras_name for entry in inputs]
    if any(len(entry.path) > 1 for entry in inputs):
        by_path = dict(keras.tree.flatten_with_path(x))
        if set(by_path) == {entry.path for entry in inputs}:
            return [by_path[entry.path] for entry in inputs]
    if isinstance(x, Mapping):
        if set(x) != set(names):
            raise ValueError(
                f"`{name}` must have the keys {names}, the inputs of the "
                f"model. Received: {list(x)}. Rename the keys."
            )
        return [x[name] for name in names]
    if len(inputs) == 1:
        axes = len(inputs[0].shape) + 1
        is_list = isinstance(x, (list, tuple)) and len(x) == 1
        return list(x) if is_list and np.ndim(x[0]) == axes else [x]
    if not isinstance(x, Sequence) or len(x) != len(inputs):
        count = len(x) if isinstance(x, Sequence) else type(x)
        raise ValueError(
            f"`{name}` must be a sequence of {len(inputs)} arrays, one for "
            f"each of {names}, or a dict by these names. Received: {count}. "
            "Put the arrays into a list in that order."
        )
    return list(x)


def _checked(part: Any, entry: InputSignature, name: str) -> Array:
    array = np.asarray(part)
    fits = np.can_cast(array.dtype, entry.dtype, "same_kind")
    if array.shape[1:] != entry.shape or array.ndim == 0 or not fits:
        raise ValueError(
            f"`{name}` must hold {entry.dtype} of shape "
            f"{('samples', *entry.shape)} for input {entry.keras_name!r}. "
            f"Received: {array.dtype} of shape {array.shape}. Prepare the "
            "data as for the training."
        )
    return array.astype(entry.dtype)
