"""What a .tflite file says about itself."""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

_NAME = "keras_kddp"
_IDENTIFIER = b"TFL3"


def with_metadata(content: bytes, entries: Mapping[str, Any]) -> bytes:
    """Returns a file that also holds entries; every runtime skips them.

    Args:
        content: A .tflite file.
        entries: What JSON can hold.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    buffer = schema.BufferT()
    buffer.data = list(json.dumps(entries, separators=(",", ":")).encode())
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = _NAME
    entry.buffer = len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns what `to_tflite` wrote into a file about it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or holds nothing of ours.
    """
    content = Path(path).read_bytes()
    found = None
    try:
        model = schema.Model.GetRootAsModel(content, 0)
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == _NAME.encode():
                buffer = model.Buffers(entry.Buffer())
                found = json.loads(buffer.DataAsNumpy().tobytes())
    except (AttributeError, IndexError, TypeError, ValueError, struct.error):
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"{str(path)!r} must be a .tflite file of keras_kddp. Received one "
            "without its metadata, or a damaged one. Write it with "
            "keras_kddp.export.to_tflite."
        )
    return found


def operations_of(content: bytes) -> tuple[str, ...]:
    """Returns the names of the operations of a file, each once, in order."""
    model = schema.Model.GetRootAsModel(content, 0)
    names = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if isinstance(code, int)
    }
    found = []
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for index in range(graph.OperatorsLength()):
            code = model.OperatorCodes(graph.Operators(index).OpcodeIndex())
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            found.append(names[number])
    return tuple(dict.fromkeys(found))
