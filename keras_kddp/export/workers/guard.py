"""What must not outlive this process: its workers and temporary folders.

A small process beside this one, the guard, is told what there is. It reads
from a pipe whose other end this process alone holds: however this one dies,
the pipe ends, and the guard kills and removes what is left. A signal of the
kernel's (PR_SET_PDEATHSIG) would come when a *thread* ends, and reaches
neither forks of a worker nor folders.
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

_PROGRAM = Path(__file__).with_name("guard_main.py")
_LAST_SECONDS = 5  # that this process waits for its guard when it ends


class _Guard:
    """The guard of a process, from its start to its end."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # an interrupt is for the other alone
        )
        self._words = cast(IO[bytes], self.popen.stdin)
        # A guard that someone has stopped must not stop this process.
        os.set_blocking(self._words.fileno(), False)

    def tell(self, verb: str, thing: int | str) -> None:
        """Writes one line, if there still is a guard."""
        with contextlib.suppress(BrokenPipeError):
            self._words.write(json.dumps([verb, thing]).encode() + b"\n")

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def close(self) -> None:
        """Lets it clean up, and waits until it has."""
        self._words.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(_LAST_SECONDS)

    def forget(self) -> None:
        """Lets go of a guard that is another process's: after fork."""
        self._words.close()
        self.popen.returncode = 0  # it is no child of this one


class _Guarded:
    """All that the guard knows, so that a new one can be told.

    Attributes:
        lock: Held while a guard starts: a process forked just then would keep
            the pipe open.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._things: dict[int | str, None] = {}
        self._guard: _Guard | None = None

    def add(self, thing: int | str) -> None:
        with self.lock:
            self._things[thing] = None
            if self._guard is None or not self._guard.is_alive():
                self.close()
                self._guard = _Guard()
                for each in self._things:
                    self._guard.tell("add", each)
            else:
                self._guard.tell("add", thing)

    def drop(self, thing: int | str) -> None:
        with self.lock:
            self._things.pop(thing, None)
            if self._guard is not None:
                self._guard.tell("drop", thing)

    def close(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def forget(self) -> None:
        self.lock = threading.RLock()
        self._things = {}
        if self._guard is not None:
            self._guard.forget()
            self._guard = None


_GUARDED = _Guarded()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _GUARDED.lock.acquire(),
        after_in_parent=lambda: _GUARDED.lock.release(),
        after_in_child=_GUARDED.forget,
    )
atexit.register(_GUARDED.close)


def start_group(
    command: Sequence[str], **options: Any
) -> subprocess.Popen[bytes]:
    """Starts a process that leads a group of its own, which ends with this one.

    End it with `end_group`.

    Args:
        command: The program and its arguments.
        **options: As `subprocess.Popen` takes them.
    """
    popen = subprocess.Popen(command, start_new_session=True, **options)
    _GUARDED.add(popen.pid)
    return popen


def end_group(popen: subprocess.Popen[bytes]) -> None:
    """Kills a process of `start_group` with all its forks, alive or not.

    Args:
        popen: The process; if it has died, call this at once: later its
            number may be another's.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)
    _GUARDED.drop(popen.pid)
    popen.wait()


def run_group(
    command: Sequence[str], time_limit: float | None
) -> tuple[int | None, str]:
    """Runs a program that must not outlive this process.

    Args:
        command: The program and its arguments.
        time_limit: Seconds after which it is killed; None: never.

    Returns:
        Its exit code, None if it was killed, and what it wrote.
    """
    with tempfile.TemporaryFile() as log:
        popen = start_group(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            code: int | None = popen.wait(time_limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(popen)
        log.seek(0)
        return code, log.read().decode("utf-8", errors="replace")


def make_folder() -> str:
    """Returns a new temporary folder, to be removed by `remove_folder`."""
    folder = tempfile.mkdtemp(prefix="keras_kddp_")
    _GUARDED.add(folder)
    return folder


def remove_folder(folder: str) -> None:
    """Removes a folder of `make_folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    _GUARDED.drop(folder)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yields a new folder, gone afterwards also if this process dies."""
    folder = make_folder()
    try:
        yield Path(folder)
    finally:
        remove_folder(folder)
