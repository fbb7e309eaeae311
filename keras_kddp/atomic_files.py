"""Files and folders that are complete or not there."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PREFIX = ".keras_kddp_"
"""Of the folder beside the target in which it is made."""


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a path for a new file, which replaces the target on success.

    The new file bears the target's name in a folder of its own, since some
    writers choose the format by the suffix.

    Args:
        target: The file; its directory exists.

    Raises:
        OSError: If no file can be written there; nothing was yielded then.
    """
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a directory")
        place = tempfile.TemporaryDirectory(dir=target.parent, prefix=_PREFIX)
    except OSError as error:
        raise type(error)(
            "`path` must be a file in an existing, writable directory. "
            f"Received: path={str(target)!r} ({error}). Create the directory "
            "first, or choose another."
        ) from error
    with place as folder:
        new = Path(folder, target.name)
        yield new
        os.replace(new, target)


@contextlib.contextmanager
def making_folder(target: Path) -> Iterator[Path]:
    """Yields a new folder, which becomes the target on success.

    Args:
        target: The folder: empty, or not there; those above it are made.

    Raises:
        OSError: If it holds something by then, or cannot be written.
    """
    with _beside(target) as place:
        new = place / "new"
        new.mkdir()
        yield new
        os.replace(new, target)


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yields a new folder, which replaces the target on success.

    What was there is deleted then, and comes back if the new folder cannot be
    put in its place.

    Args:
        target: The folder, whatever it holds; those above it are made.

    Raises:
        OSError: If it cannot be written.
    """
    with _beside(target) as place:
        new, old = place / "new", place / "old"
        new.mkdir()
        yield new
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(new, target)
        except BaseException:
            if old.exists():
                os.replace(old, target)
            raise


def copy_files(source: Path, target: Path) -> None:
    """Copies all files of a folder into another, among those that are there.

    Files of the same names are replaced, none before the last is copied.

    Args:
        source: The folder.
        target: The other; made if it is not there.

    Raises:
        OSError: If they cannot be written there.
    """
    with contextlib.ExitStack() as copies:
        folder = writable_directory(target)
        for file in source.iterdir():
            copy = copies.enter_context(replacing(folder / file.name))
            shutil.copyfile(file, copy)


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8 that is complete or not there.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON as a file that is complete or not there.

    Raises:
        TypeError: If JSON cannot hold the content.
        OSError: If the file cannot be written.
    """
    write_text(path, as_json(content))


def as_json(content: Any) -> str:
    """Returns what `write_json` writes.

    Raises:
        TypeError: If JSON cannot hold the content.
    """
    return json.dumps(content, indent=2) + "\n"


def writable_directory(directory: str | os.PathLike[str]) -> Path:
    """Returns a directory that was made and written to.

    Raises:
        OSError: If that fails.
    """
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path, prefix=_PREFIX):
        return path


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Yields a folder on the target's file system that is removed in the end.

    Its own permissions are the user's alone; what is made in it has the
    usual ones.
    """
    directory = writable_directory(target.parent)
    with tempfile.TemporaryDirectory(dir=directory, prefix=_PREFIX) as name:
        yield Path(name)
