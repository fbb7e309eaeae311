"""Files of others, looked at before what they promise is taken into memory."""

import json
import os
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

FREE_BYTES = 1 << 28
"""256 MiB: what any file may unpack to, however small it is."""

MOST_EXPANSION = 100
"""How many times its own size a file may unpack to beyond that.

Keras' own guard has this number. Files that are stored as they are, which is
what Keras and `numpy.savez` write, unpack to their own size.
"""

MOST_JSON_BYTES = 1 << 25
"""32 MiB: of a configuration; that of the largest models of Keras has 3."""

_MOST_RECORD_BYTES = 1 << 22  # 4 MiB: of numbers of a run, or of a key
_MOST_MEMBERS = 100_000
_CODECS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def check_regular(path: str | os.PathLike[str]) -> int:
    """Returns the size of a file in bytes.

    Raises:
        OSError: If there is no file: none at all, a folder, or a pipe or a
            device, of which reading might never end.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(
            f"'{path}' must be a file. Received a folder, a pipe or a device. "
            "Name a file."
        )
    return status.st_size


def check_unpacked(name: object, unpacked: int, packed: int) -> None:
    """Checks that a file does not unpack to what no memory holds.

    Args:
        name: Of the file, or of a part of it.
        unpacked: Bytes that it promises.
        packed: Bytes that it is.

    Raises:
        ValueError: If it promises more than 256 MiB and more than a hundred
            times its own size, or more than this machine has memory.
    """
    limit = min(max(FREE_BYTES, MOST_EXPANSION * packed), _memory())
    if unpacked > limit:
        raise ValueError(
            f"'{name}' must unpack to at most {limit:,} bytes: 256 MiB, or a "
            f"hundred times its own {packed:,} bytes, and no more than the "
            f"memory of this machine. Received one that promises {unpacked:,}. "
            "It is damaged, or made to fill the memory: fetch it again."
        )


def check_archive(path: str | os.PathLike[str], file: Any) -> None:
    """Checks the members of a zip archive before one is read.

    Args:
        path: What the archive is called.
        file: It, open; read from its beginning.

    Raises:
        ValueError: If a member escapes from the folder that it is unpacked
            into, is no plain file, stands there twice, or unpacks to what no
            memory holds.
        zipfile.BadZipFile: If it is no archive.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise ValueError(
            f"'{path}' must hold at most {_MOST_MEMBERS:,} members. Received: "
            f"{len(members):,}. It is not what it says; do not use it."
        )
    seen = set[str]()
    for member in members:
        if not _stays_inside(member) or member.filename in seen:
            raise ValueError(
                f"'{path}' must hold plain files, each once, under names that "
                f"stay inside of it. Received: {member.filename!r}. It is not "
                "what it says; do not use it."
            )
        seen.add(member.filename)
        check_unpacked(
            f"{path}: {member.filename}", member.file_size, member.compress_size
        )
    packed = sum(member.compress_size for member in members)
    # Members that share their bytes would count each other's.
    packed = min(packed, file.seek(0, os.SEEK_END))
    check_unpacked(path, sum(member.file_size for member in members), packed)


def _stays_inside(member: zipfile.ZipInfo) -> bool:
    """Says whether a member is a plain file or folder inside an archive."""
    name = PurePosixPath(member.filename.replace("\\", "/"))
    kind = stat.S_IFMT(member.external_attr >> 16)
    return (
        not name.is_absolute()
        and ".." not in name.parts
        and ":" not in member.filename
        and kind in (0, stat.S_IFREG, stat.S_IFDIR)
        and member.compress_type in _CODECS
        and not member.flag_bits & 1  # encrypted
    )


def parsed_json(
    text: str | bytes, name: object, most_bytes: int = MOST_JSON_BYTES
) -> Any:
    """Returns what JSON says.

    Args:
        text: It.
        name: Of what it stands in.
        most_bytes: What it may have; JSON takes up to thirty times as much
            memory.

    Raises:
        ValueError: If it is no JSON, too long or too deep.
    """
    if len(text) > most_bytes:
        raise ValueError(
            f"'{name}' must be JSON of at most {most_bytes:,} bytes. Received "
            "more. It is not what it says."
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"'{name}' must be JSON. Received: {error}."
        ) from error


def read_json(path: Path) -> Any:
    """Returns what a JSON file says.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, too long or too deep.
    """
    check_regular(path)
    with path.open("rb") as file:
        text = file.read(_MOST_RECORD_BYTES + 1)
    return parsed_json(text, path, _MOST_RECORD_BYTES)


def _memory() -> int:
    """Returns the bytes of memory of this machine, where that can be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 62
