"""Which steps of an observed tensor are padding that nothing sees."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp._compat import CallNode
from keras_kddp.model_io import Array, Tensor
from keras_kddp.surgery.graph import ChannelGraph

layers = keras.layers

_STEP_BY_STEP = (
    layers.Concatenate,
    layers.Dense,
    layers.Dropout,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
)
_NORMALIZING = (layers.LayerNormalization, layers.UnitNormalization)
_MIXING_STEPS = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_LEAVING_STEPS_OUT = (layers.GlobalAveragePooling1D, layers.RNN)


class Sight(NamedTuple):
    """Where steps are looked at that may be masked.

    Attributes:
        tensor: Symbolic tensor, (batch, steps, ...); Keras attaches its mask
            to its value.
        mask: The symbolic mask that the call there is given; None where it
            finds it on the tensor.
    """

    tensor: Tensor
    mask: Tensor | None


class Padding:
    """Tells which steps of observed tensors anything can see.

    A step that a mask leaves out at some layer is still seen there by whatever
    reads the tensor without its mask, such as Flatten or a convolution. So a
    step is padding where every reader works step by step, up to a layer that
    leaves masked steps out (GlobalAveragePooling1D, a recurrent layer) or up
    to an output of the model, whose losses leave them out.
    """

    def __init__(self, graph: ChannelGraph, tensors: Iterable[Tensor]) -> None:
        """Follows observed tensors to where their steps are looked at.

        Args:
            graph: The channels of the model.
            tensors: Symbolic tensors of the graph.
        """
        self._graph = graph
        self._readers: dict[int, list[CallNode]] = {}
        for node in graph.nodes:
            for key in {id(x) for x in node.inputs}:
                self._readers.setdefault(key, []).append(node)
        rules = zip(graph.nodes, graph.rules, strict=True)
        self._keeps_steps = {
            id(node.outputs[0]): _keeps_steps(node, rule.channelwise)
            for node, rule in rules
        }
        self._sights = {id(x): self._sights_of(x) for x in tensors}

    @property
    def tensors(self) -> list[Tensor]:
        """The symbolic tensors whose values `seen` asks for."""
        found = {
            id(tensor): tensor
            for sights in self._sights.values()
            for sight in sights
            for tensor in sight
            if tensor is not None
        }
        return list(found.values())

    def seen(self, tensor: Tensor, values: Mapping[int, Tensor]) -> Any:
        """Returns which steps of an observed tensor count in a batch.

        Args:
            tensor: One of the observed tensors.
            values: `id(symbolic tensor)` -> its value, for this tensor and
                all `tensors`.

        Returns:
            (batch, steps) bool, or of more leading axes; None where all count.
        """
        found = [
            self._mask_of(sight, values) for sight in self._sights[id(tensor)]
        ]
        masks = [mask for mask in found if mask is not None]
        shape = tuple(values[id(tensor)].shape)[:-1]
        fit = [
            1 < mask.ndim and mask.shape == shape[: mask.ndim] for mask in masks
        ]
        if not masks or len(masks) < len(found) or not all(fit):
            return None
        if len({mask.ndim for mask in masks}) > 1:
            return None
        return np.logical_or.reduce(masks)

    def _mask_of(
        self, sight: Sight, values: Mapping[int, Tensor]
    ) -> Array | None:
        mask = (
            _compat.keras_mask(values[id(sight.tensor)])
            if sight.mask is None
            else values[id(sight.mask)]
        )
        if mask is None:
            return None
        return keras.ops.convert_to_numpy(mask).astype(bool)

    def _sights_of(self, tensor: Tensor) -> list[Sight]:
        """Returns all that looks at an observed tensor's steps.

        Empty where something looks at them all, or no mask can be.
        """
        axis = self._graph.channels[id(tensor)].axis
        if len(tensor.shape) < 3 or axis == 1:
            return []
        outputs = {id(x) for x in self._graph.outputs}
        sights, following = [], [tensor]
        while following:
            current = following.pop()
            if id(current) in outputs:
                sights.append(Sight(current, None))
            for node in self._readers.get(id(current), ()):
                if self._passes(node, current):
                    following.append(node.outputs[0])
                elif _leaves_steps_out(node, current):
                    sights.append(Sight(current, node.kwargs.get("mask")))
                else:
                    return []
        is_masked = all(x.mask is not None for x in sights)
        return sights if is_masked or self._graph.masked else []

    def _passes(self, node: CallNode, tensor: Tensor) -> bool:
        """Says whether a step of the output depends on that of the tensor."""
        before, after = tuple(tensor.shape), tuple(node.outputs[0].shape)
        return (
            len(node.outputs) == 1
            and len(before) == len(after)
            and all(
                None in sizes or sizes[0] == sizes[1]
                for sizes in zip(before[:2], after[:2], strict=True)
            )
            and self._keeps_steps[id(node.outputs[0])]
        )


def _keeps_steps(node: CallNode, is_channelwise: bool) -> bool:
    """Says whether a call works on each step by itself, at inference."""
    operation, rank = node.operation, len(node.outputs[0].shape)
    if isinstance(operation, layers.Concatenate):
        return operation.axis % rank > 1
    if isinstance(operation, _NORMALIZING):
        axes = np.ravel(operation.axis) % rank
        return bool((axes > 1).all())
    return isinstance(operation, _STEP_BY_STEP) or (
        is_channelwise and not isinstance(operation, _MIXING_STEPS)
    )


def _leaves_steps_out(node: CallNode, tensor: Tensor) -> bool:
    """Says whether a call reads a tensor's steps, except those masked."""
    operation = node.operation
    if isinstance(operation, layers.Bidirectional):
        operation = operation.forward_layer
    is_sequence = bool(node.args) and node.args[0] is tensor
    rest = [x for x in node.inputs if x is not node.kwargs.get("mask")]
    return (
        is_sequence
        and sum(x is tensor for x in rest) == 1
        and isinstance(operation, _LEAVING_STEPS_OUT)
    )
