"""The layers that charge a student for the activity of its units."""

from numbers import Real
from typing import Any

import keras

from keras_kddp.layers.summing import (
    aligned_mask,
    count_positions,
    pair_with_magnitude,
)
from keras_kddp.model_io import Tensor, wide_dtype
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rules.channelwise import IdentityRule
from keras_kddp.surgery.rules.mixing import DenseRule

_PACKAGE = "keras_kddp"


class PenaltyMixin(keras.layers.Layer):
    """Charges `strength * l1 * sum over units of mean |a|` while training."""

    def _start_penalty(self, l1: float) -> None:
        self.l1 = validated_l1(l1)
        # float32 at least, and never autocast: a half-precision sum of
        # activations overflows.
        dtype = wide_dtype(self.variable_dtype)
        self.strength = self.add_weight(
            name="penalty_strength",
            shape=(),
            dtype=dtype,
            initializer="ones",
            trainable=False,
            autocast=False,
        )

    def _charge(
        self,
        activations: Tensor,
        mask: Tensor | None,
        *,
        non_negative: bool,
        axis: int = -1,
    ) -> Tensor:
        """Adds the charge and returns the activations to go on with."""
        dtype = wide_dtype(activations.dtype)
        wide = keras.ops.cast(activations, dtype)
        if mask is not None:
            mask = aligned_mask(mask, wide, axis)
        passed, total = pair_with_magnitude(wide, mask, non_negative)
        means_of = count_positions(wide, mask, axis)
        strength = keras.ops.cast(self.strength, dtype)
        self.add_loss(strength * self.l1 * total / means_of)
        return passed if dtype == activations.dtype else activations

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's config with the charge."""
        return {**super().get_config(), "l1": self.l1}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class ActivityPenalty(PenaltyMixin):
    """Identity that charges for the activity of the units it sees.

    Adds `strength * l1 * sum_j mean(|a_j|)` to the model's losses while
    training; the mean runs over the batch and all positions, so that `l1`
    means the same for Dense and convolutions and for any batch size. Positions
    that a Keras mask leaves out are not counted; a batch of padding costs 0.
    This is the L1 activity regularization of Şener & Akbaş (2022),
    doi 10.29109/gujsc.1141648, with a strength that a schedule can move.

    Args:
        l1: Charge for a mean activity of 1, a number >= 0.
        non_negative: Says that the inputs come out of a ReLU; the same charge
            is then computed faster. `prepare` sets it where that is so.
        axis: The axis of the units; 1 behind a channels_first convolution.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        strength: Scalar variable, 1 at first; `keras_kddp.DynamicPruning`
            moves it between 0 and 1 without retracing.

    Input and output shape: both `(batch, ..., units)`, units on `axis`.

    Raises:
        ValueError: If `l1` is negative or not finite.

    Example:
        ```python
        keras.Sequential([
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(16, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras_kddp.layers.ActivityPenalty(l1=1e-2),
        ])
        ```
    """

    def __init__(
        self,
        l1: float = 1e-2,
        *,
        non_negative: bool = False,
        axis: int = -1,
        **kwargs: Any,
    ) -> None:
        """Sets the charge."""
        super().__init__(**kwargs)
        self.non_negative = non_negative
        self.axis = axis
        self._start_penalty(l1)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Has nothing to build: the strength exists from the start."""
        self.built = True

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Returns `inputs`; charges for them while training.

        Args:
            inputs: (batch, ..., units), any float.
            training: Says whether to charge.
            mask: None, or bool of leading axes, the units' left out, such as
                (batch, steps): False is not counted.
        """
        if training:
            return self._charge(
                inputs, mask, non_negative=self.non_negative, axis=self.axis
            )
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "non_negative": self.non_negative,
            "axis": self.axis,
        }


@keras.saving.register_keras_serializable(package=_PACKAGE)
class ActivityRegularizedDense(PenaltyMixin, keras.layers.Dense):
    """Dense whose units are charged for their activity.

    The same as `keras.layers.Dense` followed by `ActivityPenalty`.

    Args:
        units: Number of units.
        activation: Activation, `"relu"` by default: a unit that is switched
            off can be removed.
        l1: Charge for a mean activity of 1, a number >= 0.
        use_bias: See `keras.layers.Dense`, like all that follow.
        kernel_initializer: Initializer of the kernel.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: A further Keras regularizer of the output.
        kernel_constraint: Constraint of the kernel.
        bias_constraint: Constraint of the bias.
        lora_rank: Rank of LoRA weights; they block surgery.
        lora_alpha: Scale of LoRA weights.
        quantization_config: Configuration of `quantize`; it blocks surgery.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        strength: Scalar variable, 1 at first; moved by
            `keras_kddp.DynamicPruning`.

    Input shape: `(batch, ..., features)`. Output shape:
    `(batch, ..., units)`.

    Raises:
        ValueError: If `l1` is negative or not finite.

    Example:
        ```python
        keras.Sequential([
            keras.Input((784,)),
            keras_kddp.layers.ActivityRegularizedDense(800, l1=5e-3),
            keras.layers.Dense(10),
        ])
        ```
    """

    def __init__(
        self,
        units: int,
        activation: Any = "relu",
        l1: float = 1e-2,
        *,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> None:
        """Sets up the Dense layer and its charge."""
        super().__init__(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            quantization_config=quantization_config,
            **kwargs,
        )
        self._start_penalty(l1)

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Returns the activations; charges for them while training.

        Takes (batch, ..., features) of any float and returns (batch, ...,
        units). Where `mask`, bool of leading axes, is False nothing is paid.
        """
        outputs = super().call(inputs, training=training)
        if training:
            return self._charge(outputs, mask, non_negative=is_relu(self))
        return outputs

    def save_own_variables(self, store: Any) -> None:
        """Saves the strength beside the variables that Dense names."""
        super().save_own_variables(store)
        store["strength"] = self.strength

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved."""
        super().load_own_variables(store)
        self.strength.assign(store["strength"])


@register_rule(ActivityPenalty)
class _ActivityPenaltyRule(IdentityRule):
    """What is penalized is what is observed."""

    ends_observation = True


@register_rule(ActivityRegularizedDense)
class _ActivityRegularizedDenseRule(DenseRule):
    """What is penalized is what is observed."""

    ends_observation = True


def is_relu(operation: Any) -> bool:
    """Says whether a layer or raw operation ends in a ReLU."""
    if isinstance(operation, keras.layers.ReLU):
        return not operation.negative_slope
    if not isinstance(operation, keras.layers.Layer):
        return type(operation).__name__ in ("Relu", "Relu6")
    relus = (keras.activations.relu, keras.activations.relu6)
    return any(getattr(operation, "activation", None) is f for f in relus)


def validated_l1(l1: float) -> float:
    """Returns `l1` as a float.

    Raises:
        ValueError: If it is negative or not finite.
    """
    is_number = isinstance(l1, Real) and not isinstance(l1, bool)
    if not is_number or not 0 <= l1 < 3.4e38:  # of float32
        raise ValueError(
            "`l1` must be a finite number >= 0 that float32 holds (try 0.01). "
            f"Received: l1={l1!r}."
        )
    return float(l1)
