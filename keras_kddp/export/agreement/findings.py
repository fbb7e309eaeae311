"""What is found about one output of a file, in one comparable value."""

import math
from dataclasses import dataclass

import numpy as np

from keras_kddp.model_io import Array, which_count


@dataclass(frozen=True)
class Finding:
    """One output of a file on a runtime, against Keras.

    Attributes:
        error: What counts of its errors, relative.
        tolerance: The largest of it that passes.
        text: Where the error is, a sentence; empty where there is none.
        agreement: Share of equal classes; None for what is no class scores.
        minimum: The smallest that passes; None where the error alone counts.
    """

    error: float
    tolerance: float
    text: str
    agreement: float | None = None
    minimum: float | None = None

    @property
    def excess(self) -> float:
        """The error divided by its tolerance; infinite where it is NaN."""
        return _quotient(self.error, self.tolerance)

    @property
    def class_excess(self) -> float:
        """The share of other classes divided by what passes; -1 without any.

        Where the error alone counts, every share passes.
        """
        if self.agreement is None:
            return -1.0
        least = 0.0 if self.minimum is None else self.minimum
        return _quotient(1 - self.agreement, 1 - least)

    @property
    def severity(self) -> float:
        """The larger excess of what counts."""
        if self.minimum is None:
            return self.excess
        return max(self.excess, self.class_excess)


def gaps_of(found: Array, wanted: Array, valid: Array) -> Array:
    """Returns absolute differences in float64, 0 at padding.

    Args:
        found: Outputs of a runtime, (samples, ...).
        wanted: Keras' own, finite.
        valid: Whether a position is no padding, (samples, ..., 1). What is not
            finite counts there, too.
    """
    gaps = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    return np.where(valid | ~np.isfinite(gaps), gaps, 0.0)


def valid_positions(output: Array, mask: Array | None) -> Array:
    """Returns which positions of an output are no padding, (samples, ..., 1).

    Args:
        output: Keras' own, (samples, ...).
        mask: The steps that are no padding, (samples, steps), or None.
    """
    if output.ndim == 1:
        return which_count(output.shape, mask)
    return which_count(output.shape[:-1], mask)[..., None]


def not_finite(place: str, gaps: Array, tolerance: float) -> Finding | None:
    """Returns that some values are no numbers; None where all are.

    Args:
        place: The output, in words.
        gaps: Of all values.
        tolerance: What would pass.
    """
    wrong = int((~np.isfinite(gaps)).sum())
    if not wrong:
        return None
    return Finding(
        math.nan if np.isnan(gaps).any() else math.inf,
        tolerance,
        f"{place}: NaN or infinity in {wrong:,} of {gaps.size:,} values",
    )


def relative(gaps: Array, scales: Array | float) -> Array:
    """Returns gaps divided by scales: 0 / 0 is 0, others / 0 infinite."""
    scales = np.broadcast_to(scales, gaps.shape)
    of_nothing = np.where(gaps > 0, math.inf, 0.0)
    return np.divide(gaps, scales, out=of_nothing, where=scales > 0)


def percent(share: float) -> str:
    """Returns a share in percent, such as "2.5 %"."""
    return f"{100 * share:.3g} %"


def _quotient(value: float, limit: float) -> float:
    if not math.isfinite(value):
        return math.inf
    if limit > 0:
        return value / limit
    return math.inf if value > 0 else 0.0
