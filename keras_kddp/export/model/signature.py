"""A Keras model as its exported file sees it: flat, named inputs, outputs."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import keras

from keras_kddp.model_io import Tensor, input_structure


@dataclass(frozen=True)
class InputSignature:
    """One input of a model, in the order of `model.inputs`.

    Attributes:
        keras_name: Name of the `keras.Input`.
        name: Name in the exported file: letters, digits and underscores.
        shape: Shape of one sample, without the batch dimension.
        dtype: Name of the dtype, for example `"float32"`.
    """

    keras_name: str
    name: str
    shape: tuple[int, ...]
    dtype: str


def require_tensorflow(purpose: str) -> None:
    """Raises a ValueError on another backend.

    Args:
        purpose: What needs TensorFlow, the beginning of a sentence.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{purpose} must run on the TensorFlow backend. Received: "
            f"backend {keras.backend.backend()!r}. Save the model as .keras, "
            "set KERAS_BACKEND=tensorflow in a new process and export there."
        )


def check_exportable(model: keras.Model) -> None:
    """Refuses a model whose inputs or their shapes are unknown.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is unbuilt, subclassed, or of variable shape.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a keras.Model of Keras 3. Received: "
            f"{model!r} of {type(model)}. Rebuild a tf_keras model in Keras 3 "
            "first."
        )
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ValueError(
            "`model` must be a built Sequential or Functional model. Received:"
            f" {type(model).__name__} {model.name!r} without symbolic inputs. "
            "Start a Sequential model with keras.Input(shape), or call "
            "model.build(input_shape); wrap a subclassed model: "
            "inputs = keras.Input(shape); keras.Model(inputs, model(inputs))."
        )
    for tensor in inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                "Every dimension of an input but the batch must be fixed. "
                f"Received: input {tensor.name!r} of shape {tensor.shape}. "
                "Rebuild the model on a keras.Input of the size that the "
                "device will see."
            )


def input_signature(model: keras.Model) -> tuple[InputSignature, ...]:
    """Returns the inputs of a model that passed `check_exportable`."""
    names = file_names(tensor.name for tensor in model.inputs)
    return tuple(
        InputSignature(tensor.name, name, tuple(tensor.shape[1:]), tensor.dtype)
        for tensor, name in zip(model.inputs, names, strict=True)
    )


def output_names(model: keras.Model) -> tuple[str, ...]:
    """Returns the file's names of the outputs, in the order of `outputs`."""
    if isinstance(model, keras.Sequential):
        return file_names([model.layers[-1].name])
    return file_names(model.output_names)


def infer(model: keras.Model, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Returns the flat outputs of the model at inference, leaving no trace.

    Args:
        model: A built Sequential or Functional model.
        inputs: Tensors in the order of `model.inputs`, each with a batch.
    """
    structure = input_structure(model)
    # In the scope, add_loss and state updates do not reach the model.
    with keras.StatelessScope():
        outputs = model(
            keras.tree.pack_sequence_as(structure, list(inputs)),
            training=False,
        )
    return list(keras.tree.flatten(outputs))


def file_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns distinct names that every runtime can take as identifiers."""
    unique: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not plain[0].isalpha():
            plain = f"tensor_{plain}"
        candidate, count = plain, 1
        while candidate in unique:
            candidate, count = f"{plain}_{count}", count + 1
        unique.append(candidate)
    return tuple(unique)
