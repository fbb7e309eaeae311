"""Outputs that are class scores: which, and how they are judged."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_kddp.distillation.output_kinds import evidence_of_classes
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
    least_agreement,
)
from keras_kddp.model_io import Array, output_names, share_of_hits


class ClassScores:
    """An output with one score per class, the largest of which answers.

    Args:
        name: Of the output.
        wanted: What Keras puts out, (samples, ..., classes).
        mask: The steps that are no padding, (samples, steps), or None.
    """

    def __init__(self, name: str, wanted: Array, mask: Array | None) -> None:
        self._place = f"output '{name}'"
        self._wanted = wanted
        self._mask = mask
        self._valid = valid_positions(wanted, mask)
        kept = np.where(self._valid, wanted, 0)
        self._size = float(np.abs(kept).max())

    def gaps(self, found: Array) -> Array:
        """Returns absolute differences of a runtime's output, 0 at padding."""
        return gaps_of(found, self._wanted, self._valid)

    def judged(
        self, found: Array, quantization: str, tolerance: float | None
    ) -> Finding:
        """Returns what is found of the scores.

        Args:
            found: What a runtime put out.
            quantization: Of the file. Where it rounds, 98 % of the classes
                (of int4 95 %), or all but one, must be Keras', and no score
                off by half of the largest.
            tolerance: Of the scores alone, relative to the largest; None: by
                the quantization.
        """
        limit, minimum = tolerance, None
        if limit is None and quantization in ROUNDING:
            limit = ROUNDING[quantization]
            answers = int(self._valid.sum())
            minimum = least_agreement(quantization, answers)
        elif limit is None:
            limit = TOLERANCES[quantization]
        gaps = self.gaps(found)
        agreement = share_of_hits(
            self._wanted.argmax(axis=-1) == found.argmax(axis=-1), self._mask
        )
        failure = not_finite(self._place, gaps, limit)
        if failure is not None:
            return replace(failure, agreement=agreement, minimum=minimum)
        error = float(relative(gaps.max(keepdims=True), self._size).max())
        text = ""
        if minimum is not None and agreement < minimum:
            share = percent(1 - agreement)
            text = f"{self._place}: another class for {share} of the answers"
        elif error > 0:
            share = percent(error)
            text = (
                f"{self._place}: off by {share} of its largest value "
                f"{self._size:.4g}"
            )
        return Finding(error, limit, text, agreement, minimum)


def are_class_scores(
    classes: bool | Sequence[str] | None,
    model: keras.Model,
    names: Sequence[str],
    reference: Sequence[Array],
    *,
    has_labels: bool,
) -> list[bool]:
    """Returns for each output whether its largest entry names a class.

    Args:
        classes: As `verify` takes it.
        model: As it was given.
        names: Of its outputs in files.
        reference: What it puts out.
        has_labels: Whether there are class numbers of its only output.

    Raises:
        ValueError: If `classes` does not fit the outputs, or the labels.
    """
    is_wide = [part.ndim > 1 and part.shape[-1] > 1 for part in reference]
    if classes is None:
        said = [has_labels] * len(reference)
        if not has_labels:
            said = _said_by(model, reference)
        return [wide and word for wide, word in zip(is_wide, said, strict=True)]
    if isinstance(classes, bool):
        chosen = [wide and classes for wide in is_wide]
        is_known = not classes or any(is_wide)
    else:
        chosen, is_known = _named(classes, model, names)
        is_known &= all(w for w, c in zip(is_wide, chosen, strict=True) if c)
    if not is_known:
        raise ValueError(
            "`classes` must be True, False, None, or a list of names of "
            "outputs with one value per class. Received: "
            f"classes={classes!r}, for outputs of shapes "
            f"{_shapes(names, reference)}. Name those whose largest value "
            "names the class."
        )
    if has_labels and not any(chosen):
        raise ValueError(
            "`y` must be None where no output is class scores. Received: `y` "
            f"and classes={classes!r}. Leave one of them out."
        )
    return chosen


def _named(
    classes: Any, model: keras.Model, names: Sequence[str]
) -> tuple[list[bool], bool]:
    """Returns which outputs are named, and whether all names are known."""
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        return [False] * len(names), False
    known = [{name} for name in names]
    in_keras = output_names(model)
    if len(set(in_keras)) == len(names):
        known = [{*each, n} for each, n in zip(known, in_keras, strict=True)]
    chosen = [bool(each & set(classes)) for each in known]
    return chosen, set(classes) <= set().union(*known)


def _said_by(model: keras.Model, reference: Sequence[Array]) -> list[bool]:
    """Returns which outputs the model itself says are class scores.

    A softmax over another axis than the last says nothing of the last.
    """
    kinds = evidence_of_classes(model)
    if len(kinds) != len(reference):
        return [False] * len(reference)
    return [
        kind == "compile" or (kind != "" and _sums_to_1(part, kind))
        for kind, part in zip(kinds, reference, strict=True)
    ]


def _sums_to_1(output: Array, activation: str) -> bool:
    values = output.astype(np.float64)
    if activation != "softmax":
        values = np.exp(np.minimum(values, 1.0))
    return bool(np.allclose(values.sum(axis=-1), 1, atol=1e-2))


def _shapes(
    names: Sequence[str], reference: Sequence[Array]
) -> dict[str, tuple[int, ...]]:
    return {n: part.shape for n, part in zip(names, reference, strict=True)}
