"""Arrays out of IDX, NPZ and tensorflow-datasets, split by split."""

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from keras_kddp.extras import absence_of, require

SplitArrays = dict[str, tuple[np.ndarray, np.ndarray]]
"""Split -> inputs and labels."""

_IDX_DTYPES = {
    b"\x08": "u1",
    b"\x09": "i1",
    b"\x0b": ">i2",
    b"\x0c": ">i4",
    b"\x0d": ">f4",
    b"\x0e": ">f8",
}
_SPLITS = ("train", "validation", "test")


def read_idx(folder: str) -> SplitArrays:
    """Returns the splits in a folder of MNIST's four files.

    `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and both for `t10k`,
    gzipped (`.gz`) or not, as MNIST, Fashion-MNIST and KMNIST come.

    Args:
        folder: Where they are.

    Raises:
        FileNotFoundError: If one is missing.
        ValueError: If one is damaged.
    """
    return {
        split: (
            _read_idx_array(Path(folder), f"{prefix}-images", 3),
            _read_idx_array(Path(folder), f"{prefix}-labels", 1),
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }


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
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"'{path}' must be a complete gzip file. Received: {error}."
            ) from error
    return _parse_idx(path, content, rank)


def _parse_idx(path: Path, content: bytes, rank: int) -> np.ndarray:
    """Returns the array: magic, sizes and numbers are big-endian."""
    is_idx = content[:2] == b"\0\0" and content[2:3] in _IDX_DTYPES
    header = 4 + 4 * rank
    if not is_idx or content[3:4] != bytes([rank]) or len(content) < header:
        raise ValueError(
            f"'{path}' must be an IDX file of {rank} dimensions. Received: "
            f"{len(content):,} bytes that start with {content[:4].hex(' ')}."
        )
    dtype = np.dtype(_IDX_DTYPES[content[2:3]])
    shape = np.frombuffer(content, ">u4", rank, offset=4).tolist()
    expected = header + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise ValueError(
            f"'{path}' must be {expected:,} bytes for its shape {shape}. "
            f"Received: {len(content):,} bytes. Fetch the file again."
        )
    return np.frombuffer(content, dtype, offset=header).reshape(shape)


def read_npz(path: str) -> SplitArrays:
    """Returns the splits in a file of `numpy.savez`.

    Args:
        path: Holds x_train, y_train, x_test, y_test and, if there are any,
            x_validation and y_validation. Pickled objects are not loaded.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged, lacks an array or holds objects.
    """
    arrays = _read_npz_arrays(path)
    optional = [f"{part}_validation" for part in "xy"]
    needed = ["x_train", "y_train", "x_test", "y_test"]
    if any(name in arrays for name in optional):
        needed += optional
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise ValueError(
            f"'{path}' must hold the arrays {needed}. Received "
            f"{sorted(arrays)}: {missing} are missing."
        )
    return {
        split: (arrays[f"x_{split}"], arrays[f"y_{split}"])
        for split in _SPLITS
        if f"x_{split}" in arrays
    }


def _read_npz_arrays(path: str) -> dict[str, np.ndarray]:
    """Returns every array of a file of `numpy.savez`, by name."""
    try:
        # Opened here: NumPy leaves a damaged file open.
        with open(path, "rb") as file, np.load(file) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"'{path}' must be a file of numpy.savez. Received a path with no "
            "file."
        ) from error
    except (
        EOFError,
        NotImplementedError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"'{path}' must be a complete file of numpy.savez with arrays of "
            f"numbers, no objects. Received: {error}."
        ) from error


def read_tfds(text: str) -> SplitArrays:
    """Returns splits of a data set of tensorflow-datasets.

    Prepares (and downloads) it first where that has not been done; the
    environment variable TFDS_DATA_DIR says where data sets are kept.

    Args:
        text: `NAME` or `NAME,train=SPLIT,validation=SPLIT,test=SPLIT`, with
            SPLIT such as `train[:90%]`; a data set of inputs with their labels.

    Raises:
        ImportError: If tensorflow-datasets is not installed.
        ValueError: If there is no such data set, or it cannot be had, or does
            not fit into arrays.
    """
    name, *words = text.split(",")
    names = {"train": "train", "test": "test"}
    for word in words:
        split, _, value = word.partition("=")
        if split not in _SPLITS or not value:
            raise ValueError(
                "Splits of tfds must be written train=SPLIT, "
                f"validation=SPLIT or test=SPLIT. Received: {word!r}."
            )
        names[split] = value
    parts, info = _loaded(name, names)
    return {
        split: _take_pair(f"tfds:{name}, {split}", part, info.supervised_keys)
        for split, part in parts.items()
    }


def _loaded(name: str, names: dict[str, str]) -> tuple[dict[str, Any], Any]:
    """Returns the splits, each a dict of features, and the data set's info."""
    require(
        "tfds: is read by",
        "tensorflow-datasets with importlib_resources",
        absence_of("tensorflow_datasets", "importlib_resources"),
    )
    import tensorflow_datasets as tfds

    try:
        parts, info = tfds.load(
            name, split=list(names.values()), batch_size=-1, with_info=True
        )
    # Whatever the data set's own script, the network or the file system says.
    except Exception as error:
        raise ValueError(
            f"tfds:{name} must be a data set that is prepared or can be "
            f"downloaded, with the splits {sorted(names.values())}. Received: "
            f"{type(error).__name__}: {error}"
        ) from error
    return dict(zip(names, tfds.as_numpy(parts), strict=True)), info


def _take_pair(
    name: str, part: Any, keys: tuple[Any, Any] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and labels out of features."""
    if keys is None and isinstance(part, dict):  # take what is beside `label`
        others = sorted(set(part) - {"label"})
        keys = (others[0], "label") if len(others) == 1 else None
    found: list[Any] = [
        part.get(key) if isinstance(part, dict) and isinstance(key, str) else 0
        for key in keys or ()
    ]
    if len(found) != 2 or not all(isinstance(x, np.ndarray) for x in found):
        kinds = {key: type(part[key]).__name__ for key in part}
        raise ValueError(
            f"{name}: the data set must have inputs of one shape and a label "
            f"each. Received features {kinds}, of which {keys} are inputs and "
            "labels. Write the data set as npz."
        )
    return found[0], found[1]
