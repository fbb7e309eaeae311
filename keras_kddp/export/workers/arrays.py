"""Arrays on their way to a worker's process and back, in .npz files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_kddp.model_io import Array


def write_arrays(path: str | Path, arrays: Mapping[Any, Array]) -> None:
    """Writes arrays into an .npz file, each under its key as a text.

    Args:
        path: The file.
        arrays: By any key but "file", which NumPy takes for itself.
    """
    named: dict[str, Any] = {str(name): part for name, part in arrays.items()}
    np.savez(path, **named)


def read_arrays(path: str | Path) -> dict[str, Array]:
    """Returns the arrays of an .npz file by name."""
    with np.load(path) as file:
        return dict(file)
