"""Standard streams that a command can write to, whatever they are."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class _Lasting:
    """A stream whose writes never fail: messages are not worth a run.

    Args:
        stream: What is written to.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes what can be written, letters it lacks as escapes."""
        with contextlib.suppress(OSError, ValueError):
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                escaped = text.encode("ascii", "backslashreplace").decode()
                self._stream.write(escaped)
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Gives a command standard streams that bear every text.

    Streams that are closed are opened on nothing: else the first files that
    are opened would get their numbers, and with them what C code writes.
    Letters that a stream's encoding lacks are written as escapes. Messages on
    standard error never end a run; a failed write to standard output does.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    with contextlib.ExitStack() as stack:
        out, err = (
            stack.enter_context(open(os.devnull, "w"))
            if stream is None
            else stream
            for stream in (sys.stdout, sys.stderr)
        )
        if hasattr(out, "reconfigure"):
            stack.callback(out.reconfigure, errors=out.errors)
            out.reconfigure(errors="backslashreplace")
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(_Lasting(err)))
        stack.callback(flush_output)
        yield


def flush_output() -> None:
    """Writes out what waits, or drops it where it cannot be written.

    Python would try again as the process ends, and complain.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
