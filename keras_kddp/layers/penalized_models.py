"""The penalties in a model: found, checked and moved."""

from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.layers.penalties import (
    ActivityPenalty,
    ActivityRegularizedDense,
    PenaltyMixin,
)
from keras_kddp.surgery.calls import layers_by_path
from keras_kddp.surgery.graph import ChannelGraph


def penalty_layers(model: keras.Model) -> list[Any]:
    """Returns a model's layers that charge for activity, nested ones too."""
    found = layers_by_path(model).values()
    return [x for x in found if isinstance(x, PenaltyMixin)]


def check_penalties(model: keras.Model) -> None:
    """Checks that every penalty stands in the graph of the model.

    Raises:
        ValueError: If one is inside a wrapper or a subclassed model, where no
            schedule moves it, or is of a subclass, which could not be taken
            out again.
    """
    own = penalty_layers(model)
    for layer in _compat.all_layers(model):
        if not isinstance(layer, PenaltyMixin):
            continue
        if all(layer is not other for other in own):
            raise ValueError(
                "Penalties must be layers of the student itself. Received "
                f"'{layer.name}' inside a wrapper or a subclassed model. Move "
                "it out."
            )
        if type(layer) not in (ActivityPenalty, ActivityRegularizedDense):
            raise ValueError(
                "Penalties must be ActivityPenalty or ActivityRegularizedDense"
                f" layers. Received '{layer.name}' of the subclass "
                f"{type(layer).__name__}. Use the class itself."
            )


def set_penalty_strength(model: keras.Model, strength: float) -> None:
    """Sets the strength of every penalty in a model.

    Args:
        model: A prepared student.
        strength: Factor on each layer's `l1`, in [0, 1].
    """
    for layer in penalty_layers(model):
        layer.strength.assign(strength)


PENALTIES = (ActivityPenalty, ActivityRegularizedDense)


def prepared_layers(graph: ChannelGraph) -> list[str]:
    """Returns the layers with removable units whose activity is penalized."""
    return [
        name
        for name in graph.removable_layers()
        if all(
            isinstance(graph.maker(tensor).operation, PENALTIES)
            for tensor in graph.observation_points(name)
        )
    ]
