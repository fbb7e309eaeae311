"""What a .tflite file says about itself."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

from keras_kddp.data.outside_files import check_regular, parsed_json
from keras_kddp.export.tflite.flatbuffer import checked_model, told_as_damage
from keras_kddp.export.tflite.names import FileNames

_NAME = "keras_kddp"
_IDENTIFIER = b"TFL3"
_KEPT = (b"min_runtime_version",)


def with_metadata(
    content: bytes, entries: Mapping[str, Any], names: FileNames
) -> bytes:
    """Returns a file that also holds entries; every runtime skips them.

    What the converter noted about itself goes, its names for tensors become
    short (inputs and outputs get those of the signature), and numbers that
    stand there several times are written once: small files are mostly that.

    Args:
        content: A .tflite file.
        entries: What JSON can hold.
        names: Those of inputs, outputs and layers.

    Raises:
        ValueError: If the file is damaged.
    """
    checked = checked_model(content)
    with told_as_damage():
        model = schema.ModelT.InitFromObj(checked)
        names.give_to(model)
    model.description = None
    kept = [part for part in model.metadata or () if part.name in _KEPT]
    free = [part for part in model.metadata or () if part.name not in _KEPT]
    for part in free:
        model.buffers[part.buffer].data = None
    entry = schema.MetadataT()
    entry.name = _NAME
    if free:
        entry.buffer = free[0].buffer
    else:
        entry.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT())
    text = json.dumps(entries, separators=(",", ":"))
    model.buffers[entry.buffer].data = np.frombuffer(text.encode(), "uint8")
    model.metadata = [*kept, entry]
    builder = _SharingBuilder(len(content) + 1024)
    with told_as_damage():
        builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


class _SharingBuilder(Builder):
    """Writes equal names, and equal vectors of integers, once.

    The latter are zero points, mostly.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[Any, int] = {}

    def CreateString(self, s: Any, *options: Any) -> int:  # noqa: N802
        """Returns where a text stands."""
        if s not in self._written:
            self._written[s] = int(super().CreateString(s, *options))
        return self._written[s]

    def CreateNumpyVector(self, x: Any) -> int:  # noqa: N802
        """Returns where a vector stands."""
        if x.dtype != np.int64:
            return int(super().CreateNumpyVector(x))
        key = ("int64", x.tobytes())
        if key not in self._written:
            self._written[key] = int(super().CreateNumpyVector(x))
        return self._written[key]


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns what `to_tflite` wrote into a file about it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or holds nothing of ours.
    """
    check_regular(path)
    content = Path(path).read_bytes()
    found = None
    try:
        model = checked_model(content)
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == _NAME.encode():
                buffer = model.Buffers(entry.Buffer())
                found = parsed_json(buffer.DataAsNumpy().tobytes(), path)
    except (AttributeError, TypeError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"{str(path)!r} must be a .tflite file of keras_kddp. Received one "
            "without its metadata, or a damaged one. Write it with "
            "keras_kddp.export.to_tflite."
        )
    return found
