"""When a runtime agrees with Keras."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from keras_kddp.export.agreement.agreement import RuntimeAgreement
from keras_kddp.export.agreement.classes import ClassScores
from keras_kddp.export.agreement.features import FEWEST_FOR_RANGE, Features
from keras_kddp.export.agreement.limits import ROUNDING, TOLERANCES
from keras_kddp.export.model.signature import output_names
from keras_kddp.export.runtimes.runtimes import Runtime
from keras_kddp.model_io import Array, output_activations, share_of_hits

Output = ClassScores | Features
"""An output of a model, judged as what it is."""

# Of numbers between 0 and 1, in which a file's steps are 1/256: labels that no
# sample has stay below.
_PROBABILITIES = {"sigmoid", "hard_sigmoid", "hardsigmoid", "softmax"}
_LEAST_RANGE = 0.1


def outputs_of(
    model: keras.Model,
    reference: list[Array],
    masks: list[Array | None],
    is_classes: list[bool],
) -> list[Output]:
    """Returns how each output of a model is judged.

    Args:
        model: The model.
        reference: What it puts out.
        masks: Of each the steps that are no padding, or None.
        is_classes: Of each whether it is class scores.
    """
    activations = output_activations(model) or [""] * len(reference)
    return [
        ClassScores(name, wanted, mask)
        if is_class
        else Features(
            name, wanted, mask, _LEAST_RANGE * (activation in _PROBABILITIES)
        )
        for name, wanted, mask, is_class, activation in zip(
            output_names(model),
            reference,
            masks,
            is_classes,
            activations,
            strict=True,
        )
    ]


class Judge:
    """Judges what runtimes put out by what Keras does.

    Args:
        reference: Keras' outputs.
        masks: Of each the steps that are no padding, (samples, steps), or
            None; the others count in nothing.
        outputs: Of each how it is judged.
        labels: Classes of the only output, or None.
        tolerance: As `verify` takes it.
    """

    def __init__(
        self,
        reference: list[Array],
        masks: list[Array | None],
        outputs: list[Output],
        labels: NDArray[np.int64] | None,
        tolerance: float | None,
    ) -> None:
        self.reference = reference
        self._masks = masks
        self._outputs = outputs
        self._labels = labels
        self._tolerance = tolerance

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of how the outputs are judged."""
        counts = [
            output.count
            for output in self._outputs
            if isinstance(output, Features)
        ]
        if not counts or min(counts) >= FEWEST_FOR_RANGE:
            return ()
        return (
            f"Fewer than {FEWEST_FOR_RANGE} samples show no range of a "
            "feature: errors are relative to the largest value of the output.",
        )

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
        first: list[Array] | None,
        milliseconds: float,
    ) -> RuntimeAgreement:
        """Returns the row of a runtime.

        Args:
            runtime: The runtime.
            outputs: What it put out, (samples, ...) each.
            first: What LiteRT put out; None where it did not run the file.
            milliseconds: Median per sample.
        """
        findings = [
            output.judged(found, runtime.quantization, self._tolerance)
            for output, found in zip(self._outputs, outputs, strict=True)
        ]
        worst = max(findings, key=lambda finding: finding.excess)
        named = max(findings, key=lambda finding: finding.class_excess)
        gaps = [
            float(output.gaps(found).max())
            for output, found in zip(self._outputs, outputs, strict=True)
        ]
        return RuntimeAgreement(
            name=runtime.name,
            path=runtime.path,
            max_abs_error=float(np.max(gaps)),  # Python's max may lose NaN
            relative_error=worst.error,
            top1_agreement=named.agreement,
            accuracy=self.accuracy(outputs),
            num_bytes=runtime.path.stat().st_size,
            samples=len(self.reference[0]),
            tolerance=worst.tolerance,
            minimum_agreement=named.minimum,
            milliseconds=milliseconds,
            error_to_litert=(
                math.nan if first is None else _largest_gap(first, outputs)
            ),
            worst=max(findings, key=lambda finding: finding.severity).text,
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
            error_to_litert=math.nan,
            refusal=refusal,
            crash=crash,
        )

    def _tolerance_of(self, runtime: Runtime) -> float:
        if self._tolerance is not None:
            return float(self._tolerance)
        quantization = runtime.quantization
        kinds = {isinstance(output, ClassScores) for output in self._outputs}
        if quantization in ROUNDING and kinds == {True}:
            return ROUNDING[quantization]
        return TOLERANCES[quantization]


def _largest_gap(wanted: list[Array], actual: list[Array]) -> float:
    """Returns the largest difference, relative to the output's largest value.

    NaN where there is none: infinity beside infinity.
    """
    errors = []
    for output, found in zip(wanted, actual, strict=True):
        scale = float(np.abs(output).max())
        with np.errstate(invalid="ignore"):
            gaps = np.abs(found.astype(np.float64) - output)
        error = float(gaps.max())
        if scale == 0:
            errors.append(0.0 if error == 0 else math.inf)
        else:
            errors.append(error / scale if math.isfinite(scale) else error)
    return float(np.max(errors))
