"""A folder that one job writes into, over a longer time than one value."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from keras_kddp.atomic_files.lock import (
    LOCK,
    acquired,
    is_lock,
    leave,
    refusal,
)

_locks: dict[str, "FolderLock"] = {}
"""Those that this process holds, by the paths of their folders."""


class FolderLock:
    """Holds a folder for one job, until that lets it go or its process ends.

    A job of this process that ended without letting go is no obstacle.

    Args:
        folder: What the job writes into.
        is_running: Says whether the job still runs.
    """

    def __init__(self, folder: Path, is_running: Callable[[], bool]) -> None:
        """Holds nothing yet."""
        self._folder = folder
        self._is_running = is_running
        self._descriptor: int | None = None

    def take(self) -> None:
        """Holds the folder, which is made, with a file that says so.

        Raises:
            BlockingIOError: If another job holds it.
            OSError: If it cannot be written.
        """
        path = os.path.realpath(self._folder)
        if former := _locks.get(path):
            if former._is_running():
                raise BlockingIOError(refusal(self._folder))
            former.release()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = acquired(self._folder)
        _locks[path] = self

    def release(self, *, with_folder: bool = False) -> None:
        """Lets the folder go; nothing happens where it is not held.

        Args:
            with_folder: Remove it if nothing is in it.
        """
        if self._descriptor is None or not self._is_mine():
            return
        with contextlib.suppress(OSError):
            (self._folder / LOCK).unlink()  # while nobody else can hold it
        leave(self._descriptor)
        self._descriptor = None
        _locks.pop(os.path.realpath(self._folder), None)
        if with_folder:
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def _is_mine(self) -> bool:
        """Says whether this is no copy in a forked process."""
        return any(lock is self for lock in _locks.values())


def is_lock_of_folder(path: Path) -> bool:
    """Says whether a file is what a FolderLock leaves in its folder."""
    return path.name == LOCK and is_lock(path.parent)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_locks.clear)
