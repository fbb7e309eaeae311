"""Which entries of a folder were not written by us, or not left so."""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from keras_kddp.atomic_files.kinds import KINDS
from keras_kddp.atomic_files.lock import SUFFIX, is_held, is_place
from keras_kddp.atomic_files.manifest import (
    MANIFEST,
    Manifest,
    read_manifest,
    sum_of,
)

_FORMER_PLACE = ".keras_kddp_*"  # of writers before there was SUFFIX


def strangers(folder: Path, kind: str) -> list[str]:
    """Returns what a folder holds beside a value that is as it was written.

    Args:
        folder: Anything; an empty one has no strangers.
        kind: What it shall be; see `KINDS`.

    Returns:
        Paths in the folder: what no writer of this kind left there, or what
        was changed since.

    Raises:
        OSError: If the folder cannot be read.
    """
    return [*_strangers(folder, kind)]


def _strangers(folder: Path, kind: str) -> Iterator[str]:
    manifest = read_manifest(folder)
    if manifest is None:
        yield from _former_strangers(folder, kind)
    elif manifest.kind != kind:
        yield MANIFEST
    else:
        yield from _changes(folder, manifest)


def _changes(
    folder: Path, manifest: Manifest, above: str = ""
) -> Iterator[str]:
    """Yields what is not as the list of a folder has it."""
    for entry in _sorted(folder / above):
        path, name = Path(entry.path), above + entry.name
        if entry.is_file(follow_symlinks=False):
            if name != MANIFEST and manifest.files.get(name) != sum_of(path):
                yield name
        elif not entry.is_dir(follow_symlinks=False):
            yield name
        elif manifest.values.get(name) in KINDS:
            found = _strangers(path, manifest.values[name])
            yield from (f"{name}/{each}" for each in found)
        elif name in manifest.folders:
            yield from _changes(folder, manifest, name + "/")
        elif not is_leftover(path):
            yield name


def _former_strangers(folder: Path, kind: str) -> Iterator[str]:
    """Yields what the folders of a kind did not hold before they had lists."""
    known, entries = KINDS[kind], _sorted(folder)
    is_one = not known.needed or any(
        _matches(entry.name, known.needed) for entry in entries
    )
    for entry in entries:
        path, name = Path(entry.path), entry.name
        if entry.is_file(follow_symlinks=False):
            if not is_one or not _matches(name, known.files):
                yield name
        elif not entry.is_dir(follow_symlinks=False):
            yield name
        else:
            kinds = [k for p, k in known.values.items() if fnmatchcase(name, p)]
            if is_one and kinds:
                found = _strangers(path, kinds[0])
                yield from (f"{name}/{each}" for each in found)
            elif not is_leftover(path):
                yield name


def links_at_names(folder: Path, kind: str) -> list[str]:
    """Returns the links that stand where files are added to a folder.

    Args:
        folder: Of a value.
        kind: What it is; see `KINDS`.

    Raises:
        OSError: If the folder cannot be read.
    """
    return [
        entry.name
        for entry in _sorted(folder)
        if entry.is_symlink() and _matches(entry.name, KINDS[kind].added)
    ]


def is_leftover(path: Path) -> bool:
    """Says whether a folder is what a killed writer has left."""
    if fnmatchcase(path.name, _FORMER_PLACE):
        return True
    is_named = path.name.endswith(SUFFIX)
    return is_named and is_place(path) and not is_held(path)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _sorted(folder: Path) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)
