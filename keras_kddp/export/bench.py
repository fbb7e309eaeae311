"""Time, size and memory of exported models, measured in one run."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from numpy.typing import NDArray

from keras_kddp.arguments import require_count
from keras_kddp.export._samples import arrange_inputs
from keras_kddp.export._signature import input_signature
from keras_kddp.export.runtimes import (
    CrashError,
    LiteRTRuntime,
    RefusalError,
    Runtime,
    TFLMRuntime,
)
from keras_kddp.export.tflite import to_tflite
from keras_kddp.profiling import profile
from keras_kddp.text_table import aligned

Array = NDArray[Any]

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
        one_thread: Milliseconds a sample on LiteRT with one thread.
        all_threads: Likewise with a thread a core.
        micro: Milliseconds a sample on TFLM; None where it is not here or
            cannot run the file.
        arena_bytes: What TFLM needs for activations, likewise.
    """

    model: str
    quantization: str
    num_bytes: int
    macs: int
    one_thread: float
    all_threads: float
    micro: float | None
    arena_bytes: int | None


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
        """Returns a line a file, and one a file for what was gained."""
        head = (
            *("model", "file", "bytes", "MACs"),
            *("1 thread ms", "all ms", "TFLM ms", "arena"),
        )
        first = self.rows[0].model
        table = [head, *map(_cells, self.rows)]
        for row in self.rows:
            if row.model != first:
                before = self.row(first, row.quantization)
                table.append(_ratios(before, row))
        return "\n".join(aligned(table, left=2))


def bench(
    models: Mapping[str, keras.Model], x: Any, *, samples: int = 200
) -> Measurements:
    """Measures models as float32 and int8 files, beside each other.

    Every file is loaded and run in turn, three times over, each time warm; the
    fastest median of a sample counts, since other work on the machine only
    ever adds to it.

    Args:
        models: Name -> built model, all of the same inputs; ratios are to the
            first. Weights do not matter.
        x: Samples, as `verify` takes them; they calibrate int8 too.
        samples: At most so many rows are timed.

    Raises:
        ValueError: If models or samples do not fit.
        ExportError: If a model cannot be converted.

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
        return Measurements(
            tuple(
                Measurement(
                    name,
                    quantization,
                    path.stat().st_size,
                    profile(models[name]).macs,
                    *map(_fastest, zip(*times, strict=True)),
                )
                for (name, quantization), (path, _), *times in zip(
                    files, files.values(), *rounds, strict=True
                )
            )
        )


def _file(
    model: keras.Model, x: Any, quantization: str, stem: Path
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
    one = phone.execute(rows).milliseconds
    every = phone.execute(rows, threads=os.cpu_count() or 1).milliseconds
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


def _fastest(values: tuple[Any, ...]) -> Any:
    return None if None in values else min(values)


def _cells(row: Measurement) -> tuple[str, ...]:
    return (
        row.model,
        "float32" if row.quantization == "none" else row.quantization,
        f"{row.num_bytes:,}",
        f"{row.macs:,}",
        *(
            "-" if value is None else f"{value:.3f}"
            for value in (row.one_thread, row.all_threads, row.micro)
        ),
        "-" if row.arena_bytes is None else f"{row.arena_bytes:,}",
    )


def _ratios(before: Measurement, after: Measurement) -> tuple[str, ...]:
    def ratio(name: str) -> str:
        first, second = getattr(before, name), getattr(after, name)
        if first is None or not second:
            return "-"
        return f"{first / second:.2f}x"

    names = (
        *("num_bytes", "macs", "one_thread", "all_threads"),
        *("micro", "arena_bytes"),
    )
    file = "float32" if after.quantization == "none" else after.quantization
    return (f"{before.model} / {after.model}", file, *map(ratio, names))
