"""How a layer class says what it does to channels."""

from collections.abc import Callable
from enum import IntEnum

import keras
import numpy as np

from keras_kddp.model_io import Tensor
from keras_kddp.surgery.bounds import UNBOUNDED, Bounds
from keras_kddp.surgery.channels import Call, Channels, Labels, describe

Values = np.ndarray  # (channels,) float64, NaN where a channel varies


class Precision(IntEnum):
    """How a constant in training agrees with the same one at inference."""

    EXACT = 0
    NEARLY = 1  # and the better, the longer the training
    ON_AVERAGE = 2  # over the noise that is drawn while training


class NotFoldableError(Exception):
    """Says why a constant cannot become part of a consumer's bias.

    Attributes:
        closest: Returns the increments of the bias, (units,), that come
            closest, and how far they are off at most before the activation;
            None where nothing comes close.
    """

    def __init__(
        self,
        reason: str,
        closest: Callable[[], tuple[np.ndarray, float]] | None = None,
    ) -> None:
        """Keeps the reason and the way to an approximation."""
        super().__init__(reason)
        self.closest = closest


class Rule:
    """What one layer class does to channels.

    Subclass it and register the subclass with `register_rule`.

    Attributes:
        channelwise: The call keeps every channel and every position where it
            is and depends on nothing else, so that the activity of a unit may
            be observed behind it.
        elementwise: Each number of the output depends on one number of the
            input, so that the layer may serve as an activation.
        monotone: It rises with its input everywhere, or falls everywhere.
        one_input: It knows nothing of a second tensor; a mask is none.
        ends_observation: The activity is observed right behind this layer.
        is_noise: It is random in training, and hands on at inference.
        keeps_signs: Its noise makes no number of one sign out of the other.
    """

    channelwise = False
    elementwise = False
    monotone = False
    one_input = False
    ends_observation = False
    is_noise = False
    keeps_signs = False

    def flow(self, call: Call) -> Labels | Channels:
        """Notes what the call does.

        Returns:
            The labels along the last axis of the output, or its `Channels`.
        """
        return call.block(
            f"{describe(call.operation)} has a rule that lets nothing through"
        )

    def constant(
        self, call: Call, values: list[Values], training: bool
    ) -> Values:
        """Returns what constant input channels are behind the call.

        Args:
            call: The call.
            values: One array per symbolic input; NaN where a channel varies.
            training: The mode the value is asked for.

        Returns:
            One value per output channel; NaN where it varies or is unknown.
        """
        del training
        if self.channelwise and not call.takes_mask:
            return replay(call, values)
        return np.full(len(call.output.labels), np.nan)

    def precision(self, call: Call, values: list[Values]) -> np.ndarray | int:
        """Returns how exact what `constant` says of training is.

        Args:
            call: The call.
            values: What `constant` is given.

        Returns:
            A `Precision` per output channel, or one for all. What the inputs
            lack in it need not be counted again.
        """
        del call, values
        return Precision.EXACT

    def keeps_means(self, call: Call) -> bool:
        """Says whether noise on the input leaves the mean of the output.

        So it does in what is linear: the mean is then what `constant` makes
        of the mean of the input.
        """
        del call
        return False

    def fold(self, call: Call, values: Values) -> Values | None:
        """Returns what constant inputs add to this layer's bias.

        Args:
            call: The call.
            values: The constants, zero for channels that stay.

        Returns:
            One increment per unit, or None for a layer that does not read
            channels.

        Raises:
            NotFoldableError: If a bias cannot express it.
        """
        del call, values
        return None

    def bounds(self, call: Call, inputs: list[Bounds]) -> Bounds:
        """Returns what the output lies between, for inputs within bounds.

        Args:
            call: The call.
            inputs: Bounds of each symbolic input.

        Returns:
            Bounds that hold for every such input; `UNBOUNDED` where unknown.
        """
        if not self.monotone or len(inputs) != 1 or call.takes_mask:
            return UNBOUNDED
        ends = [replay(call, [np.atleast_1d(end)]) for end in inputs[0]]
        return Bounds.of(*ends)


def float64_value(variable: keras.Variable) -> np.ndarray:
    """Returns a variable's value in float64."""
    return np.asarray(
        keras.ops.convert_to_numpy(variable.value), dtype="float64"
    )


def replay(call: Call, values: list[Values]) -> Values:
    """Runs a channelwise call on one position that holds `values`.

    Returns:
        (channels of the output,); NaN where it varies or is not finite.
    """
    node = call.node
    tensors = {
        id(symbol): _one_position(symbol, value, channels.axis)
        for symbol, value, channels in zip(
            call.tensors, values, call.channels, strict=True
        )
    }
    args, kwargs = keras.tree.map_structure(
        lambda leaf: tensors.get(id(leaf), leaf), (node.args, node.kwargs)
    )
    # `call`, not `__call__`: no new nodes in the user's graph. The scope
    # catches the losses and the state that a layer of the user may write; a
    # scope around it may say what its weights are taken to be.
    weights = getattr(node.operation, "variables", ())
    with keras.StatelessScope([(weight, weight.value) for weight in weights]):
        output = node.operation.call(*args, **kwargs)
    result = np.array(
        keras.ops.convert_to_numpy(output), dtype="float64"
    ).reshape(-1)
    for value in values:  # a comparison would hide what varies
        varies = np.isnan(value) if len(value) else np.True_
        result[np.broadcast_to(varies, result.shape)] = np.nan
    return np.where(np.isfinite(result), result, np.nan)


def _one_position(symbol: Tensor, value: Values, axis: int | None) -> Tensor:
    """Returns a tensor of one example and position; NaN where all varies."""
    shape = [1] * len(symbol.shape)
    if len(value) == 0:
        value = np.full(1, np.nan)
    if shape:
        shape[-1 if axis is None else axis] = -1
    return keras.ops.convert_to_tensor(value.reshape(shape), dtype=symbol.dtype)
