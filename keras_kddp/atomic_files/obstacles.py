"""What keeps a target from being written, found before any work."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_kddp.atomic_files.exchange import is_between
from keras_kddp.atomic_files.kinds import KINDS
from keras_kddp.atomic_files.lock import (
    TargetError,
    check_not_held,
    check_place_of_writer,
    place_of,
)
from keras_kddp.atomic_files.names import check_length, check_name
from keras_kddp.atomic_files.ownership import strangers

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORDS_OF_FULL = re.compile(
    r"no space left|errno = 28|disk quota exceeded"  # of HDF5, TensorFlow
    r"|\d+ requested and \d+ written",  # of NumPy
    re.IGNORECASE,
)
_ADVICE = {
    True: "Give overwrite=True (--overwrite on the command line) to replace it",
    False: "Remove it",
}
_LEAST = 1 << 17  # bytes that must be free for the smallest value
_NAMED = 3  # so many strangers are named in a message


def resolved(path: str | os.PathLike[str]) -> Path:
    """Returns where links lead that a path has, or is.

    Raises:
        ValueError: If it is no path that can be written.
        OSError: If they lead round and round, or to where no folder is, or
            the path leads through a file.
    """
    given = Path(path)
    check_name(given)
    check_length(place_of(given))
    try:
        os.stat(given)
    except FileNotFoundError:
        found = Path(os.path.realpath(given))
        if given.is_symlink() and not found.parent.is_dir():
            raise FileNotFoundError(
                f"'{given}' must lead to a folder, or into one. Received a "
                f"link to '{found}', whose folder is not there. Make "
                f"'{found.parent}', or remove the link."
            ) from None
        return found
    except NotADirectoryError as error:
        raise NotADirectoryError(
            f"'{given}' must lie in a folder. Received a path through a file: "
            f"{error.strerror}. Choose another."
        ) from error
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(
            errno.ELOOP,
            f"'{given}' must lead somewhere. Received links that lead back to "
            "themselves. Remove them, or choose another path",
        ) from error
    return Path(os.path.realpath(given))


def check_target(
    target: str | os.PathLike[str],
    kind: str,
    *,
    overwrite: bool,
    bytes_needed: int = 0,
) -> Path:
    """Finds all that would keep a folder from being written, or replaced.

    Args:
        target: The folder; those above it will be made.
        kind: What it shall become; see `KINDS`.
        overwrite: Whether a value of this kind that is there, as it was
            written, may be replaced.
        bytes_needed: Room that must be free on its disk, beside some for
            what every value has.

    Returns:
        The folder, without links.

    Raises:
        TargetError: If it is a file, the working directory or above it, or
            a place where a disk is mounted; if it holds anything else; if it
            holds a value and is not to be overwritten.
        BlockingIOError: If another writer is at it.
        OSError: If there are no rights, or is not the room.
    """
    path = check_place(target)
    _check_room(path, bytes_needed)
    if not is_between(place_of(path), path):
        check_content(path, kind, overwrite=overwrite)
    return path


def check_changeable(target: str | os.PathLike[str]) -> Path:
    """Finds all that would keep a folder from being added to.

    Args:
        target: A folder that is there.

    Returns:
        The folder, without links.

    Raises:
        OSError: As `check_target` says, whatever the folder holds.
    """
    path = check_place(target)
    size = sum(
        each.stat().st_size for each in path.rglob("*") if each.is_file()
    )
    _check_room(path, size)
    return path


def check_place(target: str | os.PathLike[str]) -> Path:
    """Finds what would keep any folder from being put at a path.

    Args:
        target: The folder, there or not.

    Returns:
        The folder, without links.

    Raises:
        OSError: As `check_target` says, but for the room and the content.
    """
    path = resolved(target)
    _check_exchangeable(path)
    check_length(place_of(path))
    _check_rights(path)
    check_not_held(path)
    check_place_of_writer(place_of(path))
    return path


def _check_exchangeable(path: Path) -> None:
    """Checks that a folder is none that cannot be put elsewhere.

    Raises:
        TargetError: If it is.
    """
    here = Path(os.path.realpath("."))
    if path == here or path in here.parents:
        raise TargetError(
            f"'{path}' must not be the working directory, nor one above it: "
            "the folder is replaced as a whole. Go to another directory "
            "first, or choose another path."
        )
    if path.is_dir() and os.path.ismount(path):
        raise TargetError(
            f"'{path}' must be a folder that can be replaced as a whole. "
            "Received one where a disk is mounted. Choose a folder in it, "
            f"such as '{path / 'run'}'."
        )
    if os.path.lexists(path) and not path.is_dir():
        raise TargetError(
            f"'{path}' must be a folder, or nothing yet. Received a file, "
            "which holds something else. Choose another path."
        )


def _check_rights(path: Path) -> None:
    """Checks that a folder can be made, filled and replaced.

    Raises:
        OSError: If it cannot.
    """
    above = _existing(path.parent)
    if not above.is_dir():
        raise NotADirectoryError(
            f"'{path}' must lie in a folder. Received '{above}', a file, above "
            "it. Choose another path."
        )
    folders = [above]
    if path.is_dir():
        folders += [path, *(each for each in path.rglob("*") if each.is_dir())]
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(
                f"'{path}' must be a folder that you can write, with all that "
                f"is in it, in one that you can write. Received '{folder}', "
                "which you cannot. Change its rights, or choose another path."
            )


def _check_room(path: Path, bytes_needed: int) -> None:
    """Checks that a disk has room.

    Raises:
        OSError: If it has not.
    """
    bytes_needed += _LEAST
    disk = shutil.disk_usage(_existing(path.parent))
    if disk.total and disk.free < bytes_needed:  # 0: it does not say
        raise OSError(
            errno.ENOSPC,
            f"About {bytes_needed:,} bytes must be free for '{path}'. Received "
            f"a disk with {disk.free:,}. Make room, or choose another disk",
        )


def _existing(path: Path) -> Path:
    """Returns a path, or the first above it at which there is something."""
    while not os.path.lexists(path):
        path = path.parent
    return path


def check_content(path: Path, kind: str, *, overwrite: bool) -> None:
    """Checks that nothing is lost where a folder is replaced.

    Raises:
        TargetError: If it holds something that was not written as a value of
            this kind; if it holds such a value and is not to be overwritten.
    """
    if not path.is_dir() or not any(path.iterdir()):
        return
    check_no_more(path, kind)
    if not overwrite:
        raise TargetError(
            f"'{path}' must be a folder that is new or empty. Received one "
            f"that holds {KINDS[kind].words} already. {_ADVICE[kind == 'run']}"
            ", or choose another path."
        )


def check_no_more(path: Path, kind: str, others: Sequence[str] = ()) -> None:
    """Checks that a folder holds a value of a kind, and nothing else.

    Args:
        path: The folder.
        kind: See `KINDS`.
        others: What else it may hold.

    Raises:
        TargetError: If it holds more, or the value was changed.
    """
    found = [name for name in strangers(path, kind) if name not in others]
    if found:
        more = f" and {len(found) - _NAMED} more" * (len(found) > _NAMED)
        raise TargetError(
            f"'{path}' must be a folder that is new, empty, or "
            f"{KINDS[kind].words} as it was written. Received a folder which "
            f"holds something else, or changed files: "
            f"{', '.join(found[:_NAMED])}{more}. Move them away, or choose "
            "another path."
        )


@contextlib.contextmanager
def telling_of_a_full_disk(target: Path) -> Iterator[None]:
    """Makes one clear error of all that a full disk leads to.

    Args:
        target: What is written.

    Raises:
        OSError: If the disk is full; any other error is left as it is.
    """
    try:
        yield
    except Exception as error:
        if not _is_of_full_disk(error):
            raise
        raise OSError(
            errno.ENOSPC,
            f"The disk must have room for '{target}'. Received a full one: "
            "what was there is as it was. Make room and write it again, or "
            "choose another disk",
        ) from error


def _is_of_full_disk(error: BaseException | None) -> bool:
    """Says whether an error, or what it comes from, is of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if _WORDS_OF_FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
