"""What was measured of exported models, as values and as a table."""

from dataclasses import dataclass

from keras_kddp.text_table import aligned


@dataclass(frozen=True)
class Measurement:
    """One file of one model.

    Attributes:
        model: Name given to the model.
        quantization: Of the file.
        num_bytes: Size of the file.
        macs: Multiply-accumulates for one example.
        one_thread: Milliseconds per sample on LiteRT with one thread.
        all_threads: Milliseconds per sample with one thread per core.
        micro: Milliseconds per sample on TFLM; None where it is not here or
            cannot run the file.
        arena_bytes: What TFLM needs for activations; None as for `micro`.
        ethos_u: Milliseconds per sample that Arm's Vela predicts of an int8
            file on an Ethos-U55; None where it is not here or refuses the
            file.
        sram_bytes: Bytes for activations there; None as for `ethos_u`.
        failures: What died of the file or did not end, and how.
    """

    model: str
    quantization: str
    num_bytes: int
    macs: int
    one_thread: float
    all_threads: float
    micro: float | None
    arena_bytes: int | None
    ethos_u: float | None = None
    sram_bytes: int | None = None
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurements:
    """All files; `str()` is a table with the ratios of the first model.

    Attributes:
        rows: Model by model.
    """

    rows: tuple[Measurement, ...]

    def row(self, model: str, quantization: str = "int8") -> Measurement:
        """Returns the measurement of a file."""
        (found,) = (
            row
            for row in self.rows
            if (row.model, row.quantization) == (model, quantization)
        )
        return found

    def __str__(self) -> str:
        """Returns one line per file, and one more for what was gained."""
        columns = _columns(self.rows)
        table = [("model", "file", *(head for head, _ in columns.values()))]
        for row in self.rows:
            numbers = (
                _number(getattr(row, name), form)
                for name, (_, form) in columns.items()
            )
            table.append((row.model, _file_name(row), *numbers))
        first = self.rows[0].model
        for row in self.rows:
            if row.model == first:
                continue
            before = self.row(first, row.quantization)
            ratios = (
                _ratio(getattr(before, name), getattr(row, name))
                for name in columns
            )
            table.append((f"{first} / {row.model}", _file_name(row), *ratios))
        failures = [
            f"{row.model}, {_file_name(row)}: {failure}"
            for row in self.rows
            for failure in row.failures
        ]
        return "\n".join([*aligned(table, left=2), *failures])


def _columns(rows: tuple[Measurement, ...]) -> dict[str, tuple[str, str]]:
    """Returns head and number format by field, of what was measured at all."""
    columns = {
        "num_bytes": ("bytes", ","),
        "macs": ("MACs", ","),
        "one_thread": ("1 thread ms", ".3f"),
        "all_threads": ("all ms", ".3f"),
        "micro": ("TFLM ms", ".3f"),
        "arena_bytes": ("arena", ","),
        "ethos_u": ("Ethos-U55 ms", ".3f"),
        "sram_bytes": ("SRAM", ","),
    }
    optional = ("ethos_u", "sram_bytes")
    return {
        name: column
        for name, column in columns.items()
        if name not in optional
        or any(getattr(row, name) is not None for row in rows)
    }


def _file_name(row: Measurement) -> str:
    return "float32" if row.quantization == "none" else row.quantization


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _ratio(before: float | None, after: float | None) -> str:
    return f"{before / after:.2f}x" if before is not None and after else "-"
