"""The rows that calibrate, checked before they do."""

import warnings
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from keras_kddp.data.batches import evenly_spaced
from keras_kddp.export.model.samples import arrange_inputs
from keras_kddp.export.model.signature import input_signature
from keras_kddp.model_io import Array, Arrays

_PIXEL_SLACK = 1 / 512  # half a step of a byte
CALIBRATED = ("int8", "int16x8")
"""Quantizations that need a calibration."""


def warn_of_other_pixels(rows: Mapping[str, Array]) -> None:
    """Warns where bytes would not stand for pixels / 255.

    Args:
        rows: What calibrates, by the name of the input.
    """
    for name, array in rows.items():
        low, high = float(array.min()), float(array.max())
        if abs(low) > _PIXEL_SLACK or abs(high - 1) > _PIXEL_SLACK:
            warnings.warn(
                f"A byte of input '{name}' will not stand for itself / 255: "
                f"the calibration spans {low:g} to {high:g}, not 0 to 1. Use "
                "the scale and the zero point of the file, or calibrate with "
                "rows that hold both a 0 and a 1.",
                stacklevel=3,
            )


def calibration_rows(
    model: keras.Model, calibration: Arrays, samples: int
) -> dict[str, Array]:
    """Returns evenly spaced rows by the name of the input in the file.

    Args:
        model: The model.
        calibration: Its inputs, as `to_tflite` takes them.
        samples: At most so many rows are returned.

    Raises:
        ValueError: If they do not fit the model, or one is not finite.
    """
    inputs = input_signature(model)
    arrays = arrange_inputs(calibration, inputs, name="calibration")
    chosen = evenly_spaced(len(arrays[0]), samples)
    rows = {
        entry.name: array[chosen]
        for entry, array in zip(inputs, arrays, strict=True)
    }
    check_finite(rows.values())
    return rows


def check_finite(arrays: Iterable[Array]) -> None:
    """Refuses inputs from which no range can be found.

    Raises:
        ValueError: If one holds NaN or infinity.
    """
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(
            "`calibration` must be finite. Received: NaN or infinity. Clean "
            "the data first."
        )
