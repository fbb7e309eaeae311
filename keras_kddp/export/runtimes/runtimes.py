"""The runtimes that an exported file is for, each in a process of its own."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from keras_kddp.arguments import RUN_SECONDS, require_time_limit
from keras_kddp.data.input_range import Range
from keras_kddp.export.errors import RefusalError
from keras_kddp.export.runtimes.process import (
    describe_file,
    failure_of,
    run_file,
)
from keras_kddp.export.runtimes.tensors import (
    quantization_of,
    tensors_of,
)
from keras_kddp.export.workers.arrays import read_arrays, write_arrays
from keras_kddp.export.workers.guard import temporary_folder
from keras_kddp.extras import absence_of, require
from keras_kddp.model_io import Array


@dataclass(frozen=True)
class Execution:
    """What a runtime made of some samples.

    Attributes:
        outputs: By name, float32 arrays (samples, ...), real numbers.
        stored: By name, arrays (samples, ...) in the dtypes of the file.
        milliseconds: Median per sample, on one thread if not told otherwise.
        arena_bytes: The smallest arena that TFLM runs the file in, if it was
            asked for.
    """

    outputs: dict[str, Array]
    stored: dict[str, Array]
    milliseconds: float
    arena_bytes: int | None


class Runtime:
    """A file, ready to turn samples into outputs.

    Whatever a file holds, this process survives it: files are loaded in a
    process of the runtime's.

    Args:
        path: A file whose inputs and outputs have a batch of 1.

    Attributes:
        name: What the tables call the runtime.
        path: The file.
        inputs: Its inputs by name, and what their numbers mean.
        outputs: Its outputs by name.
        quantization: As `to_tflite` takes it, judged by the dtypes inside.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or the batch is not 1.
    """

    name: ClassVar[str]
    key: ClassVar[str]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Has LiteRT read the file."""
        self.path = Path(path)
        described = describe_file(self.path)
        self.inputs = tensors_of(described["inputs"])
        self.outputs = tensors_of(described["outputs"])
        tensors = (*self.inputs.values(), *self.outputs.values())
        for tensor in tensors:
            if tensor.shape[:1] != (1,):
                raise ValueError(
                    "Inputs and outputs must have a batch of 1. Received: "
                    f"shape {tensor.shape} in {str(self.path)!r}. "
                    "Export the model with keras_kddp.export.to_tflite."
                )
        self.quantization = quantization_of(tensors, described["dtypes"])

    @classmethod
    def absence(cls) -> str | None:
        """Returns how to get the runtime, None where it is there."""
        return None

    @classmethod
    def require(cls, purpose: str) -> None:
        """Raises an ImportError where the runtime is absent.

        Args:
            purpose: What it is needed for, the beginning of a sentence.
        """
        require(purpose, cls.name, cls.absence())

    @property
    def is_quantized(self) -> bool:
        """Whether the file takes or gives integers with a scale."""
        tensors = (*self.inputs.values(), *self.outputs.values())
        return any(tensor.scale is not None for tensor in tensors)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs in the file."""
        return tuple(self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in the file."""
        return tuple(self.outputs)

    @property
    def input_ranges(self) -> dict[str, Range]:
        """What each quantized input can tell apart, by name: low, high."""
        return {
            name: part.range
            for name, part in self.inputs.items()
            if part.range is not None
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the outputs for all samples, as `execute` does."""
        return self.execute(inputs).outputs

    def execute(
        self,
        inputs: Mapping[str, Array],
        *,
        threads: int = 1,
        arena: bool = False,
        time_limit: float | None = RUN_SECONDS,
    ) -> Execution:
        """Runs all samples, one at a time, as a device does.

        Args:
            inputs: By name, arrays of shape `(samples, ...)`, real numbers;
                a quantized file gets them by its own scales.
            threads: That the runtime may use; TFLM has one.
            arena: Search for the smallest arena, on TFLM.
            time_limit: Seconds that one sample may take, or the loading of
                the file; None: no limit.

        Raises:
            ValueError: If names, shapes or dtypes are not the file's, or
                `time_limit` is no number > 0.
            RefusalError: If the runtime cannot run the file.
            CrashError: If its process dies of it, or does not end in
                `time_limit`.
        """
        require_time_limit(time_limit)
        inputs = {name: np.asarray(part) for name, part in inputs.items()}
        self._check(inputs)
        reply, stored = self._ran(
            inputs, threads=threads, arena=arena, time_limit=time_limit
        )
        return Execution(
            outputs={
                name: self.outputs[name].real(part)
                for name, part in stored.items()
            },
            stored=stored,
            milliseconds=reply["milliseconds"],
            arena_bytes=reply["arena_bytes"],
        )

    def _ran(
        self, inputs: Mapping[str, Array], **options: Any
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Returns what the process says, and the outputs as stored, by name."""
        with temporary_folder() as folder:
            given, found = folder / "in.npz", folder / "out.npz"
            write_arrays(
                given,
                {
                    tensor.position: tensor.stored(inputs[name])
                    for name, tensor in self.inputs.items()
                },
            )
            reply = run_file(
                self._python(),
                self.name,
                self.path,
                runtime=self.key,
                inputs=str(given),
                outputs=str(found),
                **options,
            )
            arrays = read_arrays(found)
        return reply, {
            name: arrays[str(tensor.position)]
            for name, tensor in self.outputs.items()
        }

    @classmethod
    def _python(cls) -> str:
        return sys.executable

    def _check(self, inputs: Mapping[str, Array]) -> None:
        if set(inputs) != set(self.inputs):
            raise ValueError(
                f"`inputs` must have the names {sorted(self.inputs)}. "
                f"Received: {sorted(inputs)}. See `input_names`."
            )
        for name, array in inputs.items():
            self.inputs[name].check(array)
        lengths = {name: len(array) for name, array in inputs.items()}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            raise ValueError(
                "`inputs` must have equally many samples, at least one. "
                f"Received: {lengths}. Cut them to the same rows."
            )


class LiteRTRuntime(Runtime):
    """A .tflite file on LiteRT, the runtime of phones and single boards.

    Example:
        ```python
        runtime = keras_kddp.export.LiteRTRuntime("student.tflite")
        outputs = runtime.run({runtime.input_names[0]: images})
        ```
    """

    name = "LiteRT"
    key = "litert"


class TFLMRuntime(Runtime):
    """A .tflite file on TensorFlow Lite for Microcontrollers.

    Its reference kernels in C++: the numbers of a chip, not its speed.
    """

    name = "TFLM"
    key = "tflm"

    @classmethod
    def absence(cls) -> str | None:
        """Returns how to get the runtime, None where it is there."""
        return absence_of("tflite_micro") or failure_of(sys.executable, cls.key)


class TFLiteRuntime(Runtime):
    """A .tflite file on tflite-runtime 2.14, as older devices have it.

    It needs NumPy below 2 and Python 3.11, so it lives in an environment of
    its own: the folder `tflite-runtime` beside the `bin` of this one, or
    wherever KERAS_KDDP_TFLITE_RUNTIME names a Python that can import it.
    """

    name = "tflite-runtime"
    key = "tflite-runtime"

    def execute(self, inputs: Mapping[str, Array], **options: Any) -> Execution:
        """Runs all samples, as every runtime does, but for int4.

        Raises:
            RefusalError: If the runtime cannot run the file, or would compute
                something else: it takes int4 for int8.
        """
        if self.quantization == "int4":
            raise RefusalError("int4 needs LiteRT: this one takes it for int8")
        return super().execute(inputs, **options)

    @classmethod
    def absence(cls) -> str | None:
        """Returns how to get the runtime, None where it is there."""
        python = cls._python()
        if not (Path(python).is_file() and os.access(python, os.X_OK)):
            return "make runtimes"
        return failure_of(python, cls.key)

    @classmethod
    def _python(cls) -> str:
        beside = Path(sys.prefix, "tflite-runtime", "bin", "python")
        return os.environ.get("KERAS_KDDP_TFLITE_RUNTIME") or str(beside)


RUNTIMES: tuple[type[Runtime], ...] = (
    LiteRTRuntime,
    TFLiteRuntime,
    TFLMRuntime,
)
"""All of them, LiteRT first."""
