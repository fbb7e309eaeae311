"""The layers that charge a student for the activity of its units."""

from keras_kddp.layers.penalties import (
    ActivityPenalty,
    ActivityRegularizedDense,
)

__all__ = ["ActivityPenalty", "ActivityRegularizedDense"]
