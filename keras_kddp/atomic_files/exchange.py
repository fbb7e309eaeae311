"""A finished value put where the former one is, in one step or in two."""

import ctypes
import errno
import os
import shutil
import sys
from pathlib import Path

from keras_kddp.atomic_files.lock import NEW, OLD, TargetError
from keras_kddp.atomic_files.manifest import is_complete

_HERE = -100  # AT_FDCWD: paths count from the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_NOT_THERE = (
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,  # some sandboxes refuse what they do not know
)


def put(place: Path, target: Path) -> None:
    """Puts the value in a writer's folder where a target is, or shall be.

    The former value, if there is one, is in the writer's folder then. A
    process that dies in between leaves the former or the new value, or both
    in the writer's folder, which `finish` knows.

    Args:
        place: The writer's folder, with the value.
        target: Nothing yet, an empty folder, or a value.

    Raises:
        OSError: If it cannot be put there; the former value is there then.
    """
    new, old = place / NEW, place / OLD
    if not target.exists() or not any(target.iterdir()):
        os.rename(new, target)
    elif not _exchanged(new, target):
        os.rename(target, old)
        try:
            os.rename(new, target)
        except BaseException:
            os.rename(old, target)
            raise


def check_movable(place: Path, target: Path) -> None:
    """Checks that what is at a target can be put elsewhere; it stays there.

    A system refuses it where something is mounted, and on an overlay of
    layers for a folder of a lower one, such as a container's image.

    Args:
        place: The writer's folder, held by the caller, without a former value.
        target: A folder; an empty one need not be put elsewhere.

    Raises:
        TargetError: If it cannot.
    """
    old = place / OLD
    (old / "filled").mkdir(parents=True)
    try:
        os.rename(target, old)
    except OSError as error:  # it always fails: what it goes onto is filled
        shutil.rmtree(old)
        is_refused = error.errno == errno.EXDEV and any(target.iterdir())
        if is_refused or error.errno == errno.EBUSY:
            raise TargetError(
                f"'{target}' must be a folder that can be replaced as a whole. "
                f"Received one that cannot be renamed ({error.strerror}): it "
                "is mounted, or comes from a lower layer of an overlay, such "
                "as a container's image. Put a copy in its place, or choose "
                "another path."
            ) from error
    else:  # a disk that does not mind
        os.rename(old, target)


def is_between(place: Path, target: Path) -> bool:
    """Says whether a writer died, or is, between two renames."""
    return (place / OLD).is_dir() and not os.path.lexists(target)


def halfway(place: Path) -> Path:
    """Returns the value that counts between two renames: the new, if whole."""
    new = place / NEW
    return new if is_complete(new) else place / OLD


def finish(place: Path, target: Path) -> None:
    """Ends what a writer has begun that died between two renames.

    Args:
        place: The writer's folder, held by the caller.
        target: Where its value belongs.

    Raises:
        OSError: If the value cannot be put there.
    """
    if is_between(place, target):
        os.rename(halfway(place), target)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchanges two folders at once; False where the system cannot do that.

    Raises:
        OSError: If it can, but these two cannot be exchanged.
    """
    library = ctypes.CDLL(None, use_errno=True)
    paths = (os.fsencode(one), os.fsencode(other))
    try:
        if sys.platform == "darwin":
            code = library.renamex_np(*paths, _EXCHANGE)
        else:
            code = library.renameat2(
                _HERE, paths[0], _HERE, paths[1], _EXCHANGE
            )
    except AttributeError:  # a library without it
        return False
    if code == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_THERE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
