"""ai-edge-quantizer in a process of its own: it prints, and imports much."""

import functools
from pathlib import Path

from keras_kddp.export.errors import ExportError
from keras_kddp.export.workers import worker
from keras_kddp.export.workers.worker import Worker
from keras_kddp.export.workers.worker_process import WorkerError
from keras_kddp.extras import absence_of, require


def require_quantizer() -> None:
    """Raises an ImportError where ai-edge-quantizer is not installed."""
    require(
        'quantization="int4" is made by',
        "ai-edge-quantizer",
        absence_of("ai_edge_quantizer"),
    )


def to_int4(path: Path, time_limit: float | None) -> None:
    """Rounds the weights in a float32 .tflite file, in place.

    Args:
        path: The file.
        time_limit: Seconds that it may take; None: no limit.

    Raises:
        ExportError: If the quantizer cannot, dies, or does not end in
            `time_limit`.
    """
    absolute = str(path.resolve())  # the process may be elsewhere
    request = {"source": absolute, "target": absolute}
    try:
        error = _worker().ask(request, time_limit=time_limit)["error"]
    except WorkerError as death:
        error = f"{death.fate}. {death.log}"
    if error is not None:
        raise ExportError(
            "The model must be one that ai-edge-quantizer takes. Received "
            f'from it: {error}. Try quantization="dynamic".'
        )


@functools.cache
def _worker() -> Worker:
    return Worker(Path(worker.__file__).with_name("int4_program.py"))
