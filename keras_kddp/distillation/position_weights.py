"""How much each position of a batch counts in a distillation loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_kddp import _compat
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
        list of outputs, nor does it broadcast a factor on each example.
        """
        if self.is_shared and not self._is_masked:
            return self.weights[0]
        weights = [
            weight
            if weight is None or mask is None
            else _broadcast(weight, mask)
            for weight, mask in zip(self.weights, self.masks, strict=True)
        ]
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
            return _fitting(feature, *parts[0])
        each = [
            _of_examples(
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
            weight = _of_examples(weight, None, values.dtype)
        values = values * _broadcast(weight, values)
    return keras.ops.mean(values)


def _by_output(
    sample_weight: Arrays, y_pred: Arrays, names: Sequence[str]
) -> list[Tensor | None]:
    """Returns the weight of each flat output."""
    count = len(keras.tree.flatten(y_pred))
    if not keras.tree.is_nested(sample_weight):
        return [sample_weight] * count
    places: Any = dict(zip(names, range(count), strict=False))
    if isinstance(y_pred, Mapping) and len(y_pred) == count:
        places = keras.tree.pack_sequence_as(y_pred, [*range(count)])
    if isinstance(sample_weight, Mapping) and set(sample_weight) <= set(places):
        found: list[Tensor | None] = [None] * count
        for name, weight in sample_weight.items():
            found[places[name]] = weight
        return found
    flat = keras.tree.flatten(sample_weight)
    return flat if len(flat) == count else flat[:1] * count


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
    weight = _broadcast(keras.ops.cast(weight, dtype), factor)
    return weight * _expanded(factor, len(weight.shape))


def _fitting(
    feature: Tensor, weight: Tensor, mask: Tensor | None, output: Tensor
) -> Tensor:
    """Returns a weight as it is, or for each example where it must be."""
    # A dataset may leave sizes open that the output knows.
    known = (*output.shape, *weight.shape[len(output.shape) :])
    shape = [a or b for a, b in zip(weight.shape, known, strict=False)]
    if _fits(shape, feature.shape[:-1]):
        return weight
    return _of_examples(weight, mask, feature.dtype)


def _fits(weight: Any, positions: Sequence[int | None]) -> bool:
    """Says whether weights belong to the first axes of some positions.

    Sizes that are not known, while a step is traced, are taken to fit.
    """
    shape = list(getattr(weight, "shape", weight))
    while len(shape) > len(positions) and shape[-1] == 1:
        shape.pop()
    return len(shape) <= len(positions) and all(
        a in (b, 1, None)
        for a, b in zip(shape[1:], positions[1:], strict=False)
    )


def _of_examples(weight: Tensor, mask: Tensor | None, dtype: str) -> Tensor:
    """Returns the mean weight of each example, padding left out: (batch,)."""
    dtype = keras.backend.result_type(dtype, "float32")
    weight = keras.ops.cast(weight, dtype)
    if len(weight.shape) < 2:
        return weight
    valid = keras.ops.ones_like(weight)
    if mask is not None:
        mask = keras.ops.cast(mask, dtype)
        weight, valid = _broadcast(weight, mask), _broadcast(valid, mask)
        valid *= _expanded(mask, len(valid.shape))
    axes = tuple(range(1, len(weight.shape)))
    return keras.ops.divide_no_nan(
        keras.ops.sum(weight * valid, axis=axes),
        keras.ops.sum(valid, axis=axes),
    )


def _broadcast(weight: Tensor, values: Tensor) -> Tensor:
    """Returns weights with the axes of values, of length 1 where they lack."""
    while len(weight.shape) > len(values.shape) and weight.shape[-1] == 1:
        weight = keras.ops.squeeze(weight, axis=-1)
    return _expanded(weight, len(values.shape))


def _expanded(weight: Tensor, rank: int) -> Tensor:
    while len(weight.shape) < rank:
        weight = keras.ops.expand_dims(weight, axis=-1)
    return weight
