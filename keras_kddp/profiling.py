"""How large a model is."""

import keras
import numpy as np


def count_parameters(model: keras.Model) -> int:
    """Returns the number of weights of a model, as its plain result has them.

    Args:
        model: A built model; the strengths of activity penalties do not
            count, since `keras_kddp.finalize` takes them out.
    """
    return sum(
        int(np.prod(weight.shape))
        for weight in model.weights
        if weight.name != "penalty_strength"
    )
