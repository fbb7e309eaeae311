"""Masks: which arguments of a call are one, and which tensors carry one.

Keras hands masks to layers in two ways. Some calls have theirs among their
arguments, as a symbolic tensor. All others find it on the tensor that they
are called with, and only when the model runs: behind a nested model, inside
one, or where a call has other arguments too.
"""

import inspect
from typing import Any, NamedTuple

import keras

from keras_kddp._compat import CallNode
from keras_kddp.model_io import Tensor

_WITHOUT_MASK = (
    keras.layers.GlobalAveragePooling1D.compute_mask,
    keras.layers.Dot.compute_mask,
)
_SAME_TENSOR = ("Cast", "SaturateCast", "ConvertToTensor")  # for its own dtype


class ReadTensors(NamedTuple):
    """What a call reads.

    Attributes:
        data: The symbolic tensors that it computes with, in their order.
        masks: Those that only say which steps count.
        given: What it gets as masks, one by one; None where there is none.
    """

    data: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    given: list[Any]


def read_tensors(node: CallNode) -> ReadTensors:
    """Returns what a call reads, masks apart from all else."""
    if not isinstance(node.operation, keras.layers.Layer):
        return ReadTensors(node.inputs, (), [])
    names = _parameters(node.operation)
    names += [""] * len(node.args)  # of `*args`
    named = [*zip(names, node.args, strict=False), *node.kwargs.items()]
    rest = [value for name, value in named if not _is_mask(name)]
    given = [value for name, value in named if _is_mask(name)]
    given = keras.tree.flatten(given)
    return ReadTensors(_symbolic(rest), _symbolic(given), given)


def takes_mask(operation: Any) -> bool:
    """Says whether a layer looks at the mask of what it is called with."""
    is_layer = isinstance(operation, keras.layers.Layer)
    return is_layer and any(map(_is_mask, _parameters(operation)))


def carries_mask(operation: Any, *, reads_mask: bool) -> bool:
    """Says whether what an operation returns may carry a mask.

    Args:
        operation: A layer or raw operation.
        reads_mask: Whether what it is called with may carry one.
    """
    kind = type(operation)
    if not isinstance(operation, keras.layers.Layer):
        return reads_mask and kind.__name__ in _SAME_TENSOR
    if isinstance(operation, (keras.layers.Masking, keras.Model)):
        return True
    if isinstance(operation, keras.layers.Lambda):
        return bool(operation.supports_masking)  # may compute one
    is_from_keras = kind.__module__.startswith("keras.")
    if is_from_keras and isinstance(operation, keras.layers.Embedding):
        return bool(operation.mask_zero)
    is_vector = not getattr(operation, "return_sequences", True)
    if is_vector or kind.compute_mask in _WITHOUT_MASK:
        return False
    if isinstance(operation, keras.layers.InputLayer):
        return reads_mask
    if is_from_keras:
        return reads_mask and bool(operation.supports_masking)
    is_own = kind.compute_mask is not keras.layers.Layer.compute_mask
    return reads_mask or is_own


def called_input(node: CallNode, tensor: Tensor, mask: Any) -> CallNode:
    """Returns the call of a nested model's InputLayer.

    Args:
        node: The InputLayer, without arguments.
        tensor: What its model is called with.
        mask: The mask of that; None where the call names none.
    """
    kwargs = {} if mask is None else {"mask": mask}
    inputs = _symbolic([tensor, mask])
    return node._replace(args=(tensor,), kwargs=kwargs, inputs=inputs)


class _MaskedInput(keras.layers.Layer):
    """Hands an input on with the mask that its model is called with."""

    def __init__(self) -> None:
        super().__init__(name="masked_input", autocast=False)
        self.supports_masking = True

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns a copy, since the tensor may have a mask of its own."""
        del mask
        return keras.ops.copy(inputs)


def with_mask(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Returns a tensor with the mask that a nested model is called with."""
    return tensor if mask is None else _MaskedInput()(tensor, mask=mask)


def _is_mask(name: str) -> bool:
    return name == "mask" or name.endswith("_mask")


def _parameters(operation: Any) -> list[str]:
    return list(inspect.signature(operation.call).parameters)


def _symbolic(structure: Any) -> tuple[Tensor, ...]:
    return tuple(
        leaf
        for leaf in keras.tree.flatten(structure)
        if isinstance(leaf, keras.KerasTensor)
    )
