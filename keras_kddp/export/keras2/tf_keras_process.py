"""tf_keras in a process of its own, and what it says."""

import functools
from pathlib import Path
from typing import Any

from keras_kddp.export.errors import ExportError
from keras_kddp.export.keras2.descriptions import refusal_of
from keras_kddp.export.workers import worker
from keras_kddp.export.workers.worker import Worker
from keras_kddp.export.workers.worker_process import WorkerError
from keras_kddp.extras import absence_of, require

TF_KERAS_SECONDS = 600.0
"""Seconds that tf_keras may take for a model, unless told otherwise."""


def ask_tf_keras(
    action: str, *, time_limit: float | None, **request: Any
) -> dict[str, Any]:
    """Returns what tf_keras replies.

    Args:
        action: "save" or "load".
        time_limit: Seconds that it may take; None: no limit.
        **request: As `tf_keras_program.py` takes it.

    Raises:
        ImportError: If tf_keras is not installed.
        ValueError: If tf_keras cannot load a file, or has not what the model
            has.
        OSError: If it cannot write the file.
        ExportError: If it cannot build or save the model, dies, or does not
            end in `time_limit`.
    """
    require(
        "Models of Keras 2 are read and written by",
        "tf_keras",
        absence_of("tf_keras"),
    )
    try:
        reply = _worker().ask(
            {"action": action, **request}, time_limit=time_limit
        )
    except WorkerError as death:
        raise ExportError(
            f"tf_keras must survive the model. Received: {death.fate}. "
            f"{death.log}"
        ) from None
    if reply["error"] is not None:
        kind, _, text = reply["error"].partition(": ")
        if kind == "NotSharedError":
            raise ValueError(refusal_of(text))
        if action == "load":
            raise _loading_error(request["path"], kind, text)
        raise _saving_error(request["target"], kind, text)
    return reply


@functools.cache
def _worker() -> Worker:
    return Worker(
        Path(worker.__file__).with_name("tf_keras_program.py"),
        environment={"TF_USE_LEGACY_KERAS": "1"},
    )


def _loading_error(path: str, kind: str, text: str) -> ValueError:
    return ValueError(
        "`path` must be a model that tf_keras saved. Received: "
        f"{path!r}, of which it says: {kind}: {text} Save it with tf_keras, "
        "model.save('model.h5')."
    )


def _saving_error(target: str, kind: str, text: str) -> Exception:
    if kind in ("OSError", "PermissionError", "FileNotFoundError"):
        return OSError(
            "`path` must be a file that can be written. Received: "
            f"{target!r} ({text}). Choose another folder."
        )
    return ExportError(
        f"tf_keras must build and save the model. It said: {kind}: {text} "
        "Replace the layer that it names."
    )
