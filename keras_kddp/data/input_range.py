"""Whether inputs lie where those of the training did."""

import warnings

import keras
import numpy as np

from keras_kddp.model_io import Arrays

Range = tuple[float, float]

_FACTOR = 8  # 255 against 1 is far above, other samples are far below


def input_range(x: Arrays) -> Range:
    """Returns the smallest and the largest number in some inputs.

    Args:
        x: An array, or a dict or list of arrays.
    """
    leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(x)]
    return (
        float(min(leaf.min() for leaf in leaves)),
        float(max(leaf.max() for leaf in leaves)),
    )


def warn_of_other_range(seen: Range, given: Arrays, name: str) -> None:
    """Warns about inputs that were scaled in another way.

    Args:
        seen: Range of the inputs that the model knows.
        given: Other inputs for it.
        name: What the warning calls them.
    """
    low, high = input_range(given)
    size, known = max(abs(low), abs(high)), max(map(abs, seen))
    if known / _FACTOR <= size <= known * _FACTOR:
        return
    warnings.warn(
        f"`{name}` must be scaled like the training inputs, which span "
        f"{seen[0]:.4g} to {seen[1]:.4g}. Received {low:.4g} to {high:.4g}. "
        "Divide uint8 images by 255 if the training did "
        "(npz:FILE,scale=255).",
        stacklevel=3,
    )
