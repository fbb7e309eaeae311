"""Files that are complete or not there."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_kddp.atomic_files.lock import NEW, holding, remove_place
from keras_kddp.atomic_files.manifest import sync, sync_names
from keras_kddp.atomic_files.obstacles import resolved, telling_of_a_full_disk


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a path for a new file, which replaces the target on success.

    The new file bears the target's name in a folder of its own, since some
    writers choose the format by the suffix. Where the target is a link, what
    it points at is replaced. What a killed writer has left beside it is
    removed.

    Args:
        target: The file; its directory exists.

    Raises:
        OSError: If no file can be written there; nothing was yielded then.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(telling_of_a_full_disk(target))
        try:
            path = resolved(target)
            if path.is_dir():
                raise IsADirectoryError("it is a directory")
            place = held.enter_context(holding(path))
            shutil.rmtree(place / NEW, ignore_errors=True)
            held.callback(remove_place, place)
            (place / NEW).mkdir()
        except BlockingIOError:
            raise  # another writer is at it
        except OSError as error:
            raise type(error)(
                "`path` must be a file in an existing, writable directory. "
                f"Received: path={str(target)!r} ({error}). Create the "
                "directory first, or choose another."
            ) from error
        new = place / NEW / target.name
        yield new
        if path.exists():
            shutil.copymode(path, new)
        sync(new)
        os.replace(new, path)
        sync_names(path.parent)


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
