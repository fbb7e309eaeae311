"""Files and folders that are complete or not there."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a new file beside the target, renamed to it on success."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a directory")
        partial.open("xb").close()
    except OSError as error:
        raise type(error)(
            "`path` must be a file in an existing, writable directory. "
            f"Received: path={str(target)!r} ({error}). Create the directory "
            "first, or choose another."
        ) from error
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Checks that a cache can be written, before the teacher is asked.

    Raises:
        OSError: If not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    probe.touch()
    probe.unlink()


def writable_directory(directory: str | os.PathLike[str]) -> Path:
    """Returns a directory that was made and written to.

    Raises:
        OSError: If that fails.
    """
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f".writable-{os.getpid()}"
    probe.touch()
    probe.unlink()
    return path


def write_json(path: Path, content: Any) -> None:
    """Writes a file that is complete or not there."""
    partial_file = path.with_suffix(".partial")
    partial_file.write_text(json.dumps(content, indent=2) + "\n")
    partial_file.replace(path)
