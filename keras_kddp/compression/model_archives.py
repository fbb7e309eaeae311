"""Models out of .keras files that may be a stranger's."""

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py
import keras

from keras_kddp import _compat
from keras_kddp._compat.loading import checked_weights
from keras_kddp.data.outside_files import (
    MOST_JSON_BYTES,
    check_archive,
    check_regular,
    check_unpacked,
    parsed_json,
)

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_FREE_NUMBERS = 1 << 20  # that a model may have without bringing them
_LARGEST_TENSOR = 1 << 28  # numbers for one example: 1 GiB


def load_safely(path: str | os.PathLike[str]) -> keras.Model:
    """Returns the model in a `.keras` file, in Keras' safe mode.

    What it promises is checked before memory is taken: the archive, the
    weights in it, and the weights of the layers that its configuration asks
    for, which may not be more than it brings.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it promises what it does not have; what Keras raises of
            others is of every kind.
    """
    check_regular(path)
    with open(path, "rb") as file:
        check_archive(path, file)
        with zipfile.ZipFile(file) as archive:
            _check_configuration(path, archive)
            content = archive.read(_WEIGHTS)
    numbers = _count_numbers(path, content)
    with _compat.safe_mode(), _limited_weights(path, numbers + _FREE_NUMBERS):
        model = keras.saving.load_model(path, compile=False)
    if not isinstance(model, keras.Model):
        raise ValueError(f"a {type(model).__name__}, which is no model")
    _check_tensors(model)
    return model


def _check_configuration(
    path: str | os.PathLike[str], archive: zipfile.ZipFile
) -> None:
    missing = {_CONFIG, _WEIGHTS}.difference(archive.namelist())
    if missing:
        raise ValueError(f"an archive without {sorted(missing)}")
    with archive.open(_CONFIG) as file:
        parsed_json(file.read(MOST_JSON_BYTES + 1), f"{path}: {_CONFIG}")


def _count_numbers(path: str | os.PathLike[str], content: bytes) -> int:
    """Returns how many numbers there are in an HDF5 file.

    Raises:
        ValueError: If it reaches into other files, or a part promises more
            than it has.
    """
    found = promised = 0
    with h5py.File(io.BytesIO(content), "r") as file:
        for name, part in _datasets(file):
            if part.external or part.is_virtual:
                raise ValueError(f"weights '{name}' that lie in other files")
            size = math.prod(part.shape or ()) * part.dtype.itemsize
            check_unpacked(f"{path}: {name}", size, part.id.get_storage_size())
            found += math.prod(part.shape or ())
            promised += size
    check_unpacked(f"{path}: {_WEIGHTS}", promised, len(content))
    return found


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yields the datasets of a file, each group visited once.

    Raises:
        ValueError: If there is a link to something by its name.
    """
    waiting, seen = [("", file)], set()
    while waiting:
        name, group = waiting.pop()
        key = h5py.h5o.get_info(group.id).addr
        if key in seen:
            continue
        seen.add(key)
        for each in group:
            if (
                group.get(each, getclass=True, getlink=True)
                is not h5py.HardLink
            ):
                raise ValueError(f"weights with the link '{name}/{each}'")
            part = group[each]
            if isinstance(part, h5py.Group):
                waiting.append((f"{name}/{each}", part))
            elif isinstance(part, h5py.Dataset):
                yield f"{name}/{each}", part


@contextlib.contextmanager
def _limited_weights(path: str | os.PathLike[str], most: int) -> Iterator[None]:
    """Refuses the weights of layers beyond a number, before they are made."""
    left = most

    def check(shape: tuple[int, ...]) -> None:
        nonlocal left
        left -= math.prod(shape)
        if left < 0:
            raise ValueError(
                f"'{path}' must bring the weights of its layers. Received "
                f"layers of more than {most:,} weights, which it does not "
                "hold. It is damaged, or made to fill the memory."
            )

    with checked_weights(check):
        yield


def _check_tensors(model: keras.Model) -> None:
    """Checks that no tensor of a model is larger than any memory.

    Raises:
        ValueError: If one is.
    """
    if _compat.functional_graph(model) is None:
        return
    for node in _compat.call_nodes(model):
        if isinstance(node.operation, keras.Model):
            _check_tensors(node.operation)
        for tensor in node.outputs:
            shape: Any = [size for size in tensor.shape if size is not None]
            if math.prod(shape) > _LARGEST_TENSOR:
                raise ValueError(
                    f"layer '{node.name}' makes {tuple(tensor.shape)} numbers "
                    f"of one example, more than {_LARGEST_TENSOR:,}"
                )
