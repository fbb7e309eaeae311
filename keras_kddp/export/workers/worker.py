"""A program in a process of its own that answers lines with lines."""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

_PROGRAM = Path(__file__).with_name("worker_main.py")
LOG_CHARACTERS = 2000


class WorkerError(RuntimeError):
    """The process of a worker ended in the middle of a request.

    Attributes:
        cause: Name of the signal, or the exit code.
        log: The last words on its standard error.
    """

    def __init__(self, cause: str, log: str) -> None:
        super().__init__(f"the process ended with {cause}\n{log}")
        self.cause = cause
        self.log = log


class Worker:
    """Answers requests in a process that may crash without harm.

    The process starts with the first request, serves all later ones, is
    replaced when it died, and ends with the interpreter.

    Args:
        handler: A script with the function `answer(**request)`; see
            `worker_main.py`.
        python: Interpreter that runs it; None: this one.
        environment: Variables beside those of this process.

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
    ) -> None:
        self._handler = handler
        self._python = python or sys.executable
        # No worker needs an accelerator, and none must hold one.
        self._environment = {"CUDA_VISIBLE_DEVICES": "-1"}
        self._environment.update(environment or {})
        self._lock = threading.Lock()
        self._process: _Process | None = None
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
    ) -> dict[str, Any]:
        """Returns the reply to a request.

        Args:
            request: For the handler.
            progress: Called with what the handler says on the way.

        Raises:
            WorkerError: If the process dies of it.
        """
        with self._lock:
            try:
                process = self._running()
                reply = json.loads(process.ask(json.dumps(request)))
                while "progress" in reply:
                    if progress is not None:
                        progress(reply["progress"])
                    reply = json.loads(process.listen())
            except BaseException:  # an interrupt would leave a stale reply
                self._close()
                raise
        return cast(dict[str, Any], reply)

    def close(self) -> None:
        """Ends the process; a later request starts a new one."""
        with self._lock:
            self._close()

    def forget(self) -> None:
        """Lets go of a process that is another's, locks and all: after fork."""
        self._lock = threading.Lock()
        self._process = None

    def kill(self) -> None:
        """Ends the process without waiting for a request: at exit."""
        if self._process is not None:
            self._process.stop()

    def _running(self) -> "_Process":
        if self._process is None or not self._process.is_alive():
            self._close()
            self._process = _Process(
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


class _Process:
    """One process, from its start to its end."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str]
    ) -> None:
        self._owner = os.getpid()
        self._log = tempfile.TemporaryFile()
        self._log_start = 0  # where the log of the present request begins
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            env={**os.environ, **environment},
        )
        self._requests = cast(TextIO, self.popen.stdin)
        self._replies = cast(TextIO, self.popen.stdout)

    def is_alive(self) -> bool:
        """Whether this process may ask; after a fork, the child may not."""
        return self._owner == os.getpid() and self.popen.poll() is None

    def ask(self, request: str) -> str:
        """Returns the first line of the reply to one line."""
        try:
            self._requests.write(request + "\n")
            self._requests.flush()
        except BrokenPipeError:
            raise self._obituary() from None
        return self.listen()

    def listen(self) -> str:
        """Returns the next line of a reply."""
        reply = self._replies.readline()
        if not reply:
            raise self._obituary()
        self._log_start = os.fstat(self._log.fileno()).st_size
        return reply

    def stop(self) -> None:
        """Ends the process, busy or not, and closes its streams."""
        if self._owner == os.getpid():
            self.popen.kill()
            self.popen.wait()
        for stream in (self._requests, self._replies, self._log):
            with contextlib.suppress(OSError):  # unsent text, broken pipe
                stream.close()

    def _obituary(self) -> WorkerError:
        code = self.popen.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        size = os.fstat(self._log.fileno()).st_size
        self._log.seek(max(self._log_start, size - LOG_CHARACTERS))
        log = self._log.read().decode("utf-8", errors="replace").strip()
        return WorkerError(cause, log)
