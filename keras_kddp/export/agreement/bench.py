"""Time, size and memory of exported models, measured in one run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_kddp.arguments import RUN_SECONDS, require_count, require_time_limit
from keras_kddp.export.agreement.measurements import Measurement, Measurements
from keras_kddp.export.errors import CrashError, ExportError, RefusalError
from keras_kddp.export.model.samples import arrange_inputs
from keras_kddp.export.model.signature import input_signature
from keras_kddp.export.runtimes.runtimes import (
    LiteRTRuntime,
    Runtime,
    TFLMRuntime,
)
from keras_kddp.export.runtimes.vela import absence_of_vela, estimate_on_ethos_u
from keras_kddp.export.tflite.converter import conversion_limit
from keras_kddp.export.tflite.to_tflite import to_tflite
from keras_kddp.export.workers.guard import temporary_folder
from keras_kddp.model_io import Array, Arrays
from keras_kddp.profiling import profile

_QUANTIZATIONS = ("none", "int8")
_ROUNDS = 3


def bench(
    models: Mapping[str, keras.Model],
    x: Arrays,
    *,
    samples: int = 200,
    time_limit: float | None = RUN_SECONDS,
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
        time_limit: Seconds that a runtime may take for one sample; the
            converter and Vela have as many, but at least 600. None: no limit.

    Raises:
        ValueError: If models or samples do not fit.
        ExportError: If a model cannot be converted, or LiteRT cannot run it
            or does not end in `time_limit`.

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
    require_time_limit(time_limit)
    timing = _Timing(samples, time_limit, {})
    with temporary_folder() as folder:
        files = {
            (name, quantization): _file(
                model,
                x,
                quantization,
                folder / f"{index}_{quantization}.tflite",
                time_limit,
            )
            for index, (name, model) in enumerate(models.items())
            for quantization in _QUANTIZATIONS
        }
        rounds = [
            [_timed(path, inputs, timing) for path, inputs in files.values()]
            for _ in range(_ROUNDS)
        ]
        rows = [
            _measurement(name, models[name], quantization, path, times, timing)
            for (name, quantization), (path, _), *times in zip(
                files, files.values(), *rounds, strict=True
            )
        ]
    return Measurements(tuple(rows))


@dataclass(frozen=True)
class _Timing:
    """How files are run.

    Attributes:
        samples: At most so many rows.
        time_limit: Seconds for one of them.
        failures: By file, what died of it or did not end: it is asked once.
    """

    samples: int
    time_limit: float | None
    failures: dict[Path, tuple[str, ...]]


def _measurement(
    name: str,
    model: keras.Model,
    quantization: str,
    path: Path,
    times: Sequence[tuple[Any, ...]],
    timing: _Timing,
) -> Measurement:
    """Returns a row: the best of what all rounds found, and what is counted.

    Args:
        name: Of the model.
        model: The model.
        quantization: Of the file.
        path: The file.
        times: What `_timed` returned, by round.
        timing: How.
    """
    one, every, micro, arena = map(_fastest, zip(*times, strict=True))
    predicted, sram = _on_ethos_u(path, quantization, timing)
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
        failures=timing.failures.get(path, ()),
    )


def _file(
    model: keras.Model,
    x: Arrays,
    quantization: str,
    path: Path,
    time_limit: float | None,
) -> tuple[Path, dict[str, Array]]:
    """Returns the file of a model and samples by the names in it."""
    artifact = to_tflite(
        model,
        path,
        quantization=quantization,
        calibration=None if quantization == "none" else x,
        time_limit=conversion_limit(time_limit),
    )
    arrays = arrange_inputs(x, input_signature(model))
    inputs = dict(zip(artifact.input_names, arrays, strict=True))
    return artifact.path, inputs


def _timed(
    path: Path, inputs: Mapping[str, Array], timing: _Timing
) -> tuple[Any, ...]:
    rows = {name: array[: timing.samples] for name, array in inputs.items()}
    phone = LiteRTRuntime(path)
    found = [
        _on_phone(phone, rows, threads, timing.time_limit)
        for threads in (1, os.cpu_count() or 1)
    ]
    return (*found, *_on_chip(TFLMRuntime(path), rows, timing))


def _on_phone(
    runtime: Runtime,
    rows: Mapping[str, Array],
    threads: int,
    time_limit: float | None,
) -> float:
    try:
        found = runtime.execute(rows, threads=threads, time_limit=time_limit)
    except (CrashError, RefusalError) as refusal:
        raise ExportError(
            "The models must be such that LiteRT runs their files. Received "
            f"from it: {refusal} Compare the file with Keras by "
            "keras_kddp.export.verify, which names the layer if it can."
        ) from refusal
    return found.milliseconds


def _on_chip(
    runtime: Runtime, rows: Mapping[str, Array], timing: _Timing
) -> tuple[float | None, int | None]:
    if runtime.absence() is not None or runtime.path in timing.failures:
        return None, None
    try:
        found = runtime.execute(rows, arena=True, time_limit=timing.time_limit)
    except CrashError as crash:
        timing.failures[runtime.path] = (f"{runtime.name}: {crash}",)
        return None, None
    except RefusalError:
        return None, None
    return found.milliseconds, found.arena_bytes


def _on_ethos_u(
    path: Path, quantization: str, timing: _Timing
) -> tuple[float | None, int | None]:
    if quantization != "int8" or absence_of_vela() is not None:
        return None, None
    limit = conversion_limit(timing.time_limit)
    try:
        found = estimate_on_ethos_u(path, time_limit=limit)
    except CrashError as crash:
        failures = (*timing.failures.get(path, ()), f"Vela: {crash}")
        timing.failures[path] = failures
        return None, None
    except RefusalError:
        return None, None
    return found.milliseconds, found.sram_bytes


def _fastest(values: tuple[Any, ...]) -> Any:
    return None if None in values else min(values)
