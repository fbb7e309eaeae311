"""A program in a process of its own that answers lines with lines."""

import atexit
import json
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_kddp.export.workers.worker_process import Process

_PROGRAM = Path(__file__).with_name("worker_main.py")
LOADING_SECONDS = 600.0
"""Seconds to load a program, unless told otherwise: TensorFlow takes many."""

_SIGNS_PER_LIMIT = 20  # at most, of a handler that only says that it goes on


class Worker:
    """Answers requests in a process that may crash without harm.

    The process starts with the first request, serves all later ones, is
    replaced when it died or had to be killed, and ends with this one, however
    this one ends, together with all that it has forked.

    Args:
        handler: A script with the function `answer(**request)`; see
            `worker_main.py`.
        python: Interpreter that runs it; None: this one.
        environment: Variables beside those of this process.
        loading_limit: Seconds that loading the script may take.

    Example:
        ```python
        worker = Worker(Path("convert_program.py"))
        reply = worker.ask({"saved_model": "folder", "target": "file"})
        worker.close()
        ```
    """

    def __init__(
        self,
        handler: Path,
        python: str | None = None,
        environment: Mapping[str, str] | None = None,
        loading_limit: float = LOADING_SECONDS,
    ) -> None:
        self._handler = handler
        self._loading_limit = loading_limit
        self._python = python or sys.executable
        # No worker needs an accelerator, and none must hold one.
        self._environment = {"CUDA_VISIBLE_DEVICES": "-1"}
        self._environment.update(environment or {})
        self._lock = threading.Lock()
        self._process: Process | None = None
        _WORKERS.add(self)

    @property
    def pid(self) -> int | None:
        """The process id, None when no process is running."""
        process = self._process
        return process.popen.pid if process and process.is_alive() else None

    def start(self) -> None:
        """Starts the process if none runs; does not wait until it is ready."""
        with self._lock:
            self._running()

    def ask(
        self,
        request: Mapping[str, Any],
        progress: Callable[[dict[str, Any]], None] | None = None,
        *,
        time_limit: float | None = None,
    ) -> dict[str, Any]:
        """Returns the reply to a request.

        Args:
            request: For the handler.
            progress: Called with what the handler says on the way.
            time_limit: Seconds without a sign of life, which is the reply or
                what the handler says on the way; None: no limit. Loading the
                handler has a limit of its own.

        Raises:
            WorkerError: If the process dies of it, or is killed since it did
                not end in `time_limit`.
        """
        with self._lock:
            try:
                process = self._running()
                process.load(self._loading_limit)
                process.limit = math.inf if time_limit is None else time_limit
                pace = min(1.0, process.limit / _SIGNS_PER_LIMIT)
                reply = process.ask(
                    json.dumps({"request": request, "pace": pace})
                )
                while "progress" in reply:
                    if progress is not None and reply["progress"] is not None:
                        progress(reply["progress"])
                    reply = process.listen()
            except BaseException:  # an interrupt would leave a stale reply
                self._close()
                raise
        return reply

    def close(self) -> None:
        """Ends the process; a later request starts a new one."""
        with self._lock:
            self._close()

    def forget(self) -> None:
        """Lets go of a process that is another's, locks and all: after fork."""
        self._lock = threading.Lock()
        if self._process is not None:
            self._process.forget()
        self._process = None

    def kill(self) -> None:
        """Ends the process without waiting for a request: at exit."""
        if self._process is not None:
            self._process.stop()

    def _running(self) -> Process:
        if self._process is None or not self._process.is_alive():
            self._close()
            self._process = Process(
                # -P keeps this folder's modules out of the import path.
                [
                    self._python,
                    "-P",
                    "-W",
                    "ignore",
                    str(_PROGRAM),
                    str(self._handler),
                ],
                self._environment,
            )
        return self._process

    def _close(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


_WORKERS: weakref.WeakSet[Worker] = weakref.WeakSet()


def _forget_all() -> None:
    for worker in _WORKERS:
        worker.forget()


def _kill_all() -> None:
    for worker in _WORKERS:
        worker.kill()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


atexit.register(_kill_all)
