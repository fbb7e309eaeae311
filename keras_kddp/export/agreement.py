"""What a comparison with Keras says, as values and as a table."""

from dataclasses import dataclass
from pathlib import Path

from keras_kddp.text_table import aligned


@dataclass(frozen=True)
class RuntimeAgreement:
    """One file on one runtime, against Keras.

    Attributes:
        name: The runtime.
        path: The file.
        max_abs_error: Largest difference of any output value.
        relative_error: The same, divided by the largest absolute value that
            Keras puts out; the worst of several outputs.
        top1_agreement: Share of equal arg max over the last axis, the worst
            of several outputs; None if no output is wider than 1.
        accuracy: Share of samples classified as `y` says; None without `y`.
        num_bytes: Size of the file.
        samples: Number of samples compared.
        tolerance: Largest relative error that passes.
        minimum_agreement: Smallest top-1 agreement that passes, in the place
            of the tolerance; None for files that are held to the tolerance.
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

    @property
    def passed(self) -> bool:
        """Whether the outputs are finite and near enough to Keras' own."""
        if self.minimum_agreement is None or self.top1_agreement is None:
            return self.relative_error <= self.tolerance
        return self.top1_agreement >= self.minimum_agreement


@dataclass(frozen=True)
class Agreement:
    """Every runtime against Keras; `str()` is a table.

    Attributes:
        rows: One per file.
        keras_accuracy: Accuracy of the Keras model; None without `y`.
        samples: Number of samples compared.
    """

    rows: tuple[RuntimeAgreement, ...]
    keras_accuracy: float | None
    samples: int

    @property
    def passed(self) -> bool:
        """Whether every runtime agrees with Keras."""
        return all(row.passed for row in self.rows)

    def __str__(self) -> str:
        """Returns one line per file, with the relative errors."""
        table = [
            ("file", "runtime", "error", "top-1", "accuracy", "bytes"),
            ("Keras", "", "", "", _percent(self.keras_accuracy), ""),
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
        return "\n".join([title, *lines])


def _cells(row: RuntimeAgreement) -> tuple[str, ...]:
    return (
        row.path.name,
        row.name,
        f"{row.relative_error:.1e}",
        _percent(row.top1_agreement),
        _percent(row.accuracy),
        f"{row.num_bytes:,}",
    )


def _verdict(row: RuntimeAgreement) -> str:
    if row.passed:
        return "passed"
    if row.minimum_agreement is None or row.top1_agreement is None:
        return f"FAILED (error not <= {row.tolerance:g})"
    return f"FAILED (top-1 not >= {row.minimum_agreement:.0%})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
