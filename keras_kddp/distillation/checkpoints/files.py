"""Checkpoints on disk: each one file that is whole or known to be torn."""

import contextlib
import errno
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from keras_kddp.atomic_files import sync_names
from keras_kddp.atomic_files.folder_lock import is_lock_of_folder
from keras_kddp.data.array_files import DAMAGES, archive_arrays
from keras_kddp.data.outside_files import check_regular
from keras_kddp.model_io import Array

SUFFIX = ".checkpoint"
_MAGIC = b"keras_kddp checkpoint 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_KEPT = 2
_META = "meta"
_TEMPORARY = ".unfinished"


class DamagedCheckpointsError(ValueError):
    """Says that no checkpoint is left that a run can go on from."""


class Stored(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        meta: JSON values.
        arrays: By number; they are named in `meta`.
    """

    meta: dict[str, Any]
    arrays: list[Array]


def write_checkpoint(folder: Path, number: int, stored: Stored) -> Path:
    """Writes a checkpoint, and removes all but the one before it.

    Args:
        folder: It is made if it is not there.
        number: Grows from checkpoint to checkpoint.
        stored: What it holds.

    Raises:
        OSError: If it cannot be written; the ones before are as they were.
    """
    meta = np.frombuffer(json.dumps(stored.meta).encode(), np.uint8)
    arrays = {f"a{i}": x for i, x in enumerate(stored.arrays)}
    target = folder / f"{number:08d}{SUFFIX}"
    new = target.with_name(target.name + _TEMPORARY)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            file.write(_MAGIC + bytes(_DIGEST_BYTES))
            hashing = _Hashing(file)
            np.savez(hashing, allow_pickle=False, **{_META: meta}, **arrays)
            file.seek(len(_MAGIC))
            file.write(hashing.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "make room" if is_full else "have it writable, for one run alone"
        raise type(error)(
            error.errno,
            f"A checkpoint must be written to '{folder}'. Received: "
            f"{error.strerror}. The ones before are whole: {mend}, and start "
            "the same program again",
        ) from error
    sync_names(folder)
    for path in checkpoint_files(folder)[:-_KEPT]:
        path.unlink(missing_ok=True)
    return target


class _Hashing(io.RawIOBase):
    """Hands bytes on to a file, and computes their sum on the way.

    Args:
        file: The file.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._sum = hashlib.sha256()

    def writable(self) -> bool:
        """Says that it can be written; it cannot be read or sought."""
        return True

    def write(self, part: Any) -> int:
        """Writes and sums up bytes."""
        self._sum.update(part)
        return self._file.write(part)

    def digest(self) -> bytes:
        """Returns the sum of all that was written."""
        return self._sum.digest()


def newest_checkpoint(folder: Path) -> Stored | None:
    """Returns the newest checkpoint that is whole, or None without any.

    Raises:
        OSError: If they cannot be read.
        ValueError: If there are some and none is whole.
    """
    torn = []
    for path in reversed(checkpoint_files(folder)):
        stored = _read(path)
        if stored is None:
            torn.append(path.name)
            continue
        if torn:
            warnings.warn(
                f"The checkpoint {torn} in '{folder}' is damaged: the run goes "
                f"on from the one before, {path.name}.",
                stacklevel=4,
            )
        return stored
    if torn:
        raise DamagedCheckpointsError(
            f"A checkpoint in '{folder}' must be whole. Received only damaged "
            f"ones: {torn}. Remove them to begin from the start."
        )
    return None


@contextlib.contextmanager
def reading_values(folder: Path) -> Iterator[None]:
    """Tells of checkpoints that are whole and hold something else.

    Args:
        folder: Where they are.

    Raises:
        ValueError: If what stands in one is not what a run keeps.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError) as error:
        raise DamagedCheckpointsError(
            f"The checkpoints in '{folder}' must hold what a run keeps. "
            f"Received others ({type(error).__name__}: {error}). Remove them "
            "to begin from the start."
        ) from error


def remove_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a folder, and the folder if it is empty.

    One that cannot go, such as a mount point or `.`, stays.
    """
    if not folder.is_dir():
        return
    for path in _own_files(folder):
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        with contextlib.suppress(OSError):
            folder.rmdir()


def make_writable(folder: Path) -> None:
    """Makes a folder, if it is not there, and writes to it.

    Under a name that `check_folder` knows, should the process end just then.

    Raises:
        OSError: If that fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / f"{0:08d}{SUFFIX}{_TEMPORARY}"
    trial.touch()
    trial.unlink()


def check_folder(folder: Path) -> None:
    """Checks that a folder holds checkpoints, their lock and nothing else.

    Raises:
        OSError: If a file is in its place, or it cannot be read.
        ValueError: If it holds anything else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise NotADirectoryError(
            "`directory` must be a folder. Received: "
            f"directory={str(folder)!r}, which is a file. Choose another."
        )
    own = {*_own_files(folder)}
    others = sorted(
        x.name
        for x in folder.iterdir()
        if x not in own and not is_lock_of_folder(x)
    )
    if others:
        raise ValueError(
            "`directory` must be a folder of its own, new or with checkpoints "
            f"alone. Received: directory={str(folder)!r} with {others[:5]}. "
            "Choose another."
        )


def checkpoint_files(folder: Path) -> list[Path]:
    """Returns the checkpoints of a folder, the newest last."""
    if not folder.is_dir():
        return []
    return sorted(x for x in folder.glob(f"*{SUFFIX}") if _number(x))


def next_number(folder: Path) -> int:
    """Returns a number above those of all checkpoints of a folder."""
    files = checkpoint_files(folder)
    return int(files[-1].name.removesuffix(SUFFIX)) + 1 if files else 1


def _own_files(folder: Path) -> Iterator[Path]:
    """Yields finished and unfinished checkpoints."""
    for path in list(folder.iterdir()):
        if path.is_file() and _number(path):
            yield path


def _number(path: Path) -> str:
    """Returns the digits of a checkpoint's name; "" for another file."""
    name = path.name.removesuffix(_TEMPORARY)
    digits = name.removesuffix(SUFFIX)
    return digits if name != digits and digits.isdigit() else ""


def _read(path: Path) -> Stored | None:
    """Returns what a checkpoint holds; None for a damaged one."""
    check_regular(path)
    start = len(_MAGIC) + _DIGEST_BYTES
    content = path.read_bytes()
    body = memoryview(content)[start:]
    digest = hashlib.sha256(body).digest()
    if content[:start] != _MAGIC + digest:
        return None
    try:  # a stranger's has a right sum, too
        arrays = archive_arrays(path, io.BytesIO(body))
        meta = json.loads(arrays.pop(_META).tobytes())
        found = [arrays[f"a{i}"] for i in range(len(arrays))]
    except (*DAMAGES, KeyError):
        return None
    return Stored(meta, found) if isinstance(meta, dict) else None
