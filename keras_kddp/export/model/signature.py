"""A Keras model as its exported file sees it: flat, named inputs, outputs."""

import itertools
import keyword
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import eq
from typing import Any, TypeAlias

import keras

from keras_kddp import _compat
from keras_kddp.model_io import Tensor, input_structure, output_structure

TreePath: TypeAlias = tuple[str | int, ...]
"""Where a tensor stands in a structure: keys of dicts, positions in lists."""


@dataclass(frozen=True)
class InputSignature:
    """One input of a model, in the order of `model.inputs`.

    The name in the file is a parameter of Python, as TensorFlow's signatures
    have to be: Keras' name where it is one. Other characters become "_", a
    name that does not begin with a letter gets "tensor_" before it, a keyword
    or `self` gets "_" behind it (`in_`), and of equal names the later get a
    number. Inputs that were given no name have that of their layer
    (`input_layer`), which a `.keras` file keeps; that of their tensor counts
    on with every tensor that Keras makes.

    Attributes:
        keras_name: What Keras is fed by: the key where the model takes a
            dict, else the name of the `keras.Input`.
        name: Name in the exported file.
        shape: Shape of one sample, without the batch dimension.
        dtype: Name of the dtype, for example `"float32"`.
        path: Where it stands in what the model takes; () where that is one
            tensor.
    """

    keras_name: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    path: TreePath = ()


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
    paths = _paths(input_structure(model))
    layers = [_compat.producing_node(x).operation.name for x in model.inputs]
    keys = [*map(_key, paths)]
    given = [a or b for a, b in zip(keys, layers, strict=True)]
    plain = [*map(_parameter, given)]
    # TensorFlow writes the names of a function's inputs in lower case.
    names = _distinct(plain, [*map(eq, given, plain)], sameness=str.lower)
    return tuple(
        InputSignature(
            tensor.name if key is None else key,
            name,
            tuple(tensor.shape[1:]),
            tensor.dtype,
            path,
        )
        for tensor, key, name, path in zip(
            model.inputs, keys, names, paths, strict=True
        )
    )


def output_names(model: keras.Model) -> tuple[str, ...]:
    """Returns the file's names of the outputs, in the order of `outputs`.

    An output in a dict has the name of its key, as in Keras' own export; in
    dicts and lists inside each other the path from the first key on, joined
    by "_". The others have the names of their layers, as letters, digits and
    underscores. Of equal names the later get a number.
    """
    layers = file_names(_compat.functional_graph(model).output_names)
    paths = _paths(output_structure(model))
    names = [
        "_".join(map(str, _from_first_key(path))) or layer
        for path, layer in zip(paths, layers, strict=True)
    ]
    return _distinct(names, [_key(path) is not None for path in paths])


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
    """Returns distinct names of letters, digits and underscores."""
    given = list(names)
    plain = [*map(_identifier, given)]
    return _distinct(plain, [*map(eq, given, plain)])


def _identifier(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return plain if plain[:1].isalpha() else f"tensor_{plain}"


def _parameter(name: str) -> str:
    plain = _identifier(name)
    # TensorFlow binds a signature's inputs beside the `self` of a method.
    is_taken = keyword.iskeyword(plain) or plain == "self"
    return f"{plain}_" if is_taken else plain


def _distinct(
    names: Sequence[str],
    first: Sequence[bool],
    sameness: Callable[[str], str] = str,
) -> tuple[str, ...]:
    """Returns names of which the later equal ones have a number.

    Args:
        names: In order.
        first: Of each whether it takes its name before those for which this
            is False.
        sameness: Returns what equal names have in common.
    """
    wanted = set(map(sameness, names))
    found: dict[int, str] = {}
    taken: set[str] = set()
    for index in sorted(range(len(names)), key=lambda index: not first[index]):
        name = names[index]
        numbered = (f"{name}_{count}" for count in itertools.count(1))
        others = (other for other in numbered if sameness(other) not in wanted)
        found[index] = next(
            candidate
            for candidate in itertools.chain([name], others)
            if sameness(candidate) not in taken
        )
        taken.add(sameness(found[index]))
    return tuple(found[index] for index in range(len(names)))


def _paths(structure: Any) -> list[TreePath]:
    return [path for path, _ in keras.tree.flatten_with_path(structure)]


def _key(path: TreePath) -> str | None:
    """Returns the key of a tensor in a dict that is in nothing else."""
    is_key = len(path) == 1 and isinstance(path[0], str) and path[0] != ""
    return str(path[0]) if is_key else None


def _from_first_key(path: TreePath) -> TreePath:
    """Returns a path without the positions in lists around the first dict."""
    while path and not isinstance(path[0], str):
        path = path[1:]
    return path
