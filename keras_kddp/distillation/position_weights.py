"""How much each position of a batch counts in a distillation loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras

from keras_kddp import _compat
from keras_kddp.distillation.by_output import by_output, keys_of_outputs
from keras_kddp.distillation.weight_axes import fitting, of_examples, on_axes
from keras_kddp.model_io import Arrays, Tensor


@dataclass(frozen=True)
class PositionWeights:
    """The sample weights of a batch, without its padding.

    Steps that Keras masks count nothing, and the mean is over the others, as
    in Keras' own losses: those weigh `steps / valid steps`.

    Attributes:
        structure: The student's outputs.
        weights: A sample weight or None for each flat output.
        masks: Its steps that are no padding, or None.
        is_shared: One weight, or none, was given for all outputs.
    """

    structure: Arrays
    weights: Sequence[Tensor | None]
    masks: Sequence[Tensor | None]
    is_shared: bool

    @classmethod
    def of(
        cls, sample_weight: Arrays, y_pred: Arrays, names: Sequence[str]
    ) -> "PositionWeights":
        """Returns the weights of a batch.

        Args:
            sample_weight: None, a factor on each example or position, or a
                structure of them by output.
            y_pred: The student's outputs, which carry their masks.
            names: Of the flat outputs.

        Raises:
            ValueError: If the structure is not that of the outputs.
        """
        return cls(
            y_pred,
            _by_output(sample_weight, y_pred, names),
            [*map(_compat.keras_mask, keras.tree.flatten(y_pred))],
            not keras.tree.is_nested(sample_weight),
        )

    def of_labels(self) -> Arrays:
        """Returns the weights as the compiled loss takes them.

        It looks for the masks itself, but not for what a dict means beside a
        list of outputs, nor does it broadcast a factor on each example over
        its steps.
        """
        outputs = keras.tree.flatten(self.structure)
        parts = zip(self.weights, self.masks, outputs, strict=True)
        weights = [_of_label(*part) for part in parts]
        if self.is_shared and all(each is self.weights[0] for each in weights):
            return self.weights[0]
        return self._arranged(weights)

    def of_outputs(self) -> Arrays:
        """Returns the factors for a loss that compares outputs.

        None, one factor for all outputs, or a structure like the outputs.
        """
        if self.is_shared and not self._is_masked:
            return self.weights[0]
        outputs = keras.tree.flatten(self.structure)
        parts = zip(self.weights, self.masks, outputs, strict=True)
        return self._arranged([_without_padding(*part) for part in parts])

    def of_feature(self, feature: Tensor, *masks: Tensor | None) -> Tensor:
        """Returns the factors for a loss that compares a layer.

        Weights of positions that the layer does not have, such as pixels, are
        averaged to one for each example; so are those of several outputs.

        Args:
            feature: The student's, (batch, ..., channels).
            *masks: Of the layer in both models: steps that either masks are
                padding.
        """
        present = [mask for mask in masks if mask is not None]
        mask = present[0] if present else None
        for other in present[1:]:
            mask = keras.ops.logical_and(mask, other)
        return _without_padding(self._weight_of(feature), mask, feature)

    @property
    def _is_masked(self) -> bool:
        return any(mask is not None for mask in self.masks)

    def _weight_of(self, feature: Tensor) -> Tensor | None:
        outputs = keras.tree.flatten(self.structure)
        parts = list(zip(self.weights, self.masks, outputs, strict=True))
        if self.is_shared:
            parts = parts[:1]
        if all(weight is None for weight, _, _ in parts):
            return None
        if len(parts) == 1:
            return fitting(feature, *parts[0])
        each = [
            of_examples(
                keras.ops.ones_like(output) if weight is None else weight,
                mask,
                feature.dtype,
            )
            for weight, mask, output in parts
        ]
        return keras.ops.mean(keras.ops.stack(each), axis=0)

    def _arranged(self, weights: list[Tensor | None]) -> Arrays:
        if not keras.tree.is_nested(self.structure):
            return weights[0]
        return keras.tree.pack_sequence_as(self.structure, weights)


def _by_output(
    sample_weight: Arrays, y_pred: Arrays, names: Sequence[str]
) -> list[Tensor | None]:
    """Returns the weight of each flat output.

    Raises:
        ValueError: If they do not fit the outputs.
    """
    count = len(keras.tree.flatten(y_pred))
    if not keras.tree.is_nested(sample_weight):
        return [sample_weight] * count
    weights = by_output(sample_weight, y_pred, names)
    if weights is None or any(map(keras.tree.is_nested, weights)):
        received = (
            f"the keys {list(sample_weight)}"
            if isinstance(sample_weight, Mapping)
            else f"{len(sample_weight)} of them"
        )
        raise ValueError(
            "`sample_weight` must be one array, or one for each output in a "
            f"list or dict. Received: {received} for the {count} outputs "
            f"{keys_of_outputs(y_pred, names)}. Name the outputs, or give one "
            "array."
        )
    return weights


def _of_label(
    weight: Tensor | None, mask: Tensor | None, output: Tensor
) -> Tensor | None:
    """Returns a weight that Keras multiplies the losses of an output by."""
    if weight is None:
        return None
    if mask is not None:
        return on_axes(weight, len(mask.shape))
    # Keras multiplies (batch, steps) by (batch, 1) but by no (batch,). For
    # images, a loss may well have one value per example: only Keras can tell.
    is_of_steps = len(output.shape) == 3 and len(weight.shape) == 1
    return on_axes(weight, 2) if is_of_steps else weight


def _without_padding(
    weight: Tensor | None, mask: Tensor | None, values: Tensor
) -> Tensor | None:
    """Returns factors whose mean is over the valid steps, 0 in the others."""
    if mask is None:
        return weight
    dtype = keras.backend.result_type(values.dtype, "float32")
    valid = keras.ops.cast(mask, dtype)
    steps = keras.ops.cast(keras.ops.size(valid), dtype)
    factor = valid * keras.ops.divide_no_nan(steps, keras.ops.sum(valid))
    if weight is None:
        return factor
    weight = on_axes(keras.ops.cast(weight, dtype), len(factor.shape))
    return weight * on_axes(factor, len(weight.shape))
