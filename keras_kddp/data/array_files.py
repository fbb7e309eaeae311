"""Arrays out of .npy and .npz files that hold what their headers promise."""

import math
import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from keras_kddp.data.outside_files import check_archive, check_regular

DAMAGES = (
    EOFError,
    NotImplementedError,  # a codec, or an archive on several disks
    OverflowError,
    RecursionError,
    RuntimeError,  # an encrypted member
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    tokenize.TokenError,  # of the header of an array
    zlib.error,
)
"""What NumPy and zipfile raise for a file that is damaged."""

_FREE_ROWS = 1 << 20  # of an array that has no bytes


def read_npz_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Returns every array of a file of `numpy.savez`, by name.

    Args:
        path: The file. Pickled objects are not loaded.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged, or promises more than it holds.
    """
    check_regular(path)
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            _refuse_single(file)
        return archive_arrays(path, file)


def archive_arrays(
    path: str | os.PathLike[str], file: IO[bytes]
) -> dict[str, np.ndarray]:
    """Returns every array of an archive, by name.

    Args:
        path: What the archive is called.
        file: It, open.

    Raises:
        ValueError: If it is damaged, or promises more than it holds; others
            of `DAMAGES` too.
    """
    try:
        check_archive(path, file)
        return _read_members(file)
    except OSError as error:  # of a place before the beginning
        raise zipfile.BadZipFile(f"no whole archive: {error}") from error


def _read_members(file: IO[bytes]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        return {
            member.filename.removesuffix(".npy"): _read_member(archive, member)
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }


def _refuse_single(file: IO[bytes]) -> None:
    shape, _, _ = _read_header(file)
    raise ValueError(f"one array, as numpy.save writes it, of shape {shape}")


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> np.ndarray:
    with archive.open(member) as file:
        check_npy(file, member.file_size, member.filename)
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # to its end, where zipfile checks the sum
    return array


def map_npy(path: Path) -> np.ndarray:
    """Returns the array of a .npy file, read from disk as it is used.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged, or promises more than it holds.
    """
    size = check_regular(path)
    with path.open("rb") as file:
        check_npy(file, size, path.name)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def check_npy(file: IO[bytes], size: int, name: str) -> None:
    """Checks that a .npy file has the bytes that its header promises.

    Args:
        file: It, at its beginning.
        size: Its bytes.
        name: What it is called.

    Raises:
        ValueError: If it has not, or holds objects.
    """
    shape, dtype, offset = _read_header(file)
    if dtype.hasobject:
        raise ValueError(
            f"Object arrays, such as '{name}', are not loaded: they can run "
            "code"
        )
    expected = math.prod(shape) * dtype.itemsize
    # Of an array without bytes, (10**12, 0), the header alone says how long.
    rows = math.prod(each or 1 for each in shape)
    is_long = not expected and rows > _FREE_ROWS
    if min(shape, default=0) < 0 or is_long or expected != size - offset:
        raise ValueError(
            f"'{name}' promises {dtype} numbers of shape {shape}, and has "
            f"{size - offset:,} bytes of them"
        )


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    """Returns shape, dtype and length of the header of a .npy file."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:  # names of fields alone need more
        raise ValueError(f"a .npy file of version {version}, of fields")
    return shape, dtype, file.tell()
