"""A .tflite file, and what is needed to run it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

from keras_kddp.export.model.entries import merged
from keras_kddp.export.model.signature import input_signature, output_names


@dataclass(frozen=True)
class TFLiteArtifact:
    """A .tflite file, and what is needed to run it.

    Attributes:
        path: The file.
        quantization: As `to_tflite` was asked for.
        num_bytes: Size of the file.
        input_names: Names in the file's signature, in the order of the Keras
            model's inputs.
        output_names: Names in the file's signature, in the order of the Keras
            model's outputs.
    """

    path: Path
    quantization: str
    num_bytes: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def artifact_of(
    path: Path, model: keras.Model, quantization: str
) -> TFLiteArtifact:
    """Returns the artifact of a model's file."""
    return TFLiteArtifact(
        path=path,
        quantization=quantization,
        num_bytes=path.stat().st_size,
        input_names=tuple(entry.name for entry in input_signature(model)),
        output_names=output_names(model),
    )


def check_target(target: Path) -> None:
    """Raises a ValueError unless a path ends in .tflite."""
    if target.suffix != ".tflite":
        raise ValueError(
            "`path` must end in .tflite. Received: "
            f"path={str(target)!r}. Write for example to "
            f"{str(target.with_suffix('.tflite'))!r}."
        )


def entries_of(
    model: keras.Model,
    quantization: str,
    metadata: Mapping[str, Any] | None,
    **own: Any,
) -> dict[str, Any]:
    """Returns what the file says about itself; `own` are the export's.

    Raises:
        ValueError: If JSON cannot hold it.
    """
    made = {
        "model": model.name,
        "quantization": quantization,
        "made_with": f"keras_kddp {version('keras-kddp')}, "
        f"keras {keras.__version__}",
        **own,
    }
    return merged("metadata", metadata, made)
