"""One way to run an exported file, whatever runtime it is for."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from keras_kddp.input_range import Range

Array = NDArray[Any]


class Runtime(Protocol):
    """A loaded file that turns samples into outputs.

    Attributes:
        name: What the tables call the runtime.
        path: The file.
        is_quantized: The file takes or gives int8, with a scale.
    """

    name: str
    path: Path
    is_quantized: bool

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs in the file."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in the file."""

    @property
    def input_ranges(self) -> dict[str, Range]:
        """What each quantized input can tell apart, by name."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the outputs for all samples, one sample at a time."""


class LiteRTRuntime:
    """A .tflite file on LiteRT, the runtime of phones and single boards.

    Args:
        path: A file whose inputs and outputs have a batch of 1.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If LiteRT cannot load it, or the batch is not 1.

    Example:
        runtime = keras_kddp.export.LiteRTRuntime("student.tflite")
        outputs = runtime.run({runtime.input_names[0]: images})
    """

    name = "LiteRT"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._interpreter = _loaded(self.path)
        self._inputs, self._outputs = _named_tensors(self._interpreter)
        for tensor in (*self._inputs.values(), *self._outputs.values()):
            shape = tuple(tensor["shape"].tolist())
            if shape[:1] != (1,):
                raise ValueError(
                    "Inputs and outputs must have a batch of 1. Received: "
                    f"shape {shape} in {str(self.path)!r}. "
                    "Export the model with keras_kddp.export.to_tflite."
                )
        tensors = (*self._inputs.values(), *self._outputs.values())
        self.is_quantized = any(map(_is_quantized, tensors))

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs in the file."""
        return tuple(self._inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in the file."""
        return tuple(self._outputs)

    @property
    def input_ranges(self) -> dict[str, Range]:
        """What each quantized input can tell apart, by name: low, high."""
        return {
            name: _range(tensor)
            for name, tensor in self._inputs.items()
            if _is_quantized(tensor)
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the outputs for all samples, one sample at a time.

        Args:
            inputs: By name, arrays of shape `(samples, ...)`, real numbers;
                an int8 file gets them quantized by its own scales.

        Returns:
            By name, float32 arrays of shape `(samples, ...)`, real numbers
            again.

        Raises:
            ValueError: If names, shapes or dtypes are not the file's.
        """
        self._check(inputs)
        samples = len(next(iter(inputs.values())))
        outputs = {
            name: np.empty((samples, *tensor["shape"][1:]), tensor["dtype"])
            for name, tensor in self._outputs.items()
        }
        stored = {
            name: _quantized(inputs[name], tensor)
            for name, tensor in self._inputs.items()
        }
        for sample in range(samples):
            for name, tensor in self._inputs.items():
                row = stored[name][sample : sample + 1]
                self._interpreter.set_tensor(tensor["index"], row)
            self._interpreter.invoke()
            for name, tensor in self._outputs.items():
                outputs[name][sample] = self._interpreter.get_tensor(
                    tensor["index"]
                )[0]
        return {
            name: _real(outputs[name], tensor)
            for name, tensor in self._outputs.items()
        }

    def _check(self, inputs: Mapping[str, Array]) -> None:
        if set(inputs) != set(self._inputs):
            raise ValueError(
                f"`inputs` must have the names {sorted(self._inputs)}. "
                f"Received: {sorted(inputs)}. See `input_names`."
            )
        for name, array in inputs.items():
            shape = tuple(self._inputs[name]["shape"][1:].tolist())
            dtype = self._inputs[name]["dtype"]
            if _is_quantized(self._inputs[name]):
                dtype = np.float32
            fits = np.can_cast(array.dtype, dtype, "same_kind")
            if array.shape[1:] != shape or not fits:
                raise ValueError(
                    f"`inputs` must hold {np.dtype(dtype).name} of shape "
                    f"{('samples', *shape)} for {name!r}. Received: "
                    f"{array.dtype} of shape {array.shape}. Convert the data "
                    "as the model was trained on it."
                )
        lengths = {name: len(array) for name, array in inputs.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                "`inputs` must have equally many samples. Received: "
                f"{lengths}. Cut them to the same rows."
            )


def _is_quantized(tensor: Mapping[str, Any]) -> bool:
    return tensor["quantization_parameters"]["scales"].size > 0


def _scale(tensor: Mapping[str, Any]) -> tuple[float, int]:
    """Returns scale and zero point: `real = scale * (stored - zero point)`."""
    parameters = tensor["quantization_parameters"]
    return float(parameters["scales"][0]), int(parameters["zero_points"][0])


def _range(tensor: Mapping[str, Any]) -> Range:
    scale, zero_point = _scale(tensor)
    limits = np.iinfo(tensor["dtype"])
    return scale * (limits.min - zero_point), scale * (limits.max - zero_point)


def _quantized(values: Array, tensor: Mapping[str, Any]) -> Array:
    """Returns real numbers as the tensor stores them."""
    if not _is_quantized(tensor):
        return values.astype(tensor["dtype"])
    scale, zero_point = _scale(tensor)
    limits = np.iinfo(tensor["dtype"])
    stored = np.rint(values.astype(np.float32) / scale) + zero_point
    return np.clip(stored, limits.min, limits.max).astype(tensor["dtype"])


def _real(values: Array, tensor: Mapping[str, Any]) -> Array:
    """Returns what a tensor stores as real numbers."""
    if not _is_quantized(tensor):
        return values.astype(np.float32)
    scale, zero_point = _scale(tensor)
    return (scale * (values.astype(np.float32) - zero_point)).astype(np.float32)


def _loaded(path: Path) -> Interpreter:
    if not path.is_file():
        raise FileNotFoundError(
            f"`path` must be a .tflite file. Received: path={str(path)!r}, "
            "which is no file. Write it with keras_kddp.export.to_tflite."
        )
    try:
        interpreter = Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{str(path)!r} must be a complete .tflite file of operations "
            f"that LiteRT has. Received: {error}. Export the model again."
        ) from error
    return interpreter


def _named_tensors(
    interpreter: Interpreter,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns inputs and outputs by name: index, shape and dtype of each.

    The order in the file is the converter's own; only names are reliable.
    """
    signatures = interpreter.get_signature_list()
    if not signatures:
        return (
            {part["name"]: part for part in interpreter.get_input_details()},
            {part["name"]: part for part in interpreter.get_output_details()},
        )
    # A runner that lives on would forbid direct calls of the interpreter.
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    return runner.get_input_details(), runner.get_output_details()
