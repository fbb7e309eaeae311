"""The process of a worker: its pipes, its log, its limits and its end."""

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from typing import IO, Any, cast

from keras_kddp.export.workers.guard import (
    end_group,
    make_folder,
    remove_folder,
    start_group,
)

LOG_CHARACTERS = 2000
_GLANCE = 0.25  # seconds between two looks whether the process is alive
_LAST_SECONDS = 1  # that a process may take to end when its replies have ended


class WorkerError(RuntimeError):
    """The process of a worker ended in the middle of a request.

    Attributes:
        cause: Name of the signal, the exit code, or what it did instead.
        fate: The same as a sentence, to stand behind "Received:".
        log: The last words on its standard error.
    """

    def __init__(self, cause: str, log: str, fate: str | None = None) -> None:
        self.fate = fate or f"its process ended with {cause}"
        super().__init__(f"{self.fate}\n{log}")
        self.cause = cause
        self.log = log


class TimeLimitError(WorkerError):
    """A worker gave no sign of life for so long that it was killed."""

    def __init__(self, who: str, seconds: float, log: str) -> None:
        cause = f"did not end in {seconds:g} s"
        super().__init__(cause, log, f"{who} {cause}")


class Process:
    """One process, from its start to its end.

    Attributes:
        limit: Seconds that it may go without a sign of life.
    """

    def __init__(
        self, command: list[str], environment: Mapping[str, str]
    ) -> None:
        self.limit = math.inf
        self._owner = os.getpid()
        self._log = tempfile.TemporaryFile()
        self._log_start = 0  # where the log of the present request begins
        # What libraries leave in a temporary folder when they are killed.
        self._folder = make_folder()
        try:
            self.popen = start_group(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                bufsize=0,
                env={**os.environ, **environment, "TMPDIR": self._folder},
            )
        except BaseException:
            self._log.close()
            remove_folder(self._folder)
            raise
        self._requests = cast(IO[bytes], self.popen.stdin)
        self._replies = cast(IO[bytes], self.popen.stdout)
        os.set_blocking(self._requests.fileno(), False)
        self._unread = b""
        self._is_loaded = False

    def is_alive(self) -> bool:
        """Whether this process may ask; after a fork, the child may not."""
        if self._owner != os.getpid() or self._has_ended():
            return False
        return os.path.isdir(self._folder)  # some clean /tmp of what is old

    def load(self, limit: float) -> None:
        """Waits until the handler is loaded, if it has not."""
        if self._is_loaded:
            return
        self.limit = limit
        self.listen("its start")
        self._is_loaded = True

    def ask(self, request: str) -> dict[str, Any]:
        """Returns the first line of the reply to one line."""
        left = memoryview(request.encode() + b"\n")
        try:
            while left:
                self._wait(self._requests, select.POLLOUT)
                left = left[self._requests.write(left) or 0 :]
        except BrokenPipeError:
            raise self._obituary() from None
        return self.listen()

    def listen(self, who: str = "it") -> dict[str, Any]:
        """Returns the next line of a reply."""
        while b"\n" not in self._unread:
            self._wait(self._replies, select.POLLIN, who)
            part = os.read(self._replies.fileno(), 1 << 16)
            if not part:
                raise self._obituary()
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        self._log_start = os.fstat(self._log.fileno()).st_size
        try:
            return dict(json.loads(line))
        except (TypeError, ValueError):
            said = line[:100].decode("utf-8", errors="replace")
            fate = f"its process said {said!r} instead of a reply"
            raise WorkerError(fate, self._last_words(), fate) from None

    def stop(self) -> None:
        """Ends the process and its forks, busy or not; closes its streams."""
        if self._owner == os.getpid() and not self._has_ended():
            end_group(self.popen)
        for stream in (self._requests, self._replies, self._log):
            with contextlib.suppress(OSError):
                stream.close()
        remove_folder(self._folder)

    def forget(self) -> None:
        """Lets go of a process that is another's."""
        for stream in (self._requests, self._replies, self._log):
            stream.close()
        self.popen.returncode = 0  # it is no child of this one

    def _has_ended(self) -> bool:
        if self.popen.returncode is None and self.popen.poll() is not None:
            end_group(self.popen)  # what it forked may be busy still
        return self.popen.returncode is not None

    def _wait(self, stream: IO[bytes], event: int, who: str = "it") -> None:
        """Waits for a stream; time in which this process sleeps is not counted.

        Raises:
            WorkerError: If the process dies, or gives no sign of life.
        """
        waiting = select.poll()
        waiting.register(stream, event)
        left = self.limit
        while not waiting.poll(1000 * min(_GLANCE, left)):
            left -= _GLANCE
            # A fork may keep the streams of a dead process open.
            if self._has_ended() and not waiting.poll(0):
                raise self._obituary()
            if left <= 0:
                end_group(self.popen)
                raise TimeLimitError(who, self.limit, self._last_words())

    def _obituary(self) -> WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(_LAST_SECONDS)
        end_group(self.popen)
        code = cast(int, self.popen.returncode)
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return WorkerError(cause, self._last_words())

    def _last_words(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        self._log.seek(max(self._log_start, size - LOG_CHARACTERS))
        return self._log.read().decode("utf-8", errors="replace").strip()
