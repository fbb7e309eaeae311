"""When a runtime agrees with Keras."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keras_kddp.export.agreement.agreement import RuntimeAgreement
from keras_kddp.export.runtimes.runtimes import Runtime
from keras_kddp.model_io import Array, share_of_hits

TOLERANCES = {
    "none": 1e-4,
    "float16": 1e-2,
    "dynamic": 0.1,
    "int8": 0.1,
    "int16x8": 0.1,
    "int4": 0.2,
}
"""Largest relative error that passes, by quantization."""

ROUNDING = {"dynamic": 0.5, "int8": 0.5, "int16x8": 0.1, "int4": 0.5}
"""Quantizations of which classifiers are held to the classes they name.

With the largest relative error that passes beside: the same classes may come
out of other weights.
"""

LEAST_AGREEMENT = 0.98
"""Share of the classes that a classifier in one of these must name."""

LEAST_AGREEMENT_OF_INT4 = 0.95
"""That share in int4: what 16 values per weight cost, the accuracy says."""


class Judge:
    """Judges what runtimes put out by what Keras does.

    Args:
        reference: Keras' outputs.
        masks: Of each the steps that are no padding, (samples, steps), or
            None; the others count in no share of classes.
        labels: Classes of the only output, or None.
        tolerance: As `verify` takes it.
    """

    def __init__(
        self,
        reference: list[Array],
        masks: list[Array | None],
        labels: NDArray[np.int64] | None,
        tolerance: float | None,
    ) -> None:
        self.reference = reference
        self._masks = masks
        self._labels = labels
        self._tolerance = tolerance
        self._is_class = [
            wanted.ndim > 1 and wanted.shape[-1] > 1 for wanted in reference
        ]

    def accuracy(self, outputs: Sequence[Array]) -> float | None:
        """Returns the share of samples classified as labelled."""
        if self._labels is None:
            return None
        hits = outputs[0].argmax(axis=-1) == self._labels
        return share_of_hits(hits, self._masks[0])

    def row(
        self,
        runtime: Runtime,
        outputs: list[Array],
        first: list[Array],
        milliseconds: float,
    ) -> RuntimeAgreement:
        """Returns the row of a runtime.

        Args:
            runtime: The runtime.
            outputs: What it put out, (samples, ...) each.
            first: What LiteRT put out.
            milliseconds: Median per sample.
        """
        samples = len(self.reference[0])
        return RuntimeAgreement(
            name=runtime.name,
            path=runtime.path,
            max_abs_error=_largest(_errors(self.reference, outputs)),
            relative_error=_largest(_relative_errors(self.reference, outputs)),
            top1_agreement=self._top1_agreement(outputs),
            accuracy=self.accuracy(outputs),
            num_bytes=runtime.path.stat().st_size,
            samples=samples,
            tolerance=self._tolerance_of(runtime),
            minimum_agreement=(
                _least_agreement(runtime.quantization, samples)
                if self._by_class(runtime)
                else None
            ),
            milliseconds=milliseconds,
            error_to_litert=_largest(_relative_errors(first, outputs)),
        )

    def without_outputs(
        self,
        runtime: Runtime,
        refusal: str | None = None,
        crash: str | None = None,
    ) -> RuntimeAgreement:
        """Returns the row of a runtime that did not run the file."""
        return RuntimeAgreement(
            name=runtime.name,
            path=runtime.path,
            max_abs_error=math.nan,
            relative_error=math.nan,
            top1_agreement=None,
            accuracy=None,
            num_bytes=runtime.path.stat().st_size,
            samples=len(self.reference[0]),
            tolerance=self._tolerance_of(runtime),
            refusal=refusal,
            crash=crash,
        )

    def _top1_agreement(self, outputs: Sequence[Array]) -> float | None:
        """Returns the share of equal classes, the worst of several outputs."""
        shares = [
            share_of_hits(
                wanted.argmax(axis=-1) == actual.argmax(axis=-1), mask
            )
            for wanted, actual, mask, is_class in zip(
                self.reference,
                outputs,
                self._masks,
                self._is_class,
                strict=True,
            )
            if is_class
        ]
        return min(shares) if shares else None

    def _by_class(self, runtime: Runtime) -> bool:
        rounds = runtime.quantization in ROUNDING and self._tolerance is None
        return rounds and all(self._is_class)

    def _tolerance_of(self, runtime: Runtime) -> float:
        if self._tolerance is not None:
            return float(self._tolerance)
        if self._by_class(runtime):
            return ROUNDING[runtime.quantization]
        return TOLERANCES[runtime.quantization]


def _least_agreement(quantization: str, samples: int) -> float:
    """Returns the share that passes, or that of all but one of few samples."""
    is_int4 = quantization == "int4"
    least = LEAST_AGREEMENT_OF_INT4 if is_int4 else LEAST_AGREEMENT
    all_but_one = (samples - 1) / samples if samples > 2 else 1.0
    return min(least, all_but_one)


def _errors(wanted: list[Array], actual: list[Array]) -> list[float]:
    return [
        float(np.abs(found - output).max())
        for output, found in zip(wanted, actual, strict=True)
    ]


def _relative_errors(wanted: list[Array], actual: list[Array]) -> list[float]:
    scales = [float(np.abs(output).max()) for output in wanted]
    return [*map(_relative, _errors(wanted, actual), scales)]


def _largest(errors: list[float]) -> float:
    return float(np.max(errors))  # NumPy's max keeps NaN, Python's may not


def _relative(error: float, scale: float) -> float:
    if scale == 0:
        return 0.0 if error == 0 else math.inf
    return error / scale
