"""A JSON file beside a .tflite file, for those who cannot open that."""

import os
from dataclasses import asdict
from pathlib import Path

from keras_kddp.atomic_files import write_json
from keras_kddp.export.runtimes.runtimes import LiteRTRuntime
from keras_kddp.export.tflite.metadata import read_metadata
from keras_kddp.export.tflite.operations import operations_of


def write_description(path: str | os.PathLike[str]) -> Path:
    """Writes what a file of `to_tflite` is, beside it, and returns where.

    The metadata inside, the inputs and outputs with shapes, dtypes, scales
    and zero points, the operations, and the size.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or not ours.
    """
    file = LiteRTRuntime(path)
    content = {
        "file": file.path.name,
        "bytes": file.path.stat().st_size,
        **read_metadata(path),
        "operations": operations_of(file.path.read_bytes()),
        "inputs": [asdict(tensor) for tensor in file.inputs.values()],
        "outputs": [asdict(tensor) for tensor in file.outputs.values()],
    }
    target = file.path.with_suffix(".json")
    write_json(target, content)
    return target
