"""What a comparison with Keras says, as values and as a table."""

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keras_kddp.text_table import aligned

LITERT_TOLERANCE = 0.1
"""Largest relative difference between two runtimes of one file."""

_FIRST = "LiteRT"  # which every file must run on
_SHORT = 40  # characters of a reason that stand on the row itself


@dataclass(frozen=True)
class RuntimeAgreement:
    """One file on one runtime, against Keras.

    Attributes:
        name: The runtime.
        path: The file.
        max_abs_error: Largest difference of any output value.
        relative_error: For class scores, the largest difference divided by
            the largest absolute value that Keras puts out. For other outputs,
            the largest difference in the worst feature divided by the range
            that Keras gives it; in a file that rounds, the worst 2 % of the
            values (5 % in int4) do not count. For several outputs, that of
            the one which exceeds its tolerance most.
        top1_agreement: Share of equal arg max over the last axis, the worst
            of several outputs; None if no output is class scores. Steps that
            Keras masks count in nothing.
        accuracy: Share of samples classified as `y` says; None without `y`.
        num_bytes: Size of the file.
        samples: Number of samples compared.
        tolerance: Largest relative error that passes, of the same output.
        minimum_agreement: Smallest top-1 agreement that passes, beside the
            tolerance; None for files that are held to the tolerance alone.
        milliseconds: Median per sample on one thread.
        error_to_litert: Largest difference from what LiteRT puts out, divided
            by its largest absolute value; NaN where it put out none.
        refusal: Why the runtime cannot run the file; None where it did.
        crash: How its process died of it, or did not end; None where it
            did neither.
        worst: Which output is farthest off, which of its features, and by how
            much; empty where nothing is.
    """

    name: str
    path: Path
    max_abs_error: float
    relative_error: float
    top1_agreement: float | None
    accuracy: float | None
    num_bytes: int
    samples: int
    tolerance: float
    minimum_agreement: float | None = None
    milliseconds: float = math.nan
    error_to_litert: float = 0.0
    refusal: str | None = None
    crash: str | None = None
    worst: str = ""

    @property
    def passed(self) -> bool:
        """Whether the outputs are finite and near enough to Keras' own.

        And to LiteRT's, where it ran the file: of two runtimes that agree with
        Keras for most samples, one may still compute something else.
        """
        if self.refusal is not None or self.crash is not None:
            return False
        if self.error_to_litert > LITERT_TOLERANCE:
            return False
        if not self.relative_error <= self.tolerance:
            return False
        if self.minimum_agreement is None or self.top1_agreement is None:
            return True
        return self.top1_agreement >= self.minimum_agreement


@dataclass(frozen=True)
class Agreement:
    """Every runtime against Keras; `str()` is a table.

    Attributes:
        rows: One per file and runtime, LiteRT first.
        keras_accuracy: Accuracy of the Keras model; None without `y`.
        samples: Number of samples compared.
        absent: Runtime that is not here -> how to get it.
        notes: What a reader must know of the comparison.
    """

    rows: tuple[RuntimeAgreement, ...]
    keras_accuracy: float | None
    samples: int
    absent: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every runtime that takes a file agrees with Keras.

        LiteRT, which all others are held to, must take each.
        """
        return all(
            row.passed
            for row in self.rows
            if row.refusal is None or row.name == _FIRST
        )

    def row(self, path: Path, runtime: str = _FIRST) -> RuntimeAgreement:
        """Returns the row of a file on a runtime."""
        for row in self.rows:
            if row.path == Path(path) and row.name == runtime:
                return row
        known = [(str(row.path), row.name) for row in self.rows]
        raise ValueError(
            "There must be a row of this file and runtime. Received: "
            f"{str(path)!r}, {runtime!r}. Take one of {known}."
        )

    def __str__(self) -> str:
        """Returns one line per file with the relative errors, and reasons."""
        head = ("file", "runtime", "error", "top-1", "accuracy", "ms", "bytes")
        keras = ("Keras", "", "", "", _percent(self.keras_accuracy), "", "")
        table = aligned([head, keras, *map(_cells, self.rows)], left=1)
        lines = [f"Agreement with Keras on {self.samples:,} samples"]
        lines += [line.rstrip() for line in table[:2]]
        for line, row in zip(table[2:], self.rows, strict=True):
            verdict, reason = _verdict(row)
            lines += [f"{line}  {verdict}", *_wrapped(reason, 4)]
        for note in self.notes:
            lines += _wrapped(note)
        for name, how in self.absent.items():
            lines += [f"{name} is not here: {how}"]
        return "\n".join(lines)


def _cells(row: RuntimeAgreement) -> tuple[str, ...]:
    return (
        row.path.name,
        row.name,
        _number(row.relative_error, ".1e"),
        _percent(row.top1_agreement),
        _percent(row.accuracy),
        _number(row.milliseconds, ".3f"),
        f"{row.num_bytes:,}",
    )


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _verdict(row: RuntimeAgreement) -> tuple[str, str]:
    """Returns what is said on the row, and what below it."""
    if row.refusal is not None:
        return _refused(row.refusal, fails=row.name == _FIRST)
    if row.crash is not None:
        cause, _, advice = row.crash.partition("; ")
        if len(cause) <= _SHORT:
            return f"FAILED ({cause})", advice
        return "FAILED (crash)", row.crash
    if row.passed:
        return "passed", ""
    if not math.isfinite(row.max_abs_error):
        return "FAILED (NaN or infinity)", row.worst
    if row.error_to_litert > LITERT_TOLERANCE:
        return f"FAILED (differs from LiteRT by {row.error_to_litert:.1e})", ""
    agreement, least = row.top1_agreement, row.minimum_agreement
    if agreement is not None and least is not None and agreement < least:
        return f"FAILED (top-1 not >= {least:.0%})", row.worst
    return f"FAILED (error not <= {row.tolerance:g})", row.worst


def _refused(reason: str, *, fails: bool) -> tuple[str, str]:
    if len(reason) > _SHORT:
        return "FAILED (refused)" if fails else "refused", f"refused: {reason}"
    return f"FAILED (refused: {reason})" if fails else f"refused: {reason}", ""


def _wrapped(text: str, indent: int = 0) -> list[str]:
    """Returns lines of 80 columns; longer words, such as paths, stay whole."""
    return textwrap.wrap(
        text,
        80,
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
