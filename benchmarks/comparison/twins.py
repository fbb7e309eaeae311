"""PyTorch twins of Keras students: the same function of the same weights.

A twin works channels first. What a Flatten hands on is then in another order
than in Keras, so the weights that read it are reordered once, when the twin is
made: Torch-Pruning follows channels through a plain Flatten only.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import torch
from torch import Tensor, nn

from keras_kddp import _compat

MULTIPLYING = (nn.Conv1d, nn.Conv2d, nn.Linear)
"""Modules that have units: output channels that can leave."""


class _Flatten(nn.Module):
    """Puts channels and positions in one axis, channels outermost."""

    def forward(self, x: Tensor) -> Tensor:
        # Torch-Pruning 1.6 maps channels through views of four axes only.
        return (x[..., None] if x.dim() == 3 else x).contiguous().flatten(1)


class _Mean(nn.Module):
    """Averages over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=tuple(range(2, x.dim())))


class _Add(nn.Module):
    """Adds what it is given."""

    def forward(self, *tensors: Tensor) -> Tensor:
        return functools.reduce(torch.add, tensors)


class _Part(NamedTuple):
    """A layer in PyTorch.

    Attributes:
        module: What computes it.
        padding: What `torch.nn.functional.pad` adds before; empty: nothing.
        fill: With this value.
        order: Channel of the twin's output -> channel in Keras; None: alike.
    """

    module: nn.Module
    padding: tuple[int, ...] = ()
    fill: float = 0.0
    order: np.ndarray | None = None


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
        for call in self.calls:
            inputs = [values[name] for name in call.inputs]
            if any(call.padding):
                inputs = [
                    nn.functional.pad(tensor, call.padding, value=call.fill)
                    for tensor in inputs
                ]
            found = getattr(self, call.name)(*inputs)
            values[call.name] = found.relu() if call.is_rectified else found
        return found

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
            raise _refused(layer, "its name is taken or it is called twice")
        inputs = tuple(names[id(tensor)] for tensor in node.inputs)
        part = _part(layer, node.inputs[0].shape[1:], orders[inputs[0]])
        net.add_module(name, part.module)
        names[id(node.outputs[0])] = name
        orders[name] = part.order
        net.calls.append(
            _Call(name, inputs, part.padding, part.fill, _is_rectified(layer))
        )
    if part.order is not None or len(model.outputs[0].shape) != 2:
        raise _refused(layer, "the last layer has to give (batch, classes)")
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


@functools.singledispatch
def _part(layer: Any, shape: Sequence[int], order: np.ndarray | None) -> _Part:
    """Returns a layer in PyTorch.

    Args:
        layer: Of a Keras model.
        shape: Of its input in Keras, without the batch.
        order: Channel of the twin's input -> channel in Keras.
    """
    raise _refused(layer, "there is no counterpart of it")


@_part.register
def _(layer: keras.layers.Dense, shape: Any, order: Any) -> _Part:
    if len(shape) != 1:
        raise _refused(layer, "its input has to be (batch, features)")
    module = nn.Linear(shape[0], layer.units, bias=layer.use_bias)
    kernel = _array(layer.kernel)
    _fill(module.weight, (kernel if order is None else kernel[order]).T)
    if layer.use_bias:
        _fill(module.bias, _array(layer.bias))
    return _Part(module)


@_part.register(keras.layers.Conv1D)
@_part.register(keras.layers.Conv2D)
def _(layer: Any, shape: Any, order: Any) -> _Part:
    _check_layout(layer)
    if layer.groups != 1 or set(layer.dilation_rate) != {1}:
        raise _refused(layer, "it has groups or is dilated")
    padding = _padding(layer, layer.kernel_size, shape)
    is_even = padding[::2] == padding[1::2]
    module = (nn.Conv1d if layer.rank == 1 else nn.Conv2d)(
        shape[-1],
        layer.filters,
        layer.kernel_size,
        layer.strides,
        padding=padding[::2][::-1] if is_even else 0,
        bias=layer.use_bias,
    )
    # (positions..., inputs, outputs) -> (outputs, inputs, positions...)
    kernel = np.moveaxis(_array(layer.kernel), (-1, -2), (0, 1))
    _fill(module.weight, kernel)
    if layer.use_bias:
        _fill(module.bias, _array(layer.bias))
    return _Part(module, () if is_even else padding)


