"""The inputs and outputs of a .tflite file, and what their numbers mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kddp.data.input_range import Range
from keras_kddp.model_io import Array


@dataclass(frozen=True)
class Tensor:
    """An input or an output.

    Attributes:
        name: In the file's signature.
        position: Among the file's inputs or outputs, which stand in the
            converter's own order.
        shape: With the batch of 1.
        dtype: Name of the dtype that is stored.
        scale: `real = scale * (stored - zero_point)`; None where what is
            stored is the real number itself.
        zero_point: What stands for 0.
    """

    name: str
    position: int
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int

    @property
    def range(self) -> Range | None:
        """The lowest and the highest number that can be stored, if quantized.

        None otherwise.
        """
        if self.scale is None:
            return None
        limits = np.iinfo(self.dtype)
        low, high = int(limits.min), int(limits.max)
        zero = self.zero_point
        return self.scale * (low - zero), self.scale * (high - zero)

    def check(self, values: Array) -> None:
        """Refuses samples that are not of this tensor.

        Raises:
            ValueError: If shape or dtype do not fit.
        """
        dtype = np.dtype(self.dtype if self.scale is None else "float32")
        fits = np.can_cast(values.dtype, dtype, "same_kind")
        if values.shape[1:] != self.shape[1:] or not fits:
            raise ValueError(
                f"`inputs` must hold {dtype.name} of shape "
                f"{('samples', *self.shape[1:])} for {self.name!r}. Received: "
                f"{values.dtype} of shape {values.shape}. Convert the data "
                "as the model was trained on it."
            )

    def stored(self, values: Array) -> Array:
        """Returns real numbers as the file stores them."""
        if self.scale is None:
            return values.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.rint(values.astype(np.float32) / self.scale)
        steps += self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def real(self, values: Array) -> Array:
        """Returns what the file stores as real numbers, in float32."""
        numbers = values.astype(np.float32)
        if self.scale is None:
            return numbers
        return (self.scale * (numbers - self.zero_point)).astype(np.float32)


def tensors_of(listed: list[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Returns tensors by name from what a worker said about them."""
    return {
        part["name"]: Tensor(**{**part, "shape": tuple(part["shape"])})
        for part in listed
    }


def quantization_of(tensors: Sequence[Tensor], dtypes: Sequence[str]) -> str:
    """Returns what was done to the numbers of a file, as `to_tflite` says it.

    Args:
        tensors: Its inputs and outputs.
        dtypes: Names of all dtypes inside.
    """
    ends = {tensor.dtype for tensor in tensors if tensor.scale is not None}
    if ends:
        return "int16x8" if "int16" in ends else "int8"
    if "int4" in dtypes:
        return "int4"
    if "int8" in dtypes:
        return "dynamic"
    return "float16" if "float16" in dtypes else "none"
