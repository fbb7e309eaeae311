"""The calls of a model in one list, those inside nested models among them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_kddp import _compat
from keras_kddp._compat import CallNode
from keras_kddp.model_io import Tensor
from keras_kddp.surgery.masks import called_input, read_tensors


class Origin(NamedTuple):
    """Where a symbolic tensor of the list comes from.

    Attributes:
        path: Names of the nested models around it, outermost first.
        model: The model whose graph it belongs to.
        tensor: The tensor in that graph.
    """

    path: tuple[str, ...]
    model: keras.Model
    tensor: Tensor


class FlatCalls(NamedTuple):
    """A model without nesting.

    The calls inside a nested model stand instead of its own call, once per call
    of the nested model, with tensors that stand for that call's. Its
    InputLayers read the tensors that it is called with, and their masks.

    Attributes:
        nodes: The calls, inputs first; a nested layer is named "outer/inner".
        outputs: Symbolic outputs of the model.
        origins: `id(symbolic tensor)` -> its `Origin`.
    """

    nodes: list[CallNode]
    outputs: list[Tensor]
    origins: dict[int, Origin]


def flat_calls(model: keras.Model) -> FlatCalls:
    """Returns the calls of a built Sequential or Functional model."""
    flattener = _Flattener(_opaque_models(model))
    outputs = flattener.walk(model, (), None, ())
    return FlatCalls(flattener.nodes, outputs, flattener.origins)


class _Flattener:
    """Walks through a model and the models in it."""

    def __init__(self, opaque: set[int]) -> None:
        self._opaque = opaque
        self.nodes: list[CallNode] = []
        self.origins: dict[int, Origin] = {}

    def walk(
        self,
        model: keras.Model,
        path: tuple[str, ...],
        arguments: Any,
        masks: Sequence[Any],
    ) -> list[Tensor]:
        """Lists the calls of a model.

        Args:
            model: The model.
            path: The nested models around its calls.
            arguments: What it is called with, one tensor for each of its
                inputs; None outside.
            masks: What it is given as masks of its inputs, in their order.

        Returns:
            What stands for its flat outputs.
        """
        bound: dict[int, Tensor] = {}
        if arguments is not None:
            bound = dict(zip(map(id, model.inputs), arguments, strict=True))
        given = dict(zip(map(id, model.inputs), masks, strict=False))
        for node in _compat.call_nodes(model):
            is_opaque = id(node.operation) in self._opaque
            if is_flattened(node.operation) and not is_opaque:
                inputs = [bound.get(id(x), x) for x in _arguments(node) or ()]
                masks = [bound.get(id(x), x) for x in read_tensors(node).given]
                outputs = self.walk(
                    node.operation, (*path, node.operation.name), inputs, masks
                )
                bound |= zip(map(id, node.outputs), outputs, strict=True)
            else:
                self._list(node, Origin(path, model, None), bound, given)
        return [bound.get(id(x), x) for x in model.outputs]

    def _list(
        self,
        node: CallNode,
        origin: Origin,
        bound: dict[int, Tensor],
        given: dict[int, Any],
    ) -> None:
        path = origin.path
        node = node._replace(name="/".join((*path, node.name)))
        if path and not node.inputs:  # reads what the model is called with
            key = id(node.outputs[0])
            node = called_input(node, bound[key], given.get(key))
        elif bound:
            args, kwargs = keras.tree.map_structure(
                lambda leaf: bound.get(id(leaf), leaf), (node.args, node.kwargs)
            )
            inputs = tuple(bound.get(id(x), x) for x in node.inputs)
            node = node._replace(args=args, kwargs=kwargs, inputs=inputs)
        outputs = node.outputs
        if path:
            outputs = tuple(
                keras.KerasTensor(x.shape, x.dtype, name=x.name)
                for x in node.outputs
            )
            bound |= zip(map(id, node.outputs), outputs, strict=True)
        self.origins |= {
            id(symbol): origin._replace(tensor=tensor)
            for symbol, tensor in zip(outputs, node.outputs, strict=True)
        }
        self.nodes.append(node._replace(outputs=outputs))


def _opaque_models(model: keras.Model) -> set[int]:
    """Returns the `id` of nested models of which a call cannot be listed.

    All their calls are left as they are then: units inside have to stay.
    """
    opaque: set[int] = set()
    for node in _compat.call_nodes(model):
        if is_flattened(node.operation):
            opaque |= _opaque_models(node.operation)
            if _arguments(node) is None:
                opaque.add(id(node.operation))
    return opaque


def _arguments(node: CallNode) -> list[Tensor] | None:
    """Returns what a nested model's inputs stand for, in their order.

    Returns:
        One tensor per input; None where Keras would change their shapes.
    """
    inner = node.operation.inputs
    data = read_tensors(node).data
    values = [*node.args, *node.kwargs.values()]
    given = values[0] if values else None
    if isinstance(given, dict):
        names = [tensor.name for tensor in inner]
        if isinstance(node.operation.input, dict):
            keys = {id(x): key for key, x in node.operation.input.items()}
            names = [keys.get(id(tensor), "") for tensor in inner]
        found = [given.get(name) for name in names]
    else:
        found = list(data)
    fits = len(found) == len(inner) == len(data) and all(
        b is not None and len(a.shape) == len(b.shape)
        for a, b in zip(inner, found, strict=True)
    )
    return found if fits else None


def is_flattened(operation: Any) -> bool:
    """Says whether an operation is a nested model whose calls are listed."""
    if not isinstance(operation, keras.Model):
        return False
    for base in type(operation).__mro__:
        if base.__module__.startswith("keras."):
            return _compat.functional_graph(operation) is not None
        if not vars(base).keys().isdisjoint({"call", "get_config"}):
            return False
    return False


def layers_by_path(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns a model's layers, nested models before what is in them.

    Returns:
        "name", or "outer/inner" inside a nested model -> layer.
    """
    found: dict[str, keras.Layer] = {}
    for layer in model.layers:
        found[layer.name] = layer
        if is_flattened(layer):
            inner = layers_by_path(layer)
            found |= {f"{layer.name}/{name}": x for name, x in inner.items()}
    return found
