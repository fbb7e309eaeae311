"""How large a model is: parameters, work and memory, layer by layer."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp._compat import CallNode
from keras_kddp.model_io import Tensor
from keras_kddp.text_table import aligned

TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_MULTIPLYING = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
    *TRANSPOSED,
)


@dataclass(frozen=True)
class LayerProfile:
    """One layer, over all its calls.

    Attributes:
        name: The layer's name.
        class_name: Its class.
        parameters: Weights it has.
        macs: Multiply-accumulate operations for one example.
        activation_bytes: Size of its largest output for one example.
    """

    name: str
    class_name: str
    parameters: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class ModelProfile:
    """A model, for one example; `str()` is a table.

    Attributes:
        layers: Its layers, inputs first, those of nested models included.
        parameters: Weights, as the plain model has them.
        macs: Multiply-accumulate operations of Dense layers and convolutions;
            other layers count as 0.
        activation_bytes: The largest inputs and output of one operation
            together, in the dtypes of the Keras model.
    """

    layers: tuple[LayerProfile, ...]
    parameters: int
    macs: int
    activation_bytes: int

    def __str__(self) -> str:
        """Returns one line per layer, and the totals."""
        rows = [
            ("layer", "class", "parameters", "MACs", "output bytes"),
            *(
                (
                    layer.name,
                    layer.class_name,
                    f"{layer.parameters:,}",
                    f"{layer.macs:,}",
                    f"{layer.activation_bytes:,}",
                )
                for layer in self.layers
            ),
            ("total", "", f"{self.parameters:,}", f"{self.macs:,}", ""),
        ]
        lines = [line.rstrip() for line in aligned(rows, left=2)]
        peak = f"activation memory  {self.activation_bytes:,} bytes"
        return "\n".join([*lines, peak])


def profile(model: keras.Model) -> ModelProfile:
    """Returns how large a model is.

    Args:
        model: A built Sequential or Functional model.

    Returns:
        Parameters, multiply-accumulates and activation memory for one
        example. Dimensions of unknown size count as 1.

    Raises:
        ValueError: If the model has no graph of layers.
    """
    if not isinstance(model, keras.Model) or not _has_graph(model):
        raise ValueError(
            "`model` must be a built Sequential or Functional model. "
            f"Received: {type(model).__name__}."
        )
    calls = list(_calls(model))
    by_layer: dict[int, list[CallNode]] = {}
    for call in calls:
        if isinstance(call.operation, keras.layers.Layer):
            by_layer.setdefault(id(call.operation), []).append(call)
    layers = tuple(_layer_profile(found) for found in by_layer.values())
    return ModelProfile(
        layers,
        count_parameters(model),
        sum(layer.macs for layer in layers),
        max(_bytes(*call.inputs, *call.outputs) for call in calls),
    )


def count_parameters(model: keras.Model) -> int:
    """Returns the number of weights of a model, as its plain result has them.

    Args:
        model: A built model; the strengths of activity penalties do not
            count, since `keras_kddp.finalize` takes them out.
    """
    return sum(
        int(np.prod(weight.shape))
        for weight in model.weights
        if weight.name != "penalty_strength"
    )


def _has_graph(model: Any) -> bool:
    return _compat.functional_graph(model) is not None


def _calls(model: keras.Model) -> Iterator[CallNode]:
    for call in _compat.call_nodes(model):
        nested = call.operation
        if isinstance(nested, keras.Model) and _has_graph(nested):
            yield from _calls(nested)
        else:
            yield call


def _layer_profile(calls: list[CallNode]) -> LayerProfile:
    layer: Any = calls[0].operation
    return LayerProfile(
        layer.name,
        type(layer).__name__,
        count_parameters(layer),
        sum(map(_macs, calls)),
        max(_bytes(*call.outputs) for call in calls),
    )


def _macs(call: CallNode) -> int:
    """Returns kernel entries times the positions that they are applied at."""
    positions = multiplied_positions(call)
    if not positions:
        return 0
    return positions * sum(
        math.prod(weight.shape)
        for weight in call.operation.weights
        if is_kernel(weight)
    )


def is_kernel(weight: keras.Variable) -> bool:
    """Says whether the entries of a weight are multiplied with inputs."""
    return str(weight.name).endswith("kernel")


def multiplied_positions(call: CallNode) -> int:
    """Returns how often a call multiplies each kernel entry, for one example.

    0 for what is neither a Dense layer nor a convolution.
    """
    layer: Any = call.operation
    if not isinstance(layer, _MULTIPLYING):
        return 0
    tensors = call.inputs if isinstance(layer, TRANSPOSED) else call.outputs
    shape = tensors[0].shape[1:]
    is_first = getattr(layer, "data_format", "") == "channels_first"
    return num_entries(shape[1:] if is_first else shape[:-1])


def _bytes(*tensors: Tensor) -> int:
    """Returns the memory of symbolic tensors, for one example."""
    return sum(
        num_entries(tensor.shape[1:]) * _item_bytes(tensor.dtype)
        for tensor in tensors
    )


def _item_bytes(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)  # "float32", "bfloat16"; "bool" has none
    return max(int(bits[0]) // 8, 1) if bits else 1


def num_entries(shape: tuple[int | None, ...]) -> int:
    """Returns the size of a shape; unknown dimensions count as 1."""
    return math.prod(size or 1 for size in shape)
