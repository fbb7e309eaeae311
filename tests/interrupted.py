"""A process that is killed, or a disk that is full, at any single write.

Python tells a hook of every file that it opens and every name that it makes,
moves or removes, before it does so. The hook here ends the k-th of them, and
all that would follow: what a dying process would still tidy up included.
"""

import contextlib
import errno
import os
import shutil
import sys
from pathlib import Path

from keras_kddp.atomic_files import exchange

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_MAKING = {"os.mkdir", "os.link", "os.symlink"}
_MOVING = {"os.rename", "os.remove", "os.rmdir", "exchange"}
_listening = []


class Killed(BaseException):
    """The end of a process; nothing catches it."""


def _hook(event, arguments):
    for listen in _listening:
        listen(event, arguments)


sys.addaudithook(_hook)


def _is_write(event, arguments, kinds, root):
    """Says whether an event changes what is in a folder."""
    if event == "open":
        _, mode, flags = arguments
        if isinstance(mode, str) or not flags & _WRITES:
            if not set("wax+") & set(mode or ""):
                return False
    elif event not in kinds:
        return False
    path = arguments[0]
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    path = os.fsdecode(path)
    return not os.path.isabs(path) or Path(root) in Path(path).parents


@contextlib.contextmanager
def _stopped(root, number, kinds, error):
    """Raises an error at the write of a number, and at all that follow."""
    count = 0

    def listen(event, arguments):
        nonlocal count
        if _is_write(event, arguments, kinds, root):
            count += 1
            if count >= number:
                raise error()

    _listening.append(listen)
    try:
        yield
    finally:
        _listening.remove(listen)


def killed(root, number):
    """Kills what runs inside at its write of a number below a folder."""
    return _stopped(root, number, _MAKING | _MOVING, Killed)


def full(root, number):
    """Fills the disk at the write of a number; names can still be removed."""

    def error():
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return _stopped(root, number, _MAKING, error)


def states(root, act, *, stop=killed):
    """Yields the number of each write that `act` was stopped at.

    Args:
        root: Folder whose writes count; the caller sets it up again each time.
        act: What writes; it has ended by itself after the last state.
        stop: `killed` or `full`.
    """
    number = 0
    while True:
        number += 1
        try:
            with stop(root, number):
                act()
        except Killed:
            yield number
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            yield number
        else:
            return


def watched_exchange(monkeypatch):
    """Makes the exchange of two folders a write like every other."""
    real = exchange._exchanged

    def exchanged(one, other):
        sys.audit("exchange", str(other))
        done = real(one, other)
        sys.audit("exchange", str(other))
        return done

    monkeypatch.setattr(exchange, "_exchanged", exchanged)


def without_exchange(monkeypatch):
    """Takes the file system's exchange away, so that there are two renames."""
    monkeypatch.setattr(exchange, "_exchanged", lambda *_: False)


@contextlib.contextmanager
def snapshots(root, copies):
    """Copies a folder at each write that happens below it, and at the end.

    Args:
        root: The folder.
        copies: Where the copies go; yields the list of their paths.
    """
    found = []

    def take(event="", arguments=()):
        if event and not _is_write(event, arguments, _MAKING | _MOVING, root):
            return
        _listening.remove(take)
        try:
            copy = Path(copies, f"{len(found):03d}")
            shutil.copytree(root, copy, symlinks=True)
            found.append(copy)
        finally:
            _listening.append(take)

    _listening.append(take)
    try:
        yield found
        take()
    finally:
        _listening.remove(take)
