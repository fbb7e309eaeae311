"""Calibration."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_kddp.data.batches import evenly_spaced
from keras_kddp.export.model.samples import arrange_inputs
from keras_kddp.export.model.signature import input_signature

_PIXEL_SLACK = 1 / 512  # half a step of a byte


CALIBRATED = ("int8", "int16x8")


"""Those that need a calibration."""


def _warn_of_other_pixels(rows: Mapping[str, Any]) -> None:
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
    model: keras.Model, calibration: Any, samples: int
) -> dict[str, Any]:
    """Returns evenly spaced rows by the name of the input in the file."""
    inputs = input_signature(model)
    arrays = arrange_inputs(calibration, inputs, name="calibration")
    chosen = evenly_spaced(len(arrays[0]), samples)
    rows = {
        entry.name: array[chosen]
        for entry, array in zip(inputs, arrays, strict=True)
    }
    if not all(np.isfinite(array).all() for array in rows.values()):
        raise ValueError(
            "`calibration` must be finite. Received: NaN or infinity. Clean "
            "the data first."
        )
    return rows
