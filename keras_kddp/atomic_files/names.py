"""Paths that cannot be written, whatever is there."""

import errno
import os
from pathlib import Path


def check_name(path: Path) -> None:
    """Checks that all who read and write can be told a path.

    Raises:
        ValueError: If it holds a zero byte, or bytes that are no UTF-8, which
            LiteRT does not take.
        FileNotFoundError: If it counts from a directory that was removed.
    """
    text = os.fspath(path)
    try:
        is_text = b"\0" not in text.encode()
    except UnicodeEncodeError:
        is_text = False
    if not is_text:
        raise ValueError(
            "A path must be UTF-8 without a zero byte. Received: "
            f"{text!r}. Rename the folder, or choose another path."
        )
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"'{path}' must be written from a working directory that is there. "
            "Received one that was removed. Go to another directory first."
        ) from error


def check_length(path: Path) -> None:
    """Checks that a name is no longer than the disk takes it.

    Args:
        path: Of what is made beside a target.

    Raises:
        OSError: If it is.
    """
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            return
        raise OSError(
            errno.ENAMETOOLONG,
            f"A path must be short enough for '{path.name}' to be made beside "
            f"it. Received {len(os.fsencode(path.name))} bytes in this name "
            f"and {len(os.fsencode(path))} in its path. Choose a shorter one",
        ) from error
