"""What Keras' own distillation losses are worth on the steps that count."""

from typing import Any

import keras

from keras_kddp.distillation.weight_axes import on_axes, weighted_mean
from keras_kddp.model_io import Arrays, Tensor

_STOCK = (
    keras.distillation.FeatureDistillation,
    keras.distillation.LogitsDistillation,
)


def is_stock(loss: Any) -> bool:
    """Says whether a distillation loss is Keras' own, not a subclass."""
    return type(loss) in _STOCK


def stock_loss(
    loss: Any, teacher: Arrays, student: Arrays, weights: Arrays
) -> Tensor:
    """Returns the value of a stock loss with a factor on each position.

    Its `compute_loss` takes no factors and would count padding.

    Args:
        loss: A `LogitsDistillation` or `FeatureDistillation`; holds a function
            or loss object, or a structure of them by output.
        teacher: What it compares.
        student: What it compares with.
        weights: Factors for each of its tensors, or one for all.

    Returns:
        Scalar.
    """
    temperature = getattr(loss, "temperature", 1.0)
    total: Tensor = 0.0
    compared = keras.tree.flatten(loss.loss)
    factors = keras.tree.flatten(weights)
    if len(factors) == 1:
        factors *= len(compared)
    pairs = map(keras.tree.flatten, (teacher, student))
    for compare, *tensors, weight in zip(
        compared, *pairs, factors, strict=True
    ):
        if compare is None:
            continue
        first, second = (tensor / temperature for tensor in tensors)
        is_divergence = isinstance(compare, keras.losses.KLDivergence)
        if is_divergence and hasattr(loss, "temperature"):
            first, second = map(keras.ops.softmax, (first, second))
            scale = temperature**2
        else:
            scale = 1.0
        if isinstance(compare, keras.losses.Loss):
            rank = len(first.shape) - 1
            weight = None if weight is None else on_axes(weight, rank)
            value = compare(first, second, sample_weight=weight)
            total += scale * keras.ops.mean(value)
        else:
            total += weighted_mean(compare(first, second), weight)
    return total
