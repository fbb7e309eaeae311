"""The processes in which files are read and run, and what they answer."""

import functools
import sys
from pathlib import Path
from typing import Any

from keras_kddp.arguments import RUN_SECONDS
from keras_kddp.export.errors import CrashError, RefusalError
from keras_kddp.export.workers import worker
from keras_kddp.export.workers.worker import Worker
from keras_kddp.export.workers.worker_process import TimeLimitError, WorkerError

_LOADING = 60.0  # seconds: for NumPy and the runtime
_GLANCE = 10.0  # seconds: to find a runtime or to read what a file has


def run_file(
    python: str,
    name: str,
    path: Path,
    *,
    runtime: str,
    time_limit: float | None,
    **request: Any,
) -> dict[str, Any]:
    """Returns what a runtime says of the samples that it ran.

    Args:
        python: Interpreter that has the runtime.
        name: What people call the runtime.
        path: A .tflite file.
        runtime: What `run_program.py` calls it.
        time_limit: Seconds that one sample, or the loading of the file, may
            take; None: no limit.
        **request: As `run_program.py` takes it.

    Raises:
        RefusalError: If the runtime cannot run the file.
        CrashError: If its process dies of it, or does not end in `time_limit`.
    """
    asked = worker_of(python)
    request = {"runtime": runtime, "path": str(path.resolve()), **request}
    try:
        # A runtime that loads slowly says nothing against the file.
        _reply(asked, {"action": "find", "runtime": runtime}, _LOADING)
    except TimeLimitError as late:
        raise CrashError(
            f"{name} was not loaded: {late.fate}; try again when the machine "
            "has less to do"
        ) from None
    except WorkerError as death:
        raise CrashError(
            f"{name} was not loaded: {death.fate}. {death.log}"
        ) from None
    try:
        reply = asked.ask({"action": "run", **request}, time_limit=time_limit)
    except TimeLimitError as late:
        raise CrashError(
            f"{late.fate}; a larger `time_limit` waits longer"
        ) from None
    except WorkerError as death:
        raise CrashError(
            f"{name} must survive {str(path)!r}. Received: {death.fate}. "
            f"{death.log}"
        ) from None
    if reply["error"] is not None:
        raise RefusalError(_plain(reply["error"]))
    return reply


def describe_file(path: Path) -> dict[str, Any]:
    """Returns the inputs, outputs and dtypes of a file, as LiteRT reads it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or LiteRT does not end.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"`path` must be a .tflite file. Received: path={str(path)!r}, "
            "which is no file. Write it with keras_kddp.export.to_tflite."
        )
    try:
        reply = _description(path, is_prepared=True)
        if reply["error"] is not None:
            # A complete file of what LiteRT refuses, or dies of, is no
            # damaged one: that is for who runs it to say.
            unprepared = _description(path, is_prepared=False)
            reply = reply if unprepared["error"] is not None else unprepared
    except TimeLimitError as late:
        raise ValueError(
            f"LiteRT must read {str(path)!r} in {RUN_SECONDS:g} s. Received: "
            f"{late.fate}. Try again when the machine has less to do, or "
            "export the model again."
        ) from None
    if reply["error"] is not None:
        raise ValueError(
            f"{str(path)!r} must be a complete .tflite file of operations "
            f"that LiteRT has. Received: {_plain(reply['error'])}. Export the "
            "model again."
        )
    return reply


def _description(path: Path, *, is_prepared: bool) -> dict[str, Any]:
    """Returns the reply to a request to describe a file, dead or alive."""
    request = {
        "action": "describe",
        "path": str(path.resolve()),
        "is_prepared": is_prepared,
    }
    try:
        return _reply(worker_of(sys.executable), request, RUN_SECONDS)
    except TimeLimitError:
        raise
    except WorkerError as death:
        return {"error": death.fate}


@functools.cache
def failure_of(python: str, key: str) -> str | None:
    """Returns why a runtime that is there cannot be used, None if it can.

    Args:
        python: Interpreter that has the runtime.
        key: What `run_program.py` calls the runtime.
    """
    try:
        request = {"action": "find", "runtime": key}
        error = _reply(worker_of(python), request, _LOADING)["error"]
    except (OSError, WorkerError) as problem:
        error = str(problem)
    return None if error is None else f"it cannot be loaded ({_plain(error)})"


@functools.cache
def worker_of(python: str) -> Worker:
    """Returns the one worker of an interpreter, which runs any runtime."""
    program = Path(worker.__file__).with_name("run_program.py")
    return Worker(program, python, loading_limit=_LOADING)


def _reply(
    asked: Worker, request: dict[str, Any], time_limit: float
) -> dict[str, Any]:
    """Returns a reply of the process, or of a new one where it was stopped."""
    try:
        return asked.ask(request, time_limit=_GLANCE)
    except TimeLimitError:
        return asked.ask(request, time_limit=time_limit)


def _plain(error: str) -> str:
    """Returns an error without the kind of exception it was, on one line."""
    kind, _, text = error.partition(": ")
    return " ".join((text if kind.isidentifier() else error).split())
