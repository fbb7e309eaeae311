"""What a comparison with Keras says, as values and as a table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keras_kddp.text_table import aligned

LITERT_TOLERANCE = 0.1
"""Largest relative difference between two runtimes of one file."""


@dataclass(frozen=True)
class RuntimeAgreement:
    """One file on one runtime, against Keras.

    Attributes:
        name: The runtime.
        path: The file.
        max_abs_error: Largest difference of any output value.
        relative_error: Largest difference divided by the largest absolute
            value that Keras puts out; the worst of several outputs.
        top1_agreement: Share of equal arg max over the last axis, the worst
            of several outputs; None if no output is wider than 1. Steps that
            Keras masks are left out, of the accuracy too.
        accuracy: Share of samples classified as `y` says; None without `y`.
        num_bytes: Size of the file.
        samples: Number of samples compared.
        tolerance: Largest relative error that passes.
        minimum_agreement: Smallest top-1 agreement that passes, beside the
            tolerance; None for files that are held to the tolerance alone.
        milliseconds: Median per sample on one thread.
        error_to_litert: As `relative_error`, from what LiteRT puts out.
        refusal: Why the runtime cannot run the file; None where it did.
        crash: How its process died of it; None where it did not.
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

    @property
    def passed(self) -> bool:
        """Whether the outputs are finite and near enough to Keras' own.

        And to LiteRT's: of two runtimes that agree with Keras for most
        samples, one may still compute something else.
        """
        if self.refusal is not None or self.crash is not None:
            return False
        if not self.error_to_litert <= LITERT_TOLERANCE:
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
    """

    rows: tuple[RuntimeAgreement, ...]
    keras_accuracy: float | None
    samples: int
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every runtime that takes a file agrees with Keras."""
        return all(row.passed for row in self.rows if row.refusal is None)

    def row(self, path: Path, runtime: str = "LiteRT") -> RuntimeAgreement:
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
        """Returns one line per file, with the relative errors."""
        table = [
            ("file", "runtime", "error", "top-1", "accuracy", "ms", "bytes"),
            ("Keras", "", "", "", _percent(self.keras_accuracy), "", ""),
            *map(_cells, self.rows),
        ]
        verdicts = ["", "", *map(_verdict, self.rows)]
        lines = [
            f"{line}  {verdict}".rstrip()
            for line, verdict in zip(
                aligned(table, left=1), verdicts, strict=True
            )
        ]
        title = f"Agreement with Keras on {self.samples:,} samples"
        absent = [
            f"{name} is not here: {how}" for name, how in self.absent.items()
        ]
        return "\n".join([title, *lines, *absent])


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


def _verdict(row: RuntimeAgreement) -> str:
    if row.refusal is not None:
        return f"refused: {row.refusal}"
    if row.crash is not None:
        return f"FAILED ({row.crash})"
    if row.passed:
        return "passed"
    if not row.error_to_litert <= LITERT_TOLERANCE:
        return f"FAILED (differs from LiteRT by {row.error_to_litert:.1e})"
    agreement, least = row.top1_agreement, row.minimum_agreement
    if agreement is not None and least is not None and agreement < least:
        return f"FAILED (top-1 not >= {least:.0%})"
    return f"FAILED (error not <= {row.tolerance:g})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
