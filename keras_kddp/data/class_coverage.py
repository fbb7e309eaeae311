"""Which classes a split has no example of."""

import warnings

import keras
import numpy as np

from keras_kddp.data.splits import Split
from keras_kddp.model_io import Array

_SHOWN = 8


def warn_of_missing_classes(
    name: str, split: Split, model: keras.Model
) -> None:
    """Warns of classes that a model answers and a split has no example of.

    Args:
        name: What the warning calls the split.
        split: Class numbers that were checked against the model.
        model: A built classifier.
    """
    for numbers, output in zip(
        keras.tree.flatten(split.y), model.outputs, strict=True
    ):
        count = output.shape[-1]
        missing = np.setdiff1d(np.arange(count), numbers)
        if len(missing):
            warnings.warn(
                f"`{name}` has no example of {naming(missing)}, of {count}: "
                "accuracies on it say nothing of them. Shuffle the data before "
                "they are split, or split them by class.",
                stacklevel=5,
            )


def naming(classes: Array) -> str:
    """Returns class numbers in words, such as "classes 3 and 7".

    Args:
        classes: At least one class number, (classes,).
    """
    shown = [str(each) for each in classes[:_SHOWN].tolist()]
    if len(classes) > _SHOWN:
        return f"classes {', '.join(shown)} and {len(classes) - _SHOWN} more"
    if len(shown) == 1:
        return f"class {shown[0]}"
    return f"classes {', '.join(shown[:-1])} and {shown[-1]}"
