"""One writer at a time: the folder beside a target that it holds."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".unfinished"
"""Of the folder in which a target is made, beside it."""

NEW, OLD, PARTS, LOCK = "new", "old", "parts", "lock"
"""What is in it: the value that is made, the one that goes, the finished parts
of a run in progress, and who writes."""

_PROGRAM = "keras_kddp"
_SIGNATURE = 120  # bytes
_TRIES, _SECONDS = 10, 0.01
_held: set[int] = set()


class TargetError(FileExistsError, ValueError):
    """What is at a path cannot be replaced by what shall be written there."""


def place_of(target: Path) -> Path:
    """Returns the folder in which a target is made.

    Args:
        target: Without links; see `resolved`.
    """
    return target.parent / (target.name + SUFFIX)


@contextlib.contextmanager
def holding(target: Path) -> Iterator[Path]:
    """Yields the folder in which a target is made, held against all others.

    What the writer leaves in it stays there; `remove_place` removes it.

    Args:
        target: Without links; the folder that it is in exists.

    Raises:
        BlockingIOError: If another writer holds it.
        TargetError: If something else has its name.
        OSError: If it cannot be made.
    """
    place = place_of(target)
    check_place_of_writer(place)
    descriptor = acquired(place)
    try:
        yield place
    finally:
        leave(descriptor)


def acquired(place: Path) -> int:
    """Returns the open lock of a folder, which is made; for `leave`.

    Raises:
        BlockingIOError: If another writer has it.
        OSError: If it cannot be made.
    """
    for left in reversed(range(_TRIES)):
        with contextlib.suppress(FileExistsError):
            make_folder(place)
        try:
            descriptor = os.open(place / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # its writer has ended in between
        except OSError:
            with contextlib.suppress(OSError):
                place.rmdir()
            raise
        try:
            if _is_locked(descriptor, place):
                if not left:
                    raise BlockingIOError(refusal(place))
                time.sleep(_SECONDS)  # `is_held` may have it for a moment
            elif _is_current(descriptor, place):
                _sign(descriptor)
                _held.add(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise BlockingIOError(refusal(place))


def leave(descriptor: int) -> None:
    """Closes a lock, for others to have it."""
    _held.discard(descriptor)
    os.close(descriptor)


def make_folder(path: Path) -> None:
    """Makes a folder.

    Raises:
        OSError: If there is something, or none can be made.
    """
    try:
        path.mkdir()
    except FileExistsError:
        raise
    except OSError as error:
        raise type(error)(
            error.errno,
            f"'{path}' must lie where a folder can be made. Received: "
            f"{error.strerror}. Choose another path",
        ) from error


def _is_locked(
    descriptor: int, place: Path, *, only_asks: bool = False
) -> bool:
    """Locks a file; says whether another has locked it."""
    try:
        import fcntl  # here: Windows has none
    except ImportError:
        return False
    try:
        # What is open for reading cannot be locked against readers on NFS.
        kind = fcntl.LOCK_SH if only_asks else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise OSError(
            error.errno,
            f"The file system of '{place}' must lock files, so that two "
            f"writers do not mix. Received: {error.strerror}. Write to another "
            "disk, and copy the folder then",
        ) from error
    return False


def _is_current(descriptor: int, place: Path) -> bool:
    """Says whether an open lock is the one that is in the place by now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(place / LOCK))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Writes into a lock who holds it."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    text = json.dumps({"program": _PROGRAM, "pid": os.getpid(), "since": now})
    # Of one length, so that who reads it meanwhile never reads two in one.
    os.pwrite(descriptor, text.ljust(_SIGNATURE).encode(), 0)


def _signature(place: Path) -> dict[str, object]:
    """Returns what stands in a lock; nothing where it is not ours."""
    if not (place / LOCK).is_file():  # a pipe would never end
        return {}
    try:
        with (place / LOCK).open("rb") as file:
            found = json.loads(file.read(1000))
    except (OSError, ValueError, RecursionError):
        return {}
    is_ours = isinstance(found, dict) and found.get("program") == _PROGRAM
    return found if is_ours else {}


def refusal(place: Path) -> str:
    """Returns who holds a place, in words."""
    found = _signature(place)
    who = f"process {found['pid']} since {found['since']}" if found else "one"
    target = place.name.removesuffix(SUFFIX)
    return (
        f"'{place.parent / target}' must have one writer at a time. Received "
        f"a second: {who} writes it. Wait for its end, or choose another path."
    )


def is_held(place: Path) -> bool:
    """Says whether a live writer holds a place; it is left as it is."""
    if not (place / LOCK).is_file():  # a pipe would never open
        return False
    try:
        descriptor = os.open(place / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        return _is_locked(descriptor, place, only_asks=True)
    finally:
        os.close(descriptor)


def is_place(place: Path) -> bool:
    """Says whether a folder is one in which a target is, or was, made.

    One with links is none: what they lead to would be written, or emptied.
    """
    if place.is_symlink() or not place.is_dir():
        return False
    entries = [*place.iterdir()]
    if any(x.is_symlink() for x in (*entries, *(place / PARTS).rglob("*"))):
        return False
    names = {path.name for path in entries}
    if names and not _signature(place):
        return names == {LOCK} and is_lock(place)
    return names <= {NEW, OLD, PARTS, LOCK}


def is_lock(place: Path) -> bool:
    """Says whether the lock in a folder is there, and one of ours."""
    path = place / LOCK
    if path.is_symlink() or not path.is_file():
        return False
    # Empty: its writer was killed before it could sign.
    return bool(_signature(place)) or not path.stat().st_size


def check_place_of_writer(place: Path) -> None:
    """Checks that nothing else has the name of the folder of a writer.

    Raises:
        TargetError: If something has.
    """
    if os.path.lexists(place) and not is_place(place):
        raise TargetError(
            f"'{place}' must be free: '{place.name.removesuffix(SUFFIX)}' is "
            "made there. Received something that was not written for that. "
            "Move it away, or choose another path."
        )


def check_not_held(target: Path) -> None:
    """Checks that nobody writes a target, or a folder that it is in.

    Args:
        target: Without links.

    Raises:
        BlockingIOError: If somebody does.
    """
    for path in (target, *target.parents):
        if path.name and is_held(place_of(path)):
            raise BlockingIOError(refusal(place_of(path)))


def remove_place(place: Path, *, with_parts: bool = False) -> None:
    """Removes the folder of a writer, as far as it can be; the lock last.

    Args:
        place: Held by the caller.
        with_parts: Whether the finished parts of a run go too; with them the
            folder stays.
    """
    for name in (NEW, OLD, PARTS) if with_parts else (NEW, OLD):
        shutil.rmtree(place / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        if {path.name for path in place.iterdir()} == {LOCK}:
            (place / LOCK).unlink()
            place.rmdir()


def _forget() -> None:
    """Leaves the locks of a process to it, in a copy of the process."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
