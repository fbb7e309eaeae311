"""Names in a .tflite file: those of the model, and short inner ones."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_kddp.export.model.node_names import user_named
from keras_kddp.export.model.signature import input_signature, output_names
from keras_kddp.export.model.tracing import traced_inputs, traced_outputs


@dataclass(frozen=True)
class FileNames:
    """Names of the inputs, outputs and layers of a file.

    Attributes:
        inputs: Name in the SavedModel's signature -> in the file's; those
            that are missing stay as they are.
        outputs: As `inputs`.
        layers: Names that users gave to layers; the numbers in those that
            Keras gave are counted anew in each file.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    layers: Collection[str] = frozenset()

    def traced_input(self, name: str) -> str:
        """Returns the name in the SavedModel of an input of the file."""
        traced = {there: here for here, there in self.inputs.items()}
        return traced.get(name, name)

    def give_to(self, model: Any) -> None:
        """Renames the tensors of a parsed .tflite file.

        Its outputs come in the order of the signature, too.

        Args:
            model: A `ModelT` of the schema, changed in place.
        """
        for signature in model.signatureDefs or ():
            _put_in_order(model.subgraphs[signature.subgraphIndex], signature)
            _rename(signature.inputs, self.inputs)
            _rename(signature.outputs, self.outputs)
        for graph in model.subgraphs:
            inner = _InnerNames(self.layers)
            for tensor in graph.tensors:
                tensor.name = inner.of(tensor.name.decode())
        for signature in model.signatureDefs or ():
            tensors = model.subgraphs[signature.subgraphIndex].tensors
            for part in (*signature.inputs, *signature.outputs):
                tensors[part.tensorIndex].name = part.name


def names_of(model: keras.Model, *, is_traced: bool = True) -> FileNames:
    """Returns the names for the file of a model.

    Args:
        model: The model.
        is_traced: Whether `save_trace` wrote the SavedModel.
    """
    layers = user_named(model)
    if not is_traced:
        return FileNames(layers=layers)
    inputs = [entry.name for entry in input_signature(model)]
    return FileNames(
        dict(zip(traced_inputs(model), inputs, strict=True)),
        dict(zip(traced_outputs(model), output_names(model), strict=True)),
        layers,
    )


class _InnerNames:
    """Names of tensors inside a graph: layer and operation.

    Keras counts the layers of a process, TensorFlow the calls of a graph. Both
    would make another file of the same model.
    """

    def __init__(self, layers: Collection[str]) -> None:
        self._layers = layers
        self._found: dict[str, str] = {}

    def of(self, name: str) -> str:
        first = name.partition(";")[0]  # of operations that were fused
        *scopes, operation = first.split("/")[-2:]
        return "/".join([*map(self._scope, scopes), operation])

    def _scope(self, name: str) -> str:
        if name not in self._found:
            self._found[name] = self._renamed(name)
        return self._found[name]

    def _renamed(self, name: str) -> str:
        for layer in (re.sub(r"_\d+$", "", name), name):
            if layer in self._layers:
                return layer
        plain = candidate = re.sub(r"(_\d+)+$", "", name)
        count = 1
        while candidate in self._found.values():
            candidate, count = f"{plain}_{count}", count + 1
        return candidate


def _put_in_order(graph: Any, signature: Any) -> None:
    """Orders outputs as they were traced; the converter has its own order."""
    signature.outputs.sort(key=lambda part: part.name)
    traced = [part.tensorIndex for part in signature.outputs]
    if set(graph.outputs) == set(traced):
        graph.outputs = sorted(graph.outputs, key=traced.index)


def _rename(parts: Any, names: Mapping[str, str]) -> None:
    for part in parts:
        name = part.name.decode()
        part.name = names.get(name, name)
