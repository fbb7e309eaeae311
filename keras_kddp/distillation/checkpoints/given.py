"""What was given to a `fit`, to tell whether another one is given the same."""

from typing import Any

import keras
import numpy as np

from keras_kddp._compat.running import arguments_of_fit
from keras_kddp.data.packing import plain_inputs
from keras_kddp.distillation.checkpoints.identity import describe

_ROLES = ("x", "y", "sample_weight")
_PLAIN = (bool, int, float, str, np.generic)


def describe_given(model: keras.Model) -> dict[str, Any]:
    """Returns what the `fit` that calls was given; nothing outside of one.

    Arrays by their sums. What cannot be read twice, such as a generator or a
    `tf.data.Dataset`, is left out; so are packed teacher outputs, which may
    differ in their last bits where they are computed again.

    Args:
        model: The model that is trained.
    """
    found = {}
    for name, value in arguments_of_fit(model).items():
        if name == "validation_data" and isinstance(value, (tuple, list)):
            value = dict(zip(_ROLES, value, strict=False))
            value["x"] = plain_inputs(value.get("x"))
        elif name == "x":
            value = plain_inputs(value)
        found[name] = describe(keras.tree.map_structure(_readable, value))
    return found


def _readable(leaf: Any) -> Any:
    """Returns a number, text or array; None for what cannot be read twice."""
    if isinstance(leaf, (*_PLAIN, np.ndarray)):
        return leaf
    if hasattr(leaf, "iloc"):  # of pandas
        return np.asarray(leaf)
    is_dense = keras.ops.is_tensor(leaf) and hasattr(leaf, "__array__")
    return keras.ops.convert_to_numpy(leaf) if is_dense else None
