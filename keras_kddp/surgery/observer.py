"""Runs a model up to tensors inside it, nested models included."""

import inspect
from collections.abc import Sequence

import keras

from keras_kddp._compat import CallNode
from keras_kddp.model_io import Arrays, Tensor, input_structure
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.masks import with_mask


class Observer:
    """Computes symbolic tensors of a graph at inference.

    Calls the layers of the model themselves, one by one: tensors inside a
    nested model belong to no `keras.Model` that could be made of them.
    """

    def __init__(self, graph: ChannelGraph, tensors: Sequence[Tensor]) -> None:
        """Finds the calls that the tensors need.

        Args:
            graph: The model.
            tensors: Symbolic tensors of the graph.
        """
        self._symbols = graph.model.inputs
        self._tensors = tensors
        structure = input_structure(graph.model)
        self._is_list_of_one = isinstance(structure, list) and (
            len(structure) == 1
        )
        # It only brings inputs into the order and dtypes of the model's.
        self._inputs = keras.Model(structure, list(graph.model.inputs))
        self._nodes: list[CallNode] = []
        needed = {id(tensor) for tensor in tensors}
        for node in reversed(graph.nodes):
            if node.inputs and not needed.isdisjoint(map(id, node.outputs)):
                self._nodes.append(node)
                needed.update(map(id, node.inputs))
        self._nodes.reverse()

    def __call__(self, inputs: Arrays) -> list[Tensor]:
        """Returns the tensors for a batch of inputs.

        Args:
            inputs: What the model takes.
        """
        if self._is_list_of_one and hasattr(inputs, "shape"):
            inputs = [inputs]  # as Keras does with tensors, not with arrays
        flat = keras.tree.flatten(self._inputs(inputs))
        values = dict(zip(map(id, self._symbols), flat, strict=True))
        for node in self._nodes:
            outputs = keras.tree.flatten(run(node, values, training=False))
            values.update(zip(map(id, node.outputs), outputs, strict=True))
        return [values[id(tensor)] for tensor in self._tensors]


def run(node: CallNode, values: dict[int, Tensor], *, training: bool) -> Tensor:
    """Runs one call and returns its output.

    Args:
        node: The call.
        values: `id(symbolic tensor)` -> its value, for every input.
        training: The mode, given to whatever takes one, as Functional does.
    """
    args, kwargs = keras.tree.map_structure(
        lambda leaf: values.get(id(leaf), leaf), (node.args, node.kwargs)
    )
    if isinstance(node.operation, keras.layers.InputLayer):
        value = keras.ops.cast(args[0], node.outputs[0].dtype)
        return with_mask(value, kwargs.get("mask"))
    if "training" in inspect.signature(node.operation.call).parameters:
        kwargs["training"] = training
    return node.operation(*args, **kwargs)
