"""Which layer of a model an operation in a file, or in a graph, is from."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.surgery.calls import is_flattened


class LayerNames:
    """Finds the layers of a model in the names that TensorFlow made of them.

    Args:
        model: A built Sequential or Functional model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._found = dict(_described(model, ""))

    def behind(self, name: str) -> str | None:
        """Returns a layer as errors call it: "layer 'fc' (Dense)".

        Args:
            name: Of an operation or a tensor, such as "model/fc_1/MatMul".

        Returns:
            None where no part of the name is a layer's.
        """
        for part in reversed(re.split("[/;]", name)):
            plain = re.sub(r"_\d+$", "", part)  # TensorFlow numbers its scopes
            for candidate in (plain, part, plain.lower()):
                if candidate in self._found:
                    return self._found[candidate]
        return None

    def behind_all(self, names: Iterable[str]) -> list[str]:
        """Returns the layers behind names, each once, in order."""
        found = dict.fromkeys(map(self.behind, names))
        return [layer for layer in found if layer is not None]


def _described(model: keras.Model, path: str) -> Iterator[tuple[str, str]]:
    """Yields names of layers, those inside them too, and what to call them."""
    for layer in model.layers:
        if is_flattened(layer):
            yield from _described(layer, f"{path}{layer.name}/")
            continue
        words = f"layer '{path}{layer.name}' ({type(layer).__name__})"
        for inner in reversed(_compat.all_layers(layer)):
            yield inner.name, words
        yield layer.name, words
    for node in _compat.call_nodes(model):
        operation: Any = node.operation
        if not isinstance(operation, keras.layers.Layer):
            kind = type(operation).__name__
            words = f"operation '{operation.name}' ({kind})"
            yield kind.lower(), words  # its scope has the name of its kind
            yield operation.name, words
