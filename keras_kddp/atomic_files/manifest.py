"""The list of a folder's files, by which it is known to be as written."""

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = ".keras_kddp.json"
"""Name of the list in a folder."""

_VERSION = 1
_BYTES = 1 << 20  # read at once


@dataclass(frozen=True)
class Manifest:
    """What a folder held when it was finished.

    Attributes:
        kind: See `KINDS`.
        files: Path in the folder, with `/` -> the SHA-256 of the content.
        folders: Paths of the folders in it that have no list of their own.
        values: Path of a folder that has one -> its kind.
    """

    kind: str
    files: Mapping[str, str]
    folders: Sequence[str]
    values: Mapping[str, str]


def read_manifest(folder: Path) -> Manifest | None:
    """Returns the list in a folder; None where there is none to be read."""
    file = folder / MANIFEST
    if file.is_symlink() or not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not _is_manifest(content):
        return None
    names = ("kind", "files", "folders", "values")
    return Manifest(**{name: content[name] for name in names})


def _is_manifest(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and content.get("version") == _VERSION
        and isinstance(content.get("kind"), str)
        and isinstance(content.get("files"), dict)
        and isinstance(content.get("folders"), list)
        and isinstance(content.get("values"), dict)
        and all(isinstance(kind, str) for kind in content["values"].values())
    )


def write_manifest(
    folder: Path, kind: str, others: Mapping[str, str | None] | None = None
) -> None:
    """Lists what a folder holds; all of it is on the disk then.

    Args:
        folder: Finished but for the list, which is written last.
        kind: See `KINDS`.
        others: Paths of what somebody else has put there or changed -> the
            sum that it was written with, or None.

    Raises:
        OSError: If the folder cannot be read, or the list not be written.
    """
    others = others or {}
    files: dict[str, str] = {}
    folders: list[str] = []
    values: dict[str, str] = {}
    for name, path in _entries(folder, others):
        nested = read_manifest(path) if path.is_dir() else None
        if nested is not None:
            values[name] = nested.kind
        elif path.is_dir() and not path.is_symlink():
            folders.append(name)
            sync(path)
        else:
            files[name] = sum_of(path, is_synced=True)
    files |= {name: known for name, known in others.items() if known}
    content = {
        "version": _VERSION,
        "kind": kind,
        "files": files,
        "folders": folders,
        "values": values,
    }
    file = folder / MANIFEST
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sync(file)
    sync(folder)


def _entries(
    folder: Path, others: Collection[str], above: str = ""
) -> Iterator[tuple[str, Path]]:
    """Yields what a folder holds, without its list and what has another."""
    for path in sorted(folder.iterdir()):
        name = above + path.name
        if name == MANIFEST or name in others:
            continue
        yield name, path
        if path.is_dir() and read_manifest(path) is None:
            yield from _entries(path, others, name + "/")


def is_complete(folder: Path) -> bool:
    """Says whether a folder holds each file of its list as it was written."""
    manifest = read_manifest(folder)
    try:
        return manifest is not None and all(
            (folder / name).is_file() and sum_of(folder / name) == known
            for name, known in manifest.files.items()
        )
    except OSError:
        return False


def sum_of(path: Path, *, is_synced: bool = False) -> str:
    """Returns the SHA-256 of a file.

    Args:
        path: The file.
        is_synced: Whether it is brought onto the disk before.

    Raises:
        OSError: If it cannot be read.
    """
    if is_synced:
        sync(path)
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_BYTES):
            found.update(part)
    return found.hexdigest()


def sync_names(folder: Path) -> None:
    """Brings the names in a folder onto the disk, where a system can do that.

    What has got its name there is complete already, so that a failure loses
    nothing unless the power does.
    """
    with contextlib.suppress(OSError):
        sync(folder)


def sync(path: Path) -> None:
    """Brings a file or the names in a folder onto the disk.

    Raises:
        OSError: If the disk does not take it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
