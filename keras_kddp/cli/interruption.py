"""How a command ends when it is interrupted."""

import contextlib
import gc
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTED = 130
"""Exit code of a command that a signal has ended."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STDERR = 2  # whoever holds the stream that Python has of it
_PATIENCE = 3.0  # seconds: what is compiled does not listen to Python


@contextlib.contextmanager
def ending_on_signals(last_words: Callable[[], str]) -> Iterator[None]:
    """Has SIGINT and SIGTERM end what runs inside, by a KeyboardInterrupt.

    What does not end by it in three seconds, or is told twice, is ended hard:
    workers and temporary folders go with the process, and what a run keeps is
    whole at every moment. Outside of the main thread signals are others'.

    Args:
        last_words: Returns what is said then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = _Ending(last_words)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    former = {each: signal.signal(each, ending.begin) for each in _SIGNALS}
    former_hook = sys.unraisablehook
    former_writing = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(
        target=ending.watch, args=(reading,), daemon=True
    )
    watcher.start()
    try:
        yield
    except BaseException as error:
        # What TensorFlow calls back makes errors of its own of an interrupt.
        if not ending.is_told and not isinstance(error, KeyboardInterrupt):
            raise
        _let_go(error)
        ending.say()
        raise KeyboardInterrupt from error
    finally:
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)
        signal.set_wakeup_fd(former_writing)
        sys.unraisablehook = former_hook
        os.close(writing)
        watcher.join()
        os.close(reading)


def _let_go(error: BaseException | None) -> None:
    """Has all that was broken off end now, while its complaints are unheard.

    A file that was half written complains when it is closed at last.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
    gc.collect()


def _say_nothing(_: object) -> None:
    """Keeps what an object says that is deleted in the middle of its work."""


class _Ending:
    """The end of a command, from its first signal on.

    Args:
        last_words: Returns what is said then.

    Attributes:
        is_told: Whether there was a signal.
    """

    def __init__(self, last_words: Callable[[], str]) -> None:
        self._last_words = last_words
        self._is_said = False
        self.is_told = False

    def begin(self, number: int, frame: FrameType | None) -> None:
        """Ends what the main thread does."""
        self.is_told = True
        sys.unraisablehook = _say_nothing
        raise KeyboardInterrupt

    def watch(self, reading: int) -> None:
        """Ends the process if the main thread does not, or at a second signal.

        Python's own handlers wait until compiled code returns.

        Args:
            reading: Gives the number of each signal, and ends with the command.
        """
        if self._is_told(reading, None) and self._is_told(reading, _PATIENCE):
            os.write(_STDERR, self._words().encode())
            os._exit(INTERRUPTED)

    def say(self) -> None:
        """Says what is kept, once."""
        sys.stderr.write(self._words())
        sys.stderr.flush()

    def _words(self) -> str:
        words = "" if self._is_said else f"\nkddp: {self._last_words()}\n"
        self._is_said = True
        return words

    def _is_told(self, reading: int, seconds: float | None) -> bool:
        """Waits for a signal; says whether the process is to end then.

        Args:
            reading: As `watch` takes it.
            seconds: After so many it is to end without one; None: it is not.
        """
        while select.select([reading], [], [], seconds)[0]:
            number = os.read(reading, 1)
            if not number:
                return False
            if number[0] in _SIGNALS:
                return True
        return True
