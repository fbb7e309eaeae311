"""Whether two forms of one model compute the same."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_kddp.export.errors import ExportError
from keras_kddp.export.model.signature import infer, input_signature
from keras_kddp.model_io import Array

TOLERANCE = 1e-5
"""Largest difference of an output, relative to the largest, at least 1."""

_SAMPLES = 8


def samples_of(model: keras.Model) -> list[Array]:
    """Returns a few random inputs of a model, one array per input.

    Returns:
        Arrays (samples, ...) of the inputs' dtypes, numbers in [0, 1); of
        strings, such numbers as text.
    """
    generator = np.random.default_rng(0)
    return [
        generator.random((_SAMPLES, *entry.shape)).astype(
            "U4" if entry.dtype == "string" else entry.dtype
        )
        for entry in input_signature(model)
    ]


def outputs_of(model: keras.Model, inputs: Sequence[Array]) -> list[Array]:
    """Returns the flat outputs of a model at inference, (samples, ...)."""
    return [keras.ops.convert_to_numpy(part) for part in infer(model, inputs)]


def check_same(
    wanted: Sequence[Array], found: Sequence[Array], between: str
) -> None:
    """Checks that two models put out the same.

    Args:
        wanted: Outputs of the one, (samples, ...).
        found: Outputs of the other.
        between: What the two are, the beginning of a sentence.

    Raises:
        ExportError: If shapes differ, or values by more than 1e-5 of the
            largest.
    """
    for first, second in zip(wanted, found, strict=True):
        if first.shape != second.shape:
            raise ExportError(
                f"{between} must put out the same shapes. Received: "
                f"{first.shape} and {second.shape}. Please report it, with "
                "the model."
            )
        scale = max(1.0, float(np.abs(first).max()))
        gap = float(np.abs(first - second).max())
        if not gap <= TOLERANCE * scale:
            raise ExportError(
                f"{between} must compute the same. Received outputs that "
                f"differ by {gap:.2g} of {scale:.2g}. Please report it, "
                "with the model."
            )