@_part.register(keras.layers.MaxPooling1D)
@_part.register(keras.layers.MaxPooling2D)
def _(layer: Any, shape: Any, order: Any) -> _Part:
    _check_layout(layer)
    kind = nn.MaxPool1d if len(shape) == 2 else nn.MaxPool2d
    padding = _padding(layer, layer.pool_size, shape)
    module = kind(layer.pool_size, layer.strides)
    return _Part(module, padding, fill=-float("inf"))


@_part.register
def _(layer: keras.layers.BatchNormalization, shape: Any, order: Any) -> _Part:
    is_last = layer.axis in (-1, len(shape))
    if not (is_last and layer.center and layer.scale):
        raise _refused(layer, "it has to center and scale the last axis")
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    module = kind(shape[-1], eps=layer.epsilon, momentum=1 - layer.momentum)
    for own, weight in (
        (module.weight, layer.gamma),
        (module.bias, layer.beta),
        (module.running_mean, layer.moving_mean),
        (module.running_var, layer.moving_variance),
    ):
        values = _array(weight)
        _fill(own, values if order is None else values[order])
    return _Part(module, order=order)


@_part.register
def _(layer: keras.layers.Flatten, shape: Any, order: Any) -> _Part:
    if len(shape) == 1:
        return _Part(nn.Identity(), order=order)
    places = np.arange(np.prod(shape)).reshape(shape)
    return _Part(_Flatten(), order=np.moveaxis(places, -1, 0).ravel())


@_part.register(keras.layers.GlobalAveragePooling1D)
@_part.register(keras.layers.GlobalAveragePooling2D)
def _(layer: Any, shape: Any, order: Any) -> _Part:
    _check_layout(layer)
    if layer.keepdims:
        raise _refused(layer, "it keeps its positions")
    return _Part(_Mean())


@_part.register
def _(layer: keras.layers.ReLU, shape: Any, order: Any) -> _Part:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        raise _refused(layer, "it is not the plain ReLU")
    return _Part(nn.ReLU(), order=order)


@_part.register
def _(layer: keras.layers.Activation, shape: Any, order: Any) -> _Part:
    return _Part(nn.Identity(), order=order)


@_part.register
def _(layer: keras.layers.Dropout, shape: Any, order: Any) -> _Part:
    return _Part(nn.Dropout(layer.rate), order=order)


@_part.register
def _(layer: keras.layers.Add, shape: Any, order: Any) -> _Part:
    if order is not None:
        raise _refused(layer, "it adds what was flattened")
    return _Part(_Add())


def _is_rectified(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    if activation in (None, keras.activations.linear):
        return False
    if activation is keras.activations.relu:
        return True
    raise _refused(layer, f"its activation is {activation.__name__}")


def _padding(
    layer: Any, sizes: Sequence[int], shape: Sequence[int]
) -> tuple[int, ...]:
    """Returns what Keras adds around an input, as `pad` of PyTorch takes it.

    That is (left, right) of the last axis first. For `"same"`, the outputs are
    input / stride, rounded up, and an odd number of zeros has more at the end.
    """
    if layer.padding not in ("valid", "same"):
        raise _refused(layer, f"its padding is {layer.padding!r}")
    found: list[int] = []
    for size, stride, length in zip(
        sizes, layer.strides, shape[:-1], strict=True
    ):
        outputs = -(-length // stride)
        added = max((outputs - 1) * stride + size - length, 0)
        if layer.padding == "valid":
            added = 0
        found = [added // 2, added - added // 2, *found]
    return tuple(found)


def _check_layout(layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise _refused(layer, "its channels are not last")


def _array(weight: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(weight), np.float32)


def _fill(own: Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        own.copy_(torch.from_numpy(np.array(values, order="C")))


def _refused(layer: Any, reason: str) -> ValueError:
    return ValueError(
        f"A twin of layer {layer.name!r} ({type(layer).__name__}) cannot be "
        f"made: {reason}. Use Dense, Conv1D, Conv2D, MaxPooling, Flatten, "
        "GlobalAveragePooling, BatchNormalization, ReLU, Add and Dropout, "
        "each called once."
    )
