"""Teacher outputs on disk, with the key that says whose they are."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_kddp.atomic_files import MANIFEST, as_json, write_json
from keras_kddp.atomic_files.kinds import KINDS
from keras_kddp.data.array_files import DAMAGES, map_npy
from keras_kddp.data.outside_files import read_json
from keras_kddp.data.packing import TeacherOutput

_KEY = "key.json"
_NUMBERS = 1 << 22  # read at once
_FORMAT = 3
"""3: with a sum of the key itself."""


def read_outputs(path: Path, key: dict[str, Any]) -> list[TeacherOutput]:
    """Returns outputs that were written for this key.

    Args:
        path: Folder of a cache.
        key: What the outputs follow from.

    Returns:
        float16 arrays, read from disk as they are used.

    Raises:
        ValueError: If the folder holds something else, or outputs for another
            teacher or other data.
    """
    written, found = _read_complete(path)
    stale = [
        name
        for name, value in {**key, "format": _FORMAT}.items()
        if written.get(name) != value
    ]
    if stale:
        raise ValueError(
            f"The cache in '{path}' is stale: it was made for another "
            f"{' and other '.join(stale)}. Delete the folder to make it anew, "
            "or choose another path."
        )
    return [
        TeacherOutput(values, bool(flag), bool(flag))
        for values, flag in zip(found, written["are_logarithms"], strict=True)
    ]


def _holds_no_more(path: Path) -> bool:
    """Says whether nothing is in a folder but what a cache has."""
    known = (*KINDS["teacher_cache"].files, MANIFEST)
    return path.is_dir() and all(
        any(each.match(pattern) for pattern in known) for each in path.iterdir()
    )


def _read_complete(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Returns the key and the arrays of a folder, which belong together.

    Raises:
        ValueError: If one is missing or damaged.
    """
    try:
        written = read_json(path / _KEY)
        found = [
            map_npy(path / f"outputs_{index}.npy")
            for index in range(len(written["are_logarithms"]))
        ]
        sums = [_checksum(values) for values in found]
    except (*DAMAGES, KeyError, OSError) as error:
        advice = "Delete it, or choose" if _holds_no_more(path) else "Choose"
        raise ValueError(
            f"`path` must be a new folder, or that of a TeacherCache. Received "
            f"'{path}', which cannot be read as one ({error}). {advice} "
            "another."
        ) from error
    if written.get("format") == _FORMAT and not _is_untouched(path, written):
        raise ValueError(
            f"The cache in '{path}' must have a {_KEY} of the SHA-256 that "
            f"stands in it. Received another one: it was changed or damaged. "
            "Delete the folder to make it anew."
        )
    if not found or sums != written.get("checksums"):
        raise ValueError(
            f"The cache in '{path}' must hold outputs of the checksums "
            f"{written.get('checksums')}. Received: {sums}. Delete the folder "
            "to make it anew."
        )
    return written, found


def _sum_of_key(content: dict[str, Any]) -> str:
    """Returns the SHA-256 of all entries of a key but itself."""
    entries = {n: value for n, value in content.items() if n != "sha256"}
    text = json.dumps(entries, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_untouched(path: Path, written: dict[str, Any]) -> bool:
    """Says whether a key is, to the byte, what was written."""
    is_whole = written.get("sha256") == _sum_of_key(written)
    content = (path / _KEY).read_bytes()
    return is_whole and content == as_json(written).encode()


def _checksum(values: np.ndarray) -> str:
    """Returns shape, dtype and CRC-32 of an array."""
    total = 0
    flat = values.reshape(-1)
    for start in range(0, len(flat), _NUMBERS):
        total = zlib.crc32(flat[start : start + _NUMBERS].tobytes(), total)
    return f"{values.shape} {values.dtype} {total:08x}"


def holds_something(path: Path) -> bool:
    """Says whether there is anything at a path; an empty folder is nothing."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def write_outputs(
    folder: Path, key: dict[str, Any], outputs: Sequence[TeacherOutput]
) -> list[TeacherOutput]:
    """Writes outputs in float16 into the folder of a cache.

    Args:
        folder: Exists, empty.
        key: What the outputs follow from.
        outputs: Logits.

    Returns:
        What `read_outputs` will return.

    Raises:
        ValueError: If a logit is too large for float16.
        OSError: If the folder cannot be written.
    """
    arrays = [_in_float16(output.values) for output in outputs]
    for index, array in enumerate(arrays):
        np.save(folder / f"outputs_{index}.npy", array)
    content = {
        **key,
        "format": _FORMAT,
        "checksums": [*map(_checksum, arrays)],
        "are_logarithms": [output.are_logarithms for output in outputs],
    }
    write_json(folder / _KEY, content | {"sha256": _sum_of_key(content)})
    return [
        output._replace(values=array)
        for output, array in zip(outputs, arrays, strict=True)
    ]


def _in_float16(logits: np.ndarray) -> np.ndarray:
    """Returns logits in float16.

    Raises:
        ValueError: If one is too large for it.
    """
    largest = float(np.abs(logits).max(initial=0))
    if largest > float(np.finfo(np.float16).max):
        raise ValueError(
            "Logits must lie within float16, 65504, to be kept on disk. "
            f"Received: {largest:.4g}. Leave out `path`, or scale the "
            "teacher's last layer."
        )
    return logits.astype(np.float16)
