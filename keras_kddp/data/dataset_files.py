"""Arrays out of IDX and NPZ files, split by split."""

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_kddp.data.array_files import DAMAGES, read_npz_arrays
from keras_kddp.data.outside_files import check_regular, check_unpacked
from keras_kddp.data.sources import (
    SPLITS,
    Source,
    SplitArrays,
    split_options,
)

_IDX_DTYPES = {
    b"\x08": "u1",
    b"\x09": "i1",
    b"\x0b": ">i2",
    b"\x0c": ">i4",
    b"\x0d": ">f4",
    b"\x0e": ">f8",
}


def read_idx(folder: str) -> Source:
    """Returns the splits in a folder of MNIST's four files.

    `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and both for `t10k`,
    gzipped (`.gz`) or not, as MNIST, Fashion-MNIST and KMNIST come.

    Args:
        folder: Where they are.

    Raises:
        FileNotFoundError: If one is missing.
        ValueError: If one is damaged, or options follow the folder.
    """
    _, options = split_options(folder)
    if options:
        raise ValueError(
            "`idx:` must be followed by a folder alone. Received the options "
            f"{options}. Its images are scaled to [0, 1], and it has no "
            "groups: leave them out, or write the data as npz."
        )
    return Source(
        {
            split: SplitArrays(
                _read_idx_array(Path(folder), f"{prefix}-images", 3),
                _read_idx_array(Path(folder), f"{prefix}-labels", 1),
            )
            for split, prefix in (("train", "train"), ("test", "t10k"))
        }
    )


def _read_idx_array(folder: Path, stem: str, rank: int) -> np.ndarray:
    name = f"{stem}-idx{rank}-ubyte"
    paths = [folder / name, folder / f"{name}.gz"]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"'{folder}' must hold {name}, or the same with .gz. Received a "
            "folder without it. Fashion-MNIST: apt-get install "
            "dataset-fashion-mnist, then idx:/usr/share/datasets/fashion-mnist."
        )
    is_packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if is_packed else path.open("rb") as file:
            return _parse_idx(path, file, rank, is_packed=is_packed)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"'{path}' must be a complete gzip file. Received: {error}."
        ) from error


def _parse_idx(
    path: Path, file: Any, rank: int, *, is_packed: bool
) -> np.ndarray:
    """Returns the array: magic, sizes and numbers are big-endian."""
    size = check_regular(path)
    header = file.read(4 + 4 * rank)
    is_idx = header[:2] == b"\0\0" and header[2:3] in _IDX_DTYPES
    is_whole = len(header) == 4 + 4 * rank
    if not is_idx or header[3:4] != bytes([rank]) or not is_whole:
        raise ValueError(
            f"'{path}' must be an IDX file of {rank} dimensions. Received: "
            f"{size:,} bytes that start with {header[:4].hex(' ')}."
        )
    dtype = np.dtype(_IDX_DTYPES[header[2:3]])
    shape = np.frombuffer(header, ">u4", rank, offset=4).tolist()
    expected = math.prod(shape) * dtype.itemsize
    content = b""
    received = size - len(header)
    if is_packed or received == expected:
        check_unpacked(path, expected, size)
        content = file.read(expected)
        received = len(content) + len(file.read(1))
    if received != expected:
        raise ValueError(
            f"'{path}' must be {len(header) + expected:,} bytes for its shape "
            f"{shape}. Received: {len(header) + received:,} bytes. Fetch the "
            "file again."
        )
    return np.frombuffer(content, dtype).reshape(shape)


def read_npz(text: str, *, is_name: bool = False) -> Source:
    """Returns the splits in a file of `numpy.savez`.

    Args:
        text: `FILE`, `FILE,scale=NUMBER`, `FILE,group=KEY` or both; a file
            that has the whole text as its name is that file. It holds
            x_train, y_train, x_test, y_test and, if there are any,
            x_validation and y_validation; of the groups KEY_train or KEY and,
            if there are any, KEY_validation and KEY_test; splits without are
            told in a note. Pickled objects are not loaded.
        is_name: The text is the name of a file, without options.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged, lacks an array or holds objects.
    """
    path, options = (text, {}) if is_name else split_options(text)
    arrays, key = _read_npz_arrays(path), options.get("group")
    optional = [f"{part}_validation" for part in ("x", "y", key)]
    needed = ["x_train", "y_train", "x_test", "y_test"]
    if any(name in arrays for name in optional):
        needed += optional[:2]
    _check_names(path, arrays, needed)
    groups = _npz_groups(path, arrays, key)
    splits = {
        split: SplitArrays(
            arrays[f"x_{split}"], arrays[f"y_{split}"], groups.get(split)
        )
        for split in SPLITS
        if f"x_{split}" in arrays
    }
    notes = [f"'{path}' is all of it the name of a file"] * ("," in path)
    notes += [
        f"no '{key}_{split}': whether `train` has groups of `{split}` was not "
        "checked"
        for split in splits
        if groups and split not in groups
    ]
    return Source(splits, options, notes)


def _check_names(
    path: str, arrays: Mapping[str, np.ndarray], needed: list[str]
) -> None:
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise ValueError(
            f"'{path}' must hold the arrays {needed}. Received "
            f"{sorted(arrays)}: {missing} are missing."
        )


def _npz_groups(
    path: str, arrays: Mapping[str, np.ndarray], key: str | None
) -> dict[str, np.ndarray]:
    """Returns the groups of each split that has some."""
    if key is None:
        return {}
    names = {split: f"{key}_{split}" for split in SPLITS}
    if names["train"] not in arrays:
        names["train"] = key
    if names["train"] not in arrays:
        raise ValueError(
            f"'{path}' must hold the groups of `train` as '{key}_train' or as "
            f"'{key}', for `group={key}`. Received {sorted(arrays)}. Name "
            "another array by `group=`."
        )
    return {s: arrays[name] for s, name in names.items() if name in arrays}


def _read_npz_arrays(path: str) -> dict[str, np.ndarray]:
    """Returns every array of a file of `numpy.savez`, by name."""
    try:
        return read_npz_arrays(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"'{path}' must be a file of numpy.savez. Received a path with no "
            "file. Options follow its name as ,scale=NUMBER and ,group=KEY."
        ) from error
    except DAMAGES as error:
        raise ValueError(
            f"'{path}' must be a complete file of numpy.savez with arrays of "
            f"numbers, no objects. Received: {error}. Put inputs and labels "
            "into one file: numpy.savez(FILE, x_train=..., y_train=..., "
            "x_test=..., y_test=...)."
        ) from error
