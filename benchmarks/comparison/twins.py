"""PyTorch twins of Keras students: the same function of the same weights.

A twin works channels first. What a Flatten hands on is then in another order
than in Keras, so the weights that read it are reordered once, when the twin is
made: Torch-Pruning follows channels through a plain Flatten only.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import torch
from torch import Tensor, nn

from comparison.twin_layers import is_rectified, part_of, refused
from keras_kddp import _compat

MULTIPLYING = (nn.Conv1d, nn.Conv2d, nn.Linear)
"""Modules that have units: output channels that can leave."""


class _Call(NamedTuple):
    """A call of a part: by what name, on what, and what comes before, after."""

    name: str
    inputs: tuple[str, ...]
    padding: tuple[int, ...]
    fill: float
    is_rectified: bool


class Twin(nn.Module):
    """A network that gives the logits of a Keras model.

    Each layer is a submodule under its own name.

    Args:
        input_shape: (..., channels) of one example.
    """

    def __init__(self, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.calls: list[_Call] = []

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits, (batch, classes).

        Args:
            x: (batch, ..., channels), float32.
        """
        values = {"": x.movedim(-1, 1)}
        *calls, last = self.calls
        for call in calls:
            values[call.name] = self._called(call, values)
        with torch.autocast("cpu", enabled=False):  # logits are float32
            floats = {name: values[name].float() for name in last.inputs}
            return self._called(last, floats)

    def _called(self, call: _Call, values: Mapping[str, Tensor]) -> Tensor:
        """Returns what a part makes of what is known by now."""
        inputs = [values[name] for name in call.inputs]
        if any(call.padding):
            inputs = [
                nn.functional.pad(tensor, call.padding, value=call.fill)
                for tensor in inputs
            ]
        found = getattr(self, call.name)(*inputs)
        return found.relu() if call.is_rectified else found

    def example(self) -> Tensor:
        """Returns one example of zeros, with a batch axis."""
        return torch.zeros(1, *self.input_shape)

    def arrange(self) -> None:
        """Puts kernels in the memory order that convolutions run fastest in."""
        self.to(memory_format=torch.channels_last)


def twin(model: keras.Model) -> Twin:
    """Returns a PyTorch network with the weights and the logits of a model.

    The statistics of BatchNormalization alone follow the batches slightly
    otherwise: PyTorch takes the unbiased variance, n / (n - 1) of Keras'.

    Args:
        model: A built Sequential or Functional model, channels last, of one
            input (batch, ..., channels) and logits (batch, classes).

    Raises:
        ValueError: If a layer has no counterpart here.
    """
    nodes = [node for node in _compat.call_nodes(model) if node.inputs]
    net = Twin(model.inputs[0].shape[1:])
    names = {id(model.inputs[0]): ""}
    orders: dict[str, np.ndarray | None] = {"": None}
    for node in nodes:
        layer, name = node.operation, node.name
        if hasattr(net, name):
            raise refused(layer, "its name is taken or it is called twice")
        inputs = tuple(names[id(tensor)] for tensor in node.inputs)
        given = [orders[n] for n in inputs if orders[n] is not None]
        order = given[0] if given else None
        part = part_of(layer, node.inputs[0].shape[1:], order)
        net.add_module(name, part.module)
        names[id(node.outputs[0])] = name
        orders[name] = part.order
        net.calls.append(
            _Call(name, inputs, part.padding, part.fill, is_rectified(layer))
        )
    if part.order is not None or len(model.outputs[0].shape) != 2:
        raise refused(layer, "the last layer has to give (batch, classes)")
    net.arrange()
    return net


def size_of(net: Twin) -> dict[str, Any]:
    """Returns how large a twin is, counted as `keras_kddp.profile` does.

    Returns:
        `"parameters"`, with the statistics of BatchNormalization; `"macs"` of
        one example; `"widths"`: layer name -> units, of Dense layers and
        convolutions.
    """
    macs = []

    def count(module: Any, _: Any, output: Tensor) -> None:
        positions = output.numel() // module.weight.shape[0]
        macs.append(positions * module.weight.numel())

    widths = {
        name: module.weight.shape[0]
        for name, module in net.named_children()
        if isinstance(module, MULTIPLYING)
    }
    hooks = [getattr(net, n).register_forward_hook(count) for n in widths]
    was_training = net.training
    with torch.inference_mode():
        net.eval()(net.example())
    net.train(was_training)
    for hook in hooks:
        hook.remove()
    # BatchNorm's own count of batches is a scalar.
    arrays = [*net.parameters(), *(b for b in net.buffers() if b.dim())]
    return {
        "parameters": sum(array.numel() for array in arrays),
        "macs": sum(macs),
        "widths": widths,
    }
