"""A copy of a value to add to, with what others have put into it."""

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from keras_kddp.atomic_files.lock import TargetError
from keras_kddp.atomic_files.ownership import is_leftover, links_at_names


def copy_value(
    source: Path, target: Path, others: Collection[str]
) -> dict[str, os.stat_result]:
    """Copies a value; what is not of it is in both folders then.

    Args:
        source: Folder of a value.
        target: An empty folder on the same disk.
        others: Paths in the value that somebody else has put there or
            changed: they are linked, not copied, so that they are the same
            files for whoever has them open.

    Returns:
        What was linked, by its path in the target.

    Raises:
        OSError: If the disk cannot hold the copy, or knows no links.
    """
    linked = {}
    for name, path in _entries(source, others):
        place = target / name
        if name in others:
            for inner in (path, *_below(path)):
                there = target / inner.relative_to(source)
                if inner.is_dir() and not inner.is_symlink():
                    there.mkdir()
                    shutil.copystat(inner, there)
                else:
                    os.link(inner, there, follow_symlinks=False)
                    linked[str(inner.relative_to(source))] = inner.lstat()
        elif path.is_dir():
            place.mkdir()
            shutil.copymode(path, place)
        else:
            shutil.copy2(path, place)
    return linked


def check_no_links(path: Path, kind: str) -> None:
    """Checks that what is added to a folder is written in it, not elsewhere.

    Raises:
        TargetError: If a link stands where something may be added: what it
            leads to would be written over.
    """
    for name in links_at_names(path, kind):
        raise TargetError(
            f"'{path / name}' must be free, or as it was written. Received a "
            f"link to '{os.path.realpath(path / name)}', which would be "
            "written over. Remove the link, and start again."
        )


def check_linked(
    folder: Path, linked: dict[str, os.stat_result], target: Path
) -> None:
    """Checks that what is not of a value was left alone.

    Args:
        folder: The copy, changed by now, or the value itself.
        linked: From `copy_value`.
        target: The value.

    Raises:
        TargetError: If something was written over it.
    """
    for name, known in linked.items():
        path = folder / name
        if not os.path.lexists(path) or not os.path.samestat(
            path.lstat(), known
        ):
            raise TargetError(
                f"'{target / name}' must be free, or as a run has written it. "
                "Received another file, or a changed one, which stays. Move it "
                "away, and start again."
            )


def _entries(
    folder: Path, others: Collection[str], above: str = ""
) -> Iterator[tuple[str, Path]]:
    """Yields what a folder holds, without what a killed writer has left."""
    for path in sorted(folder.iterdir()):
        name = above + path.name
        if name in others:
            yield name, path
        elif not path.is_dir():
            yield name, path
        elif not is_leftover(path):
            yield name, path
            yield from _entries(path, others, name + "/")


def _below(path: Path) -> Iterator[Path]:
    """Yields all that a folder holds, each folder before what is in it."""
    if path.is_dir() and not path.is_symlink():
        for each in sorted(path.iterdir()):
            yield each
            yield from _below(each)
