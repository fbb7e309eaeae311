"""How much a unit matters, as a score in [0, 1]: plain functions."""

from collections.abc import Callable

import keras
import numpy as np

from keras_kddp.pruning.activity import UnitActivity

Criterion = Callable[[UnitActivity, np.ndarray], np.ndarray]

_PACKAGE = "keras_kddp"


@keras.saving.register_keras_serializable(package=_PACKAGE)
def never_active(
    activity: UnitActivity, outgoing_norm: np.ndarray
) -> np.ndarray:
    """Scores 0 the units that never fired, 1 all others.

    The criterion of the paper (Şener & Akbaş 2022).

    Args:
        activity: Statistics of a layer's units.
        outgoing_norm: Not used.

    Returns:
        (units,) float64.
    """
    del outgoing_norm
    return activity.live.astype("float64")


@keras.saving.register_keras_serializable(package=_PACKAGE)
def contribution(
    activity: UnitActivity, outgoing_norm: np.ndarray
) -> np.ndarray:
    """Scores a unit by what it sends on, relative to the layer's largest.

    `mean |a_j| * ||w_j||`, divided by its maximum over the layer: the
    activity alone tells little, since the next layer can grow to make up for
    a penalty on it.

    Args:
        activity: Statistics of a layer's units.
        outgoing_norm: (units,) Euclidean norm of the weights that read each
            unit.

    Returns:
        (units,) float64 in [0, 1]; all 0 where nothing is sent on, NaN where
        an activation was.
    """
    return _relative(activity.mean_abs * outgoing_norm)


@keras.saving.register_keras_serializable(package=_PACKAGE)
def mean_activity(
    activity: UnitActivity, outgoing_norm: np.ndarray
) -> np.ndarray:
    """Scores a unit by its mean activity, relative to the layer's largest.

    `mean |a_j|`, divided by its maximum over the layer.

    Args:
        activity: Statistics of a layer's units.
        outgoing_norm: Not used.

    Returns:
        (units,) float64 in [0, 1]; all 0 where no unit is active, NaN where
        an activation was.
    """
    del outgoing_norm
    return _relative(activity.mean_abs)


@keras.saving.register_keras_serializable(package=_PACKAGE)
def zero_fraction(
    activity: UnitActivity, outgoing_norm: np.ndarray
) -> np.ndarray:
    """Scores a unit by how often it fires: `1 - APoZ`.

    APoZ is the average percentage of zeros (Hu et al. 2016, arXiv
    1607.03250).

    Args:
        activity: Statistics of a layer's units.
        outgoing_norm: Not used.

    Returns:
        (units,) float64 in [0, 1].
    """
    del outgoing_norm
    return 1 - activity.zero_fraction


def _relative(values: np.ndarray) -> np.ndarray:
    """Returns values >= 0 as shares of the largest."""
    largest = values.max()
    return np.zeros_like(values) if largest == 0 else values / largest


CRITERIA: dict[str, tuple[Criterion, float]] = {
    "never_active": (never_active, 0.0),
    "mean_activity": (mean_activity, 0.01),
    "zero_fraction": (zero_fraction, 0.01),
    "contribution": (contribution, 0.02),
}
"""Criterion and default threshold by name."""


def resolved_criterion(
    criterion: str | Criterion,
) -> tuple[Criterion, float]:
    """Returns a criterion and its default threshold.

    Args:
        criterion: Its name, or a function of one's own.

    Raises:
        ValueError: If it is neither.
    """
    if callable(criterion):
        return criterion, 0.0
    if not isinstance(criterion, str) or criterion not in CRITERIA:
        raise ValueError(
            f"`criterion` must be one of {sorted(CRITERIA)} or a function. "
            f"Received: criterion={criterion!r}."
        )
    return CRITERIA[criterion]
