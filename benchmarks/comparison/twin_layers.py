"""Keras layers as PyTorch modules, with their weights, channels first."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import torch
from torch import Tensor, nn


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


class Part(NamedTuple):
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


@functools.singledispatch
def part_of(layer: Any, shape: Sequence[int], order: np.ndarray | None) -> Part:
    """Returns a layer in PyTorch.

    Args:
        layer: Of a Keras model.
        shape: Of its input in Keras, without the batch.
        order: Channel of the twin's input -> channel in Keras; None: alike.

    Raises:
        ValueError: If the layer has no counterpart.
    """
    raise refused(layer, "there is no counterpart of it")


@part_of.register
def _(layer: keras.layers.Dense, shape: Any, order: Any) -> Part:
    if len(shape) != 1:
        raise refused(layer, "its input has to be (batch, features)")
    module = nn.Linear(shape[0], layer.units, bias=layer.use_bias)
    kernel = _array(layer.kernel)
    _fill(module.weight, (kernel if order is None else kernel[order]).T)
    if layer.use_bias:
        _fill(module.bias, _array(layer.bias))
    return Part(module)


@part_of.register(keras.layers.Conv1D)
@part_of.register(keras.layers.Conv2D)
def _(layer: Any, shape: Any, order: Any) -> Part:
    _check_layout(layer)
    if layer.groups != 1 or set(layer.dilation_rate) != {1}:
        raise refused(layer, "it has groups or is dilated")
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
    return Part(module, () if is_even else padding)


@part_of.register(keras.layers.MaxPooling1D)
@part_of.register(keras.layers.MaxPooling2D)
def _(layer: Any, shape: Any, order: Any) -> Part:
    _check_layout(layer)
    kind = nn.MaxPool1d if len(shape) == 2 else nn.MaxPool2d
    padding = _padding(layer, layer.pool_size, shape)
    module = kind(layer.pool_size, layer.strides)
    return Part(module, padding, fill=-float("inf"))


@part_of.register
def _(layer: keras.layers.BatchNormalization, shape: Any, order: Any) -> Part:
    is_last = layer.axis in (-1, len(shape))
    if not (is_last and layer.center and layer.scale):
        raise refused(layer, "it has to center and scale the last axis")
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
    return Part(module, order=order)


@part_of.register
def _(layer: keras.layers.Flatten, shape: Any, order: Any) -> Part:
    if len(shape) == 1:
        return Part(nn.Identity(), order=order)
    places = np.arange(np.prod(shape)).reshape(shape)
    return Part(_Flatten(), order=np.moveaxis(places, -1, 0).ravel())


@part_of.register(keras.layers.GlobalAveragePooling1D)
@part_of.register(keras.layers.GlobalAveragePooling2D)
def _(layer: Any, shape: Any, order: Any) -> Part:
    _check_layout(layer)
    if layer.keepdims:
        raise refused(layer, "it keeps its positions")
    return Part(_Mean())


@part_of.register
def _(layer: keras.layers.ReLU, shape: Any, order: Any) -> Part:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        raise refused(layer, "it is not the plain ReLU")
    return Part(nn.ReLU(), order=order)


@part_of.register
def _(layer: keras.layers.Activation, shape: Any, order: Any) -> Part:
    return Part(nn.Identity(), order=order)


@part_of.register
def _(layer: keras.layers.Dropout, shape: Any, order: Any) -> Part:
    return Part(nn.Dropout(layer.rate), order=order)


@part_of.register
def _(layer: keras.layers.Add, shape: Any, order: Any) -> Part:
    if order is not None:
        raise refused(layer, "it adds what was flattened")
    return Part(_Add())


def is_rectified(layer: Any) -> bool:
    """Says whether a layer ends in a ReLU of its own.

    Raises:
        ValueError: If it ends in another activation.
    """
    activation = getattr(layer, "activation", None)
    if activation in (None, keras.activations.linear):
        return False
    if activation is keras.activations.relu:
        return True
    raise refused(layer, f"its activation is {activation.__name__}")


def _padding(
    layer: Any, sizes: Sequence[int], shape: Sequence[int]
) -> tuple[int, ...]:
    """Returns what Keras adds around an input, as `pad` of PyTorch takes it.

    That is (left, right) of the last axis first. For `"same"`, the outputs are
    input / stride, rounded up, and an odd number of zeros has more at the end.
    """
    if layer.padding not in ("valid", "same"):
        raise refused(layer, f"its padding is {layer.padding!r}")
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
        raise refused(layer, "its channels are not last")


def _array(weight: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(weight), np.float32)


def _fill(own: Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        own.copy_(torch.from_numpy(np.array(values, order="C")))


def refused(layer: Any, reason: str) -> ValueError:
    """Returns the error for a layer that has no counterpart."""
    return ValueError(
        f"A twin of layer {layer.name!r} ({type(layer).__name__}) cannot be "
        f"made: {reason}. Use Dense, Conv1D, Conv2D, MaxPooling, Flatten, "
        "GlobalAveragePooling, BatchNormalization, ReLU, Add and Dropout, "
        "each called once."
    )
