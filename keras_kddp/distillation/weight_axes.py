"""How weights of examples and positions meet the axes of other values."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_kddp.model_io import Tensor


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Returns the mean of values, each times its factor.

    Args:
        values: (batch, ...), one for each position.
        weight: None, (batch,), or with further axes: where they are not those
            of the positions, their mean counts for the example.
    """
    if weight is not None:
        weight = keras.ops.cast(weight, values.dtype)
        if not _fits(weight, values.shape):
            weight = of_examples(weight, None, values.dtype)
        values = values * on_axes(weight, len(values.shape))
    return keras.ops.mean(values)


def on_axes(weight: Tensor, rank: int) -> Tensor:
    """Returns weights with `rank` axes, of length 1 where they lack some.

    Args:
        weight: (batch, ...).
        rank: Of the values to multiply by it; axes of length 1 at the end are
            dropped where the weights have more.
    """
    while len(weight.shape) > rank and weight.shape[-1] == 1:
        weight = keras.ops.squeeze(weight, axis=-1)
    while len(weight.shape) < rank:
        weight = keras.ops.expand_dims(weight, axis=-1)
    return weight


def fitting(
    feature: Tensor, weight: Tensor, mask: Tensor | None, output: Tensor
) -> Tensor:
    """Returns a weight as it is, or for each example where it must be.

    Args:
        feature: (batch, ..., channels), of the positions to weigh.
        weight: (batch, ...), of the output's positions.
        mask: Steps of the output that are no padding, (batch, steps), or None.
        output: (batch, ...).
    """
    # A dataset may leave sizes open that the output knows.
    known = (*output.shape, *weight.shape[len(output.shape) :])
    shape = [a or b for a, b in zip(weight.shape, known, strict=False)]
    positions = feature.shape[:-1]
    if not _fits(shape, positions):
        return of_examples(weight, mask, feature.dtype)
    pairs = list(zip(shape, positions, strict=False))[1:]
    unknown = [
        axis
        for axis, (size, other) in enumerate(pairs, start=1)
        if size != 1 and None in (size, other)
    ]
    if not unknown:
        return weight
    return _fitting_at_run_time(feature, weight, mask, unknown)


def _fitting_at_run_time(
    feature: Tensor, weight: Tensor, mask: Tensor | None, axes: Sequence[int]
) -> Tensor:
    """Returns `fitting` where axes have sizes that no trace knows."""
    dtype = keras.backend.result_type(feature.dtype, "float32")
    weight = on_axes(keras.ops.cast(weight, dtype), len(feature.shape) - 1)
    sizes, others = keras.ops.shape(weight), keras.ops.shape(feature)
    fits = [
        keras.ops.logical_or(
            keras.ops.equal(sizes[axis], others[axis]),
            keras.ops.equal(sizes[axis], 1),
        )
        for axis in axes
    ]
    mean = of_examples(weight, mask, dtype)
    return keras.ops.cond(
        keras.ops.all(keras.ops.stack(fits)),
        lambda: weight,
        lambda: on_axes(mean, len(weight.shape)),
    )


def _fits(weight: Any, positions: Sequence[int | None]) -> bool:
    """Says whether weights belong to the first axes of some positions.

    Sizes that are not known, while a step is traced, are taken to fit.
    """
    shape = list(getattr(weight, "shape", weight))
    while len(shape) > len(positions) and shape[-1] == 1:
        shape.pop()
    return len(shape) <= len(positions) and all(
        b is None or a in (b, 1, None)
        for a, b in zip(shape[1:], positions[1:], strict=False)
    )


def of_examples(weight: Tensor, mask: Tensor | None, dtype: str) -> Tensor:
    """Returns the mean weight of each example, padding left out: (batch,).

    Args:
        weight: (batch, ...).
        mask: Steps that are no padding, (batch, steps), or None.
        dtype: Of the result, if it is float32 at least.
    """
    dtype = keras.backend.result_type(dtype, "float32")
    weight = keras.ops.cast(weight, dtype)
    if len(weight.shape) < 2:
        return weight
    valid = keras.ops.ones_like(weight)
    if mask is not None:
        mask = keras.ops.cast(mask, dtype)
        rank = len(mask.shape)
        weight, valid = on_axes(weight, rank), on_axes(valid, rank)
        valid *= on_axes(mask, len(valid.shape))
    axes = tuple(range(1, len(weight.shape)))
    return keras.ops.divide_no_nan(
        keras.ops.sum(weight * valid, axis=axes),
        keras.ops.sum(valid, axis=axes),
    )
