"""Folders that are one value: the complete former one or the complete new."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from keras_kddp.atomic_files.copies import (
    check_linked,
    check_no_links,
    copy_value,
)
from keras_kddp.atomic_files.exchange import (
    check_movable,
    finish,
    halfway,
    is_between,
    put,
)
from keras_kddp.atomic_files.lock import (
    NEW,
    OLD,
    PARTS,
    holding,
    is_place,
    make_folder,
    place_of,
    remove_place,
)
from keras_kddp.atomic_files.manifest import (
    read_manifest,
    sync_names,
    write_manifest,
)
from keras_kddp.atomic_files.obstacles import (
    check_changeable,
    check_content,
    check_no_more,
    check_target,
    resolved,
    telling_of_a_full_disk,
)
from keras_kddp.atomic_files.ownership import strangers

Value = TypeVar("Value")

_TRIES, _SECONDS = 100, 0.02  # that a reader waits for a writer's two renames


@dataclass(frozen=True)
class Unfinished:
    """A folder that is being written, beside its target.

    Attributes:
        place: The folder `NAME.unfinished`.
    """

    place: Path

    @property
    def new(self) -> Path:
        """The folder that becomes the target."""
        return self.place / NEW

    @property
    def parts(self) -> Path:
        """A folder for what outlives a writer that fails or is killed."""
        path = self.place / PARTS
        path.mkdir(exist_ok=True)
        return path


@contextlib.contextmanager
def writing_folder(
    target: str | os.PathLike[str],
    kind: str,
    *,
    overwrite: bool,
    keeps_parts: bool = False,
    bytes_needed: int = 0,
) -> Iterator[Unfinished]:
    """Yields a new folder, which becomes the target as a whole on success.

    A process that is killed meanwhile leaves the target as it was, or the
    complete new one, and `TARGET.unfinished`, which the next writer cleans.

    Args:
        target: The folder; a link is followed, those above it are made.
        kind: What it becomes; see `KINDS`.
        overwrite: Whether a value of this kind may be replaced.
        keeps_parts: Whether it uses `parts`, which outlives a failure, is
            found as it was left, and is removed on success.
        bytes_needed: Room that must be free on its disk.

    Raises:
        TargetError: If the target is, or holds, something else.
        BlockingIOError: If another writer is at it.
        OSError: If it cannot be written; the target is as it was then.
    """
    path = check_target(
        target, kind, overwrite=overwrite, bytes_needed=bytes_needed
    )
    with _made(path.parent), telling_of_a_full_disk(path):
        with _placed(path, has_parts=keeps_parts) as unfinished:
            check_content(path, kind, overwrite=overwrite)
            yield unfinished
            write_manifest(unfinished.new, kind)
            check_content(path, kind, overwrite=overwrite)
            put(unfinished.place, path)
            sync_names(path.parent)


@contextlib.contextmanager
def changing_folder(
    target: str | os.PathLike[str], kind: str
) -> Iterator[Path]:
    """Yields a copy of a value to add to, which replaces it on success.

    What somebody else has put into it, or changed, stays the same file.

    Args:
        target: Folder of a value; a link is followed.
        kind: What it is; see `KINDS`.

    Raises:
        TargetError: If it cannot be replaced as a whole, a name of this kind
            in it is a link, or what somebody else has put into it was written
            over.
        BlockingIOError: If a writer is at it.
        OSError: If there is no such folder, or it cannot be written.
    """
    path = check_changeable(recovered(target))
    check_no_links(path, kind)
    with telling_of_a_full_disk(path), _placed(path) as unfinished:
        others = strangers(path, kind)
        linked = copy_value(path, unfinished.new, others)
        yield unfinished.new
        for folder in (unfinished.new, path):
            check_linked(folder, linked, path)
        known = read_manifest(path)
        sums = known.files if known is not None else {}
        write_manifest(
            unfinished.new, kind, {name: sums.get(name) for name in others}
        )
        check_no_more(path, kind, others)
        put(unfinished.place, path)
        sync_names(path.parent)


def recovered(target: str | os.PathLike[str]) -> Path:
    """Returns where a value is to be read, after all that was interrupted.

    A writer that died between two renames is finished.

    Args:
        target: Folder of a value; a link is followed.

    Raises:
        OSError: If links lead nowhere.
    """
    path = resolved(target)
    place = place_of(path)
    for _ in range(_TRIES):
        if not is_between(place, path):
            return Path(target)
        try:
            with holding(path):
                finish(place, path)
                remove_place(place)
        except BlockingIOError:
            time.sleep(_SECONDS)  # its writer is about to go on
        except OSError:
            return halfway(place)  # a reader without the right to write
    return Path(target)


def reading_folder(
    target: str | os.PathLike[str], read: Callable[[Path], Value]
) -> Value:
    """Returns what is read from a value that nobody has replaced meanwhile.

    Args:
        target: Folder of a value; a link is followed.
        read: Reads files of a folder; it is called again where the folder
            was replaced under its hands.

    Raises:
        Exception: What `read` raises.
    """
    for left in reversed(range(_TRIES)):
        path = recovered(target)
        before = _identity(path)
        try:
            found = read(path)
        except Exception:
            if not left or before == _identity(path):
                raise
            continue
        if not left or before == _identity(path):
            break
    return found


def _identity(path: Path) -> tuple[int, ...] | None:
    """Returns what tells a folder from the one that replaces it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def unfinished_at(target: str | os.PathLike[str]) -> Path | None:
    """Returns the folder with the parts of a value that is not finished.

    Args:
        target: The folder that it shall become; a link is followed.

    Returns:
        None where there are no parts.

    Raises:
        OSError: If links lead nowhere.
    """
    place = place_of(resolved(target))
    return place if is_place(place) and (place / PARTS).is_dir() else None


def parts_of(target: str | os.PathLike[str]) -> Path:
    """Returns where the writer of a value keeps `parts`, there or not.

    Args:
        target: The folder that it shall become; a link is followed.
    """
    return place_of(Path(os.path.realpath(target))) / PARTS


def remove_parts(target: str | os.PathLike[str]) -> None:
    """Removes what the writer of a value has left.

    Args:
        target: The folder that it became; a link is followed.

    Raises:
        BlockingIOError: If a writer is at it.
        OSError: If there is no folder to write in.
    """
    with holding(Path(os.path.realpath(target))) as place:
        remove_place(place, with_parts=True)


@contextlib.contextmanager
def _placed(path: Path, *, has_parts: bool = False) -> Iterator[Unfinished]:
    """Yields the folders of a writer, cleaned before and after.

    The parts of a run stay until a run has succeeded: they may be the work of
    hours, and to whoever writes something else they are nothing.
    """
    with holding(path) as place:
        unfinished = Unfinished(place)
        try:
            finish(place, path)
            for name in (NEW, OLD):
                shutil.rmtree(place / name, ignore_errors=True)
            unfinished.new.mkdir()
            if path.is_dir():
                check_movable(place, path)
                shutil.copymode(path, unfinished.new)
            yield unfinished
        except BaseException:
            remove_place(place)
            raise
        remove_place(place, with_parts=has_parts)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes a folder and those above it, for as long as all goes well."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):
                make_folder(path)
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):  # it holds something by now
                path.rmdir()
        raise
