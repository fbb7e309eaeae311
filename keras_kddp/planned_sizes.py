"""How large a student will be once some of its units have left."""

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kddp.activity import batches_of
from keras_kddp.export import (
    CrashError,
    RefusalError,
    TFLiteArtifact,
    TFLMRuntime,
    to_tflite,
)
from keras_kddp.export._samples import arrange_inputs
from keras_kddp.export._signature import input_signature
from keras_kddp.preparation import finalize
from keras_kddp.profiling import is_kernel, multiplied_positions
from keras_kddp.surgery.graph import ChannelGraph

# For each output channel, an int8 file keeps a bias (4 bytes) and, for its
# weights and its bias each, a scale (4) and a zero point (8).
_BYTES_PER_CHANNEL = 28
_TRAINED_BIAS = 1e-3
_CALIBRATION_ROWS = 8  # the numbers in a file do not change its size


class _Weight(NamedTuple):
    """A weight as removals see it.

    Attributes:
        shape: Its shape.
        labels: Axis -> the channel labels along it.
        positions: How often its entries are multiplied, for one example.
        file_bytes: What an int8 file keeps for an entry.
    """

    shape: tuple[int, ...]
    labels: Mapping[int, np.ndarray]
    positions: int
    file_bytes: int


class PlannedSizes:
    """The size of a student without some groups of units.

    Parameters and multiply-accumulates are those that `keras_kddp.profile`
    counts in the smaller student, which is not built for it.

    Args:
        graph: The channels of the student.
        bytes_line: (bytes, bytes a raw byte) of an int8 file, if known.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        bytes_line: tuple[float, float] | None = None,
    ) -> None:
        self._graph = graph
        self._bytes_line = bytes_line
        self._weights: list[_Weight] = []
        positions: dict[int, int] = {}
        layers: dict[int, tuple[str, Any]] = {}
        for node in graph.nodes:
            key = id(node.operation)
            layers[key] = node.name, node.operation
            positions[key] = positions.get(key, 0) + multiplied_positions(node)
        for key, (name, layer) in layers.items():
            slices = graph.records.slices.get(name, {})
            for weight in getattr(layer, "weights", ()):
                if weight.name == "penalty_strength":
                    continue
                labels = {
                    axis: found
                    for (variable, axis), found in slices.items()
                    if variable == weight.name
                }
                times = positions[key] if is_kernel(weight) else 0
                self._weights.append(
                    _Weight(
                        tuple(weight.shape), labels, times, _file_bytes(weight)
                    )
                )

    def without(self, gone: np.ndarray) -> dict[str, float]:
        """Returns the size by measure.

        Args:
            gone: (labels,) bool: the channels that leave.

        Returns:
            `"parameters"`, `"macs"`, the `"raw_bytes"` that an int8 file is
            made of, and the `"bytes"` of the file where its line is known.
        """
        parameters = macs = raw = 0
        for shape, labels, positions, file_bytes in self._weights:
            kept = list(shape)
            for axis, found in labels.items():
                kept[axis] = int(np.count_nonzero(~gone[found]))
            entries = math.prod(kept)
            parameters += entries
            macs += entries * positions
            raw += entries * file_bytes
        size: dict[str, float] = {
            "parameters": parameters,
            "macs": macs,
            "raw_bytes": raw,
        }
        if self._bytes_line is not None:
            base, slope = self._bytes_line
            size["bytes"] = base + slope * raw
        return size


def _file_bytes(weight: keras.Variable) -> int:
    if len(weight.shape) != 1:
        return 1
    # Normalizations are folded into the biases.
    return _BYTES_PER_CHANNEL if weight.name in ("bias", "beta") else 0


def int8_bytes(student: keras.Model, data: Any) -> int:
    """Returns the size of a student's int8 .tflite file.

    Args:
        student: A built student, with penalties or without.
        data: Its inputs: arrays or an iterable of batches.

    Raises:
        ExportError: If it cannot be converted.
    """
    with int8_file(student, data) as (artifact, _):
        return artifact.num_bytes


def int8_arena_bytes(student: keras.Model, data: Any) -> int:
    """Returns the smallest arena that TFLM runs a student's int8 file in.

    Args:
        student: A built student, with penalties or without.
        data: Its inputs: arrays or an iterable of batches.

    Raises:
        ExportError: If it cannot be converted.
        ImportError: If tflite-micro is not installed.
        ValueError: If TFLM cannot run it.
    """
    TFLMRuntime.require("An arena is measured on")
    with int8_file(student, data) as (artifact, rows):
        runtime = TFLMRuntime(artifact.path)
        inputs = {
            name: array[:1]
            for name, array in zip(artifact.input_names, rows, strict=True)
        }
        try:
            found = runtime.execute(inputs, arena=True)
        except (CrashError, RefusalError) as refusal:
            raise ValueError(
                "`max_arena_bytes` must be for a student that TFLM can run. "
                f"Received from it: {refusal}. Replace this layer, or leave "
                "the limit out."
            ) from None
    return int(found.arena_bytes or 0)


@contextlib.contextmanager
def int8_file(
    student: keras.Model, data: Any
) -> Iterator[tuple[TFLiteArtifact, list[np.ndarray]]]:
    """Yields a student's int8 file, removed afterwards, and some inputs."""
    rows = keras.tree.map_structure(
        lambda leaf: keras.ops.convert_to_numpy(leaf)[:_CALIBRATION_ROWS],
        next(batches_of(data, _CALIBRATION_ROWS)),
    )
    plain = finalize(student)
    for weight in plain.trainable_weights:
        # The converter leaves zeros out, but no trained bias is zero.
        if len(weight.shape) == 1 and not np.any(weight):
            weight.assign(np.full(weight.shape, _TRAINED_BIAS))
    with tempfile.TemporaryDirectory(prefix="keras_kddp_") as folder:
        artifact = to_tflite(
            plain,
            Path(folder, "student.tflite"),
            quantization="int8",
            calibration=rows,
        )
        yield artifact, arrange_inputs(rows, input_signature(plain))
