"""Activations and their sum, with a gradient that costs little."""

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
