"""A model of Keras 3 in the words that Keras 3 and tf_keras share."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_kddp._compat import CallNode
from keras_kddp.export.model.signature import file_names, input_signature
from keras_kddp.export.workers import portable_models
from keras_kddp.export.workers.portable_models import MERGING, ORDINARY
from keras_kddp.model_io import Array
from keras_kddp.surgery.calls import flat_calls


def describe(model: keras.Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """Returns the description and the weights of a model, for `build`.

    Args:
        model: A built model; those nested in it are described flat.

    Returns:
        What `portable_models` calls a description, and "layer:weight" ->
        array.

    Raises:
        ValueError: If a layer is not among the ordinary ones, by name.
    """
    nodes, outputs, _ = flat_calls(model)
    layers = named_layers(model)
    calls, numbers = _numbered_calls(nodes, layers)
    description = {
        "name": file_names([model.name])[0],
        "layers": {
            name: portable_models.described(layer)
            for name, layer in layers.items()
        },
        "inputs": _described_inputs(model, numbers),
        "calls": calls,
        "outputs": [numbers[id(x)] for x in outputs],
    }
    return description, portable_models.weights_of(layers)


def named_layers(model: keras.Model) -> dict[str, Any]:
    """Returns the layers of a model by their names in a description."""
    operations = {
        node.name: node.operation
        for node in flat_calls(model).nodes
        if not _is_input(node.operation)
    }
    taken = [entry.name for entry in input_signature(model)]
    names = file_names([*taken, *operations])[len(taken) :]
    return dict(zip(names, operations.values(), strict=True))


def refusal_of(reason: object) -> str:
    """Returns the sentence that refuses a model for a reason."""
    return (
        "The model must consist of layers that Keras 3 and tf_keras have "
        f"alike: {', '.join(ORDINARY)}. Received: {reason}. Replace it."
    )


def _numbered_calls(
    nodes: Iterable[CallNode], layers: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Returns the calls of ordinary layers, and the numbers of tensors by id.

    Raises:
        ValueError: If a layer is not an ordinary one.
    """
    names = {id(layer): name for name, layer in layers.items()}
    numbers: dict[int, int] = {}
    calls = []
    for node in nodes:
        made = id(node.outputs[0])
        if _is_input(node.operation) and node.inputs:
            # Of a nested model: it stands for what that is called with.
            numbers[made] = numbers[id(node.inputs[0])]
            continue
        numbers[made] = len(numbers)
        if _is_input(node.operation):
            continue
        _check_ordinary(node)
        calls.append(
            {
                "layer": names[id(node.operation)],
                "inputs": [numbers[id(x)] for x in node.inputs],
                "output": numbers[made],
            }
        )
    return calls, numbers


def _described_inputs(
    model: keras.Model, numbers: Mapping[int, int]
) -> list[dict[str, Any]]:
    signature = input_signature(model)
    return [
        {
            "name": entry.name,
            "shape": list(entry.shape),
            "dtype": entry.dtype,
            "tensor": numbers[id(tensor)],
        }
        for entry, tensor in zip(signature, model.inputs, strict=True)
    ]


def _is_input(operation: Any) -> bool:
    return isinstance(operation, keras.layers.InputLayer)


def _check_ordinary(node: CallNode) -> None:
    """Raises a ValueError for a call that no description can hold."""
    cls = type(node.operation)
    is_ordinary = cls.__name__ in ORDINARY
    if not is_ordinary or cls is not getattr(keras.layers, cls.__name__):
        raise ValueError(refusal_of(f"layer '{node.name}' is a {cls.__name__}"))
    tensors = {id(x) for x in node.inputs}
    named = {k: x for k, x in node.kwargs.items() if k != "training"}
    others = [
        part
        for part in keras.tree.flatten((node.args, named))
        if part is not None and id(part) not in tensors
    ]
    if node.kwargs.get("training"):
        others.append("training=True")
    if others or (len(node.inputs) > 1 and cls.__name__ not in MERGING):
        raise ValueError(
            refusal_of(
                f"layer '{node.name}' ({cls.__name__}) is called with more "
                "than one tensor"
            )
        )
