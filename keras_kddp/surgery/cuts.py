"""What a removal cuts: weights, and the arguments that count channels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_kddp.model_io import Tensor
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.rebuild import Config

Slices = Mapping[int, tuple[int, ...]]  # axis -> kept indices


def take(value: np.ndarray, axes: Slices) -> np.ndarray:
    """Returns the kept part of an array.

    Args:
        value: Any array.
        axes: Axis -> kept indices.
    """
    for axis, kept in axes.items():
        value = np.take(value, kept, axis=axis)
    return value


def kept_slices(
    graph: ChannelGraph, gone: np.ndarray
) -> Mapping[str, Mapping[str, Slices]]:
    """Returns what stays of the weights that lose entries.

    Args:
        graph: The channels of the model.
        gone: (labels,) bool: whether a label's group leaves.

    Returns:
        Layer name -> weight name -> axis -> kept indices.
    """
    slices: dict[str, dict[str, dict[int, tuple[int, ...]]]] = {}
    for name, axes in graph.records.slices.items():
        for (variable, axis), labels in axes.items():
            if gone[labels].any():
                kept = tuple(np.flatnonzero(~gone[labels]).tolist())
                by_axis = slices.setdefault(name, {}).setdefault(variable, {})
                by_axis[axis] = kept
    return slices


def kept_channels(
    graph: ChannelGraph, removed: Mapping[str, tuple[int, ...]], tensor: Tensor
) -> list[int]:
    """Returns which entries of a tensor's last axis stay.

    Args:
        graph: The channels of the model.
        removed: Layer name -> indices of the units that go.
        tensor: Symbolic tensor of the graph.
    """
    channels = graph.channels.get(id(tensor))
    last = len(tensor.shape) - 1
    if channels is None or channels.axis != last:
        return list(range(tensor.shape[-1]))
    gone = {
        int(graph.group_numbers[graph.units[name][unit]])
        for name, units in removed.items()
        for unit in units
    }
    groups = graph.group_numbers[channels.labels].tolist()
    return [i for i, group in enumerate(groups) if group not in gone]


def new_arguments(
    graph: ChannelGraph, gone: np.ndarray
) -> Mapping[str, Mapping[str, Any]]:
    """Returns the config arguments that count other channels afterwards.

    Args:
        graph: The channels of the model.
        gone: (labels,) bool: whether a label's group leaves.

    Returns:
        Layer name -> config argument -> its value without these channels.
    """
    arguments: dict[str, dict[str, Any]] = {}
    for name, counted in graph.records.arguments.items():
        for (argument, position), labels in counted.items():
            if not gone[labels].any():
                continue
            kept: Any = int((~gone[labels]).sum())
            if position is not None:
                value = list(getattr(graph.operation(name), argument))
                value[position] = kept
                kept = tuple(value)
            arguments.setdefault(name, {})[argument] = kept
    return arguments


def forget_arrays(config: Config) -> None:
    """Replaces a layer's initializers that hold arrays: of the old shape.

    Args:
        config: Of the layer; changed in place.
    """
    for key, value in config.items():
        if not key.endswith("_initializer") or not isinstance(value, dict):
            continue
        given = value.get("config", {})
        if any(isinstance(x, (dict, list)) for x in given.values()):
            config[key] = "zeros"  # the weights are assigned afterwards
