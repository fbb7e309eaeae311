"""Sums of activations, with a gradient that costs little."""

from typing import Any

import keras

from keras_kddp.model_io import Tensor


def _upstream(args: tuple[Tensor, ...], upstream: Any) -> tuple[Tensor, Tensor]:
    """Returns the two incoming gradients, as each backend hands them over."""
    if upstream is None:
        upstream = args[0] if len(args) == 1 else args
    first, second = upstream
    return first, second


def pair_with_sum(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns values >= 0 and their sum.

    The gradients of both are added in place: derived automatically, that of
    the sum is a tensor of its own, which a convolutional student feels in
    every step (`benchmarks/step_overhead.py`).
    """
    if keras.backend.backend() == "torch":  # takes one output only
        return values, keras.ops.sum(values)

    @keras.ops.custom_gradient
    def measured(values: Tensor) -> Any:
        def gradient(*args: Tensor, upstream: Any = None) -> Tensor:
            of_values, of_sum = _upstream(args, upstream)
            return of_values + of_sum

        return (values, keras.ops.sum(values)), gradient

    return measured(values)


def pair_with_absolute_sum(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns values and the sum of their magnitudes; see `pair_with_sum`."""
    if keras.backend.backend() == "torch":
        return values, keras.ops.sum(keras.ops.abs(values))

    @keras.ops.custom_gradient
    def measured(values: Tensor) -> Any:
        def gradient(*args: Tensor, upstream: Any = None) -> Tensor:
            of_values, of_sum = _upstream(args, upstream)
            return of_values + of_sum * keras.ops.sign(values)

        return (values, keras.ops.sum(keras.ops.abs(values))), gradient

    return measured(values)


def pair_with_magnitude(
    values: Tensor, mask: Tensor | None, non_negative: bool
) -> tuple[Tensor, Tensor]:
    """Returns values and the sum of the magnitudes that a mask leaves.

    Args:
        values: Of any shape, float32 or float64.
        mask: None, or what `aligned_mask` returns for them.
        non_negative: Says that no value is below 0.
    """
    measure = pair_with_sum if non_negative else pair_with_absolute_sum
    if mask is None:
        return measure(values)
    zero = keras.ops.zeros((), values.dtype)
    return values, measure(keras.ops.where(mask, values, zero))[1]


def count_positions(values: Tensor, mask: Tensor | None, axis: int) -> Tensor:
    """Returns over how many positions the mean of a unit runs.

    Args:
        values: (batch, ..., units), float32 or float64.
        mask: None, or what `aligned_mask` returns for them.
        axis: The axis of the units.

    Returns:
        Scalar in the dtype of `values`; 1 where a mask leaves nothing.
    """
    if mask is None:
        size = keras.ops.cast(keras.ops.size(values), values.dtype)
        return size / values.shape[axis]
    of_one_unit = keras.ops.ones_like(keras.ops.take(values, [0], axis))
    number = keras.ops.sum(of_one_unit * keras.ops.cast(mask, values.dtype))
    return keras.ops.maximum(number, 1)


def aligned_mask(mask: Tensor, values: Tensor, axis: int) -> Tensor:
    """Returns a mask that broadcasts over values.

    Args:
        mask: Bool of the leading axes of `values`, without that of the units.
        values: (batch, ..., units).
        axis: The axis of the units.
    """
    rank = len(values.shape)
    mask = keras.ops.cast(mask, "bool")
    if axis % rank < len(mask.shape):
        mask = keras.ops.expand_dims(mask, axis % rank)
    while len(mask.shape) < rank:
        mask = keras.ops.expand_dims(mask, -1)
    return mask
