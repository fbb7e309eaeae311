"""Time, size and memory of exported models, measured in one run."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_kddp.arguments import require_count
from keras_kddp.export.errors import CrashError, ExportError, RefusalError
from keras_kddp.export.model.samples import arrange_inputs
from keras_kddp.export.model.signature import input_signature
from keras_kddp.export.runtimes.runtimes import (
    LiteRTRuntime,
    Runtime,
    TFLMRuntime,
)
from keras_kddp.export.runtimes.vela import absence_of_vela, estimate_on_ethos_u
from keras_kddp.export.tflite.to_tflite import to_tflite
from keras_kddp.model_io import Array, Arrays
from keras_kddp.profiling import profile
from keras_kddp.text_table import aligned

_QUANTIZATIONS = ("none", "int8")
_ROUNDS = 3


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
        return "\n".join(aligned(table, left=2))


def bench(
    models: Mapping[str, keras.Model], x: Arrays, *, samples: int = 200
) -> Measurements:
    """Measures models as float32 and int8 files, beside each other.

    Every file is loaded and run in turn, three times over, each time warm; the
    fastest median per sample counts, since other work on the machine only
    ever adds to it.

    Args:
        models: Name -> built model, all of the same inputs; ratios are to the
            first. Weights do not matter.
        x: Samples, as `verify` takes them; they calibrate int8 too.
        samples: At most so many rows are timed.

    Raises:
        ValueError: If models or samples do not fit.
        ExportError: If a model cannot be converted, or LiteRT cannot run it.

    Example:
        ```python
        print(keras_kddp.export.bench({"before": student, "after": compact}, x))
        ```
    """
    if not isinstance(models, Mapping) or not models:
        raise ValueError(
            "`models` must name at least one model. Received: "
            f"{models!r}. Pass {{'student': student}}."
        )
    require_count("samples", samples, smallest=1)
    with tempfile.TemporaryDirectory(prefix="keras_kddp_") as folder:
        files = {
            (name, quantization): _file(
                model, x, quantization, Path(folder, f"{index}_{quantization}")
            )
            for index, (name, model) in enumerate(models.items())
            for quantization in _QUANTIZATIONS
        }
        rounds = [
            [_timed(path, inputs, samples) for path, inputs in files.values()]
            for _ in range(_ROUNDS)
        ]
        rows = [
            _measurement(name, models[name], quantization, path, times)
            for (name, quantization), (path, _), *times in zip(
                files, files.values(), *rounds, strict=True
            )
        ]
    return Measurements(tuple(rows))


def _measurement(
    name: str,
    model: keras.Model,
    quantization: str,
    path: Path,
    times: Sequence[tuple[Any, ...]],
) -> Measurement:
    """Returns a row: the best of what all rounds found, and what is counted.

    Args:
        name: Of the model.
        model: The model.
        quantization: Of the file.
        path: The file.
        times: What `_timed` returned, by round.
    """
    one, every, micro, arena = map(_fastest, zip(*times, strict=True))
    predicted, sram = _on_ethos_u(path, quantization)
    return Measurement(
        model=name,
        quantization=quantization,
        num_bytes=path.stat().st_size,
        macs=profile(model).macs,
        one_thread=one,
        all_threads=every,
        micro=micro,
        arena_bytes=arena,
        ethos_u=predicted,
        sram_bytes=sram,
    )


def _file(
    model: keras.Model, x: Arrays, quantization: str, stem: Path
) -> tuple[Path, dict[str, Array]]:
    """Returns the file of a model and samples by the names in it."""
    artifact = to_tflite(
        model,
        stem.with_suffix(".tflite"),
        quantization=quantization,
        calibration=None if quantization == "none" else x,
    )
    arrays = arrange_inputs(x, input_signature(model))
    inputs = dict(zip(artifact.input_names, arrays, strict=True))
    return artifact.path, inputs


def _timed(
    path: Path, inputs: Mapping[str, Array], samples: int
) -> tuple[Any, ...]:
    rows = {name: array[:samples] for name, array in inputs.items()}
    phone = LiteRTRuntime(path)
    try:
        one = phone.execute(rows).milliseconds
        every = phone.execute(rows, threads=os.cpu_count() or 1).milliseconds
    except (CrashError, RefusalError) as refusal:
        raise ExportError(
            "The models must be such that LiteRT runs their files. Received "
            f"from it: {refusal} See with keras_kddp.export.verify what does."
        ) from refusal
    return (one, every, *_on_chip(TFLMRuntime(path), rows))


def _on_chip(
    runtime: Runtime, rows: Mapping[str, Array]
) -> tuple[float | None, int | None]:
    if runtime.absence() is not None:
        return None, None
    try:
        found = runtime.execute(rows, arena=True)
    except (CrashError, RefusalError):
        return None, None
    return found.milliseconds, found.arena_bytes


def _on_ethos_u(
    path: Path, quantization: str
) -> tuple[float | None, int | None]:
    if quantization != "int8" or absence_of_vela() is not None:
        return None, None
    try:
        found = estimate_on_ethos_u(path)
    except RefusalError:
        return None, None
    return found.milliseconds, found.sram_bytes


def _fastest(values: tuple[Any, ...]) -> Any:
    return None if None in values else min(values)


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
