"""Outputs that are numbers: each feature is judged against its own range."""

import numpy as np

from keras_kddp.export.agreement.findings import (
    Finding,
    gaps_of,
    not_finite,
    percent,
    relative,
    valid_positions,
)
from keras_kddp.export.agreement.limits import (
    ROUNDING,
    TOLERANCES,
    float_noise,
    outliers,
)
from keras_kddp.export.tflite.calibration import CALIBRATED
from keras_kddp.model_io import Array

FEWEST_FOR_RANGE = 3
"""Fewest values of a feature that show its range."""

_FEW = 10  # fewer values than these do not show the whole range
_NO_RANGE = 1e-6  # of the output's largest value: the noise of float32
_MOST_NOISE = 0.1  # of a range: more is no noise
_SMALL = 0.2  # of the output's largest value: a range that one scale may ruin


class Features:
    """An output of numbers that stand for themselves.

    A feature is an entry of the last axis, its values those of all samples and
    positions; what has no other axis than the samples is one feature. Its
    scale is its own range. Fewer than 10 values show not all of it, so that
    their largest counts if it is larger; of 1 or 2 it is the largest value of
    the whole output. What does not vary is held to the range of those that
    do, or to its own value.

    Args:
        name: Of the output.
        wanted: What Keras puts out, (samples, ..., features).
        mask: The steps that are no padding, (samples, steps), or None.
        least_scale: No scale is smaller: of probabilities, which a file
            cannot tell apart below its steps, and which nobody needs to.

    Attributes:
        scales: What a feature's errors are compared with, (features,).
        size: The largest absolute value.
        count: Number of values of each feature.
    """

    def __init__(
        self,
        name: str,
        wanted: Array,
        mask: Array | None = None,
        least_scale: float = 0.0,
    ) -> None:
        self._name = name
        self._wanted = wanted
        self._valid = valid_positions(wanted, mask)
        kept = _by_feature(wanted)[self._valid.ravel()].astype(np.float64)
        self.count = len(kept)
        if not self.count:  # padding is all there is
            kept = np.zeros((1, kept.shape[1]))
        self._lowest, self._highest = kept.min(axis=0), kept.max(axis=0)
        own = self._own = np.abs(kept).max(axis=0)
        self.size = max(float(own.max()), least_scale)
        spans = self._highest - self._lowest
        self._is_constant = spans <= _NO_RANGE * self.size
        scales = np.maximum(spans, own) if self.count < _FEW else spans
        level = np.maximum(own, spans.max())
        scales = np.where(self._is_constant, level, scales)
        if self.count < FEWEST_FOR_RANGE:
            scales = np.full_like(own, self.size)
        self.scales = np.maximum(scales, least_scale)
        self._is_range = (self.scales == spans) & ~self._is_constant

    def gaps(self, found: Array) -> Array:
        """Returns absolute differences of a runtime's output, by feature.

        Args:
            found: (samples, ..., features).

        Returns:
            (values, features) in float64; 0 at padding.
        """
        return _by_feature(gaps_of(found, self._wanted, self._valid))

    def judged(
        self, found: Array, quantization: str, tolerance: float | None
    ) -> Finding:
        """Returns what is found of the worst feature.

        Args:
            found: What a runtime put out.
            quantization: Of the file. Where it rounds, 98 % of a feature's
                values (of int4 95 %), or all but one, must be within the
                tolerance, and none off by half of the output's largest.
            tolerance: Of all values, None: by the quantization.
        """
        gaps = self.gaps(found)
        limit = TOLERANCES[quantization] if tolerance is None else tolerance
        failure = not_finite(f"output '{self._name}'", gaps, limit)
        if failure is not None:
            return failure
        if tolerance is not None:
            return self._worst(gaps.max(axis=0), limit, quantization)
        most = ROUNDING.get(quantization, np.inf)
        gross = float(relative(gaps.max(keepdims=True), self.size).max())
        if gross > most:
            feature = int(gaps.max(axis=0).argmax())
            text = self.where(feature, float(gaps[:, feature].max()))
            return Finding(gross, most, text)
        spared = outliers(quantization, self.count)
        # At padding there are zeros, which come first.
        last = len(gaps) - 1 - spared
        counted = np.partition(gaps, last, axis=0)[last]
        noise = float_noise(quantization)
        return self._worst(counted, limit, quantization, noise)

    def _worst(
        self, gaps: Array, limit: float, quantization: str, noise: float = 0.0
    ) -> Finding:
        """Returns what is found of the feature that is farthest off.

        Args:
            gaps: What counts of each feature's errors.
            limit: What passes, relative to the scales.
            quantization: Of the file.
            noise: What the numbers of the file round to, of their own size.
        """
        errors = relative(gaps, self.scales)
        rounded = relative(noise * self._own, self.scales)
        limits = np.maximum(limit, np.minimum(rounded, _MOST_NOISE))
        feature = int(relative(errors, limits).argmax())
        error, least = float(errors[feature]), float(limits[feature])
        text = self.where(feature, float(gaps[feature]))
        if error > least:
            text += self._advice(feature, quantization)
        return Finding(error, least, text)

    def where(self, feature: int, gap: float) -> str:
        """Returns which feature of the output is off, and by how much.

        Args:
            feature: Its place in the last axis.
            gap: How far it is off.

        Returns:
            The beginning of a sentence; "" where it is not off.
        """
        if not gap > 0:
            return ""
        place = f"output '{self._name}'"
        if len(self.scales) > 1:
            place += f", feature {feature + 1:,} of {len(self.scales):,}"
        low, high = self._lowest[feature], self._highest[feature]
        if self._is_range[feature]:
            share = percent(gap / self.scales[feature])
            return (
                f"{place}: off by {share} of its range {low:.4g} to {high:.4g}"
            )
        values = f"values of {low:.4g} to {high:.4g}"
        if self._is_constant[feature]:
            values = f"{low:.4g} throughout"
        return f"{place}: off by {gap:.3g} from {values}"

    def _advice(self, feature: int, quantization: str) -> str:
        """Returns what helps where one scale serves too different features."""
        span = self._highest[feature] - self._lowest[feature]
        if quantization not in CALIBRATED or span > _SMALL * self.size:
            return ""
        finer = ", or take int16x8" if quantization == "int8" else ""
        return (
            f". A file of {quantization} has one scale for an output, whose "
            f"largest value is {self.size:.4g}: give the feature an output of "
            f"its own, train on targets scaled to one range{finer}"
        )


def _by_feature(values: Array) -> Array:
    """Returns (values, features) of (samples, ..., features) or (samples,)."""
    return values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
