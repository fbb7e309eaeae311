"""The outputs of a model's layers, read in the pass that computes its own."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.model_io import (
    Arrays,
    Tensor,
    input_structure,
    output_structure,
)


class FeatureReader:
    """Runs a model once for its outputs and for those of some layers.

    Args:
        model: Any model; Sequential or Functional where layers are named.
        names: Layers to read; may be empty.

    Attributes:
        names: The layers that are read.
    """

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        self.names = list(names)
        self._model = model
        self._reader = None
        self._last: tuple[Arrays, dict[str, Tensor]] | None = None
        if names:
            features = {name: feature_tensor(model, name) for name in names}
            self._reader = keras.Model(
                input_structure(model), [output_structure(model), features]
            )

    def outputs(self, inputs: Arrays, training: bool | None) -> Arrays:
        """Returns the model's outputs and keeps the features beside."""
        if self._reader is None:
            return self._model(inputs, training=training)
        outputs, features = self._reader(inputs, training=training)
        self._last = outputs, features
        return outputs

    def features(
        self, inputs: Arrays, outputs: Arrays, training: bool | None
    ) -> dict[str, Tensor]:
        """Returns the features of a batch by layer name.

        Args:
            inputs: The batch.
            outputs: What `outputs` returned for it; the features of that pass
                are returned then, else a pass is made.
            training: The mode.
        """
        if self._reader is None:
            return {}
        last, self._last = self._last, None
        if last is None or not _is_same(last[0], outputs):
            return dict(self._reader(inputs, training=training)[1])
        return last[1]


def feature_tensor(model: Any, name: str, role: str = "model") -> Tensor:
    """Returns the symbolic output of a layer's call in a model.

    Args:
        model: The model.
        name: Of one of its layers.
        role: What errors call the model.

    Raises:
        ValueError: If there is no such layer, or not one output of it.
    """
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"The {role} must be a built Sequential or Functional model for "
            f"its layer '{name}' to be matched. Received: "
            f"{type(model).__name__} without a graph. Start it with "
            "keras.Input, or wrap it: keras.Model(inputs, model(inputs))."
        )
    nodes = _compat.call_nodes(model)
    names = [layer.name for layer in model.layers]
    if name not in names:
        raise ValueError(
            f"`{role}_layer_name` must name a layer of the {role}: {names}. "
            f"Received: '{name}'. Layers of a nested model are matched at its "
            "output."
        )
    calls = [node for node in nodes if node.name == name]
    if len(calls) != 1 or len(calls[0].outputs) != 1:
        outputs = [len(node.outputs) for node in calls]
        raise ValueError(
            f"`{role}_layer_name` must name a layer that is called once and "
            f"puts out one tensor. Received: '{name}' with {len(calls)} calls "
            f"of {outputs} tensors. Put an Identity layer behind the tensor "
            "that is meant, and name that."
        )
    return calls[0].outputs[0]


def _is_same(first: Arrays, second: Arrays) -> bool:
    pairs = zip(
        keras.tree.flatten(first), keras.tree.flatten(second), strict=True
    )
    return all(a is b for a, b in pairs)
