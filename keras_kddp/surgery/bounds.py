"""What the numbers of a tensor lie between."""

from typing import NamedTuple

import numpy as np

_MARGIN = 1e-5


class Bounds(NamedTuple):
    """What the numbers of a tensor lie between, at inference.

    Attributes:
        low: (channels,) float64, or () for all alike; may be -inf.
        high: (channels,) float64, or () for all alike; may be inf.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> "Bounds":
        """Returns the bounds of what lies between two arrays, NaN open."""
        low, high = np.minimum(first, second), np.maximum(first, second)
        return cls(
            np.where(np.isnan(low), -np.inf, low),
            np.where(np.isnan(high), np.inf, high),
        )

    def widened(self, magnitude: np.ndarray | float = 0.0) -> "Bounds":
        """Returns bounds with a margin for sums that float32 rounds.

        Args:
            magnitude: Of what was added up besides the bounds themselves.
        """
        finite = [
            np.abs(np.nan_to_num(end, posinf=0, neginf=0)) for end in self
        ]
        margin = _MARGIN * (np.maximum(*finite) + magnitude)
        return Bounds(self.low - margin, self.high + margin)

    def merged(self) -> "Bounds":
        """Returns the bounds of all channels together."""
        return Bounds(np.array(self.low.min()), np.array(self.high.max()))


UNBOUNDED = Bounds(np.array(-np.inf), np.array(np.inf))
