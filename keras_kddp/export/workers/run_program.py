"""What a runtime's process does: .tflite file and samples in, outputs out.

Samples and outputs travel as .npz files of arrays of the tensors' own dtypes,
named by their positions in the file: "0", "1".
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy

_ARENAS = (1 << 24, 1 << 28)  # bytes; the second for large activations
_ARENA_STEP = 16  # bytes


def answer(
    action: str, report: Callable[[], None], **request: Any
) -> dict[str, Any]:
    """Says that a runtime is there, describes a file, or runs samples."""
    if action == "find":
        return _find(**request)
    if action == "describe":
        return _describe(**request)
    return _run(report, **request)


def _find(runtime: str) -> dict[str, Any]:
    """Loads a runtime that may be here and yet broken."""
    if runtime == "tflm":
        from tflite_micro.python.tflite_micro import runtime as _  # noqa: F401
    else:
        _interpreter_class(runtime)
    return {}


def _describe(path: str, *, is_prepared: bool) -> dict[str, Any]:
    """Returns the named inputs and outputs of a file, as LiteRT reads it."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # XNNPACK refuses some files that the plain kernels, and TFLM, run.
    interpreter = Interpreter(
        path,
        experimental_op_resolver_type=(
            OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        ),
    )
    if is_prepared:
        interpreter.allocate_tensors()
    inputs = interpreter.get_input_details()
    outputs = interpreter.get_output_details()
    named_inputs, named_outputs = _named_ends(interpreter)
    return {
        "dtypes": _dtypes(interpreter, path),
        "inputs": [
            _tensor(name, part, inputs) for name, part in named_inputs.items()
        ],
        "outputs": [
            _tensor(name, part, outputs) for name, part in named_outputs.items()
        ],
    }


def _named_ends(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the details of inputs and outputs by their names.

    The order in the file is the converter's own; only the names of its
    signature, where it has one, are reliable.
    """
    signatures = interpreter.get_signature_list()
    if signatures:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        return runner.get_input_details(), runner.get_output_details()
    ends = (interpreter.get_input_details(), interpreter.get_output_details())
    inputs, outputs = ({part["name"]: part for part in end} for end in ends)
    return inputs, outputs


def _dtypes(interpreter: Any, path: str) -> list[str]:
    """Returns the names of all dtypes in a file."""
    details = interpreter.get_tensor_details()
    dtypes = sorted({numpy.dtype(part["dtype"]).name for part in details})
    if _has_int4(path):  # NumPy has no name for it
        dtypes.append("int4")
    return dtypes


def _has_int4(path: str) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    with open(path, "rb") as file:
        model = schema.Model.GetRootAsModel(file.read(), 0)
    graph = model.Subgraphs(0)
    return any(
        graph.Tensors(index).Type() == schema.TensorType.INT4
        for index in range(graph.TensorsLength())
    )


def _tensor(
    name: str, part: dict[str, Any], listed: list[dict[str, Any]]
) -> dict[str, Any]:
    parameters = part["quantization_parameters"]
    is_quantized = parameters["scales"].size > 0
    return {
        "name": name,
        "position": [other["index"] for other in listed].index(part["index"]),
        "shape": part["shape"].tolist(),
        "dtype": numpy.dtype(part["dtype"]).name,
        "scale": float(parameters["scales"][0]) if is_quantized else None,
        "zero_point": int(parameters["zero_points"][0]) if is_quantized else 0,
    }


def _run(
    report: Callable[[], None],
    *,
    runtime: str,
    path: str,
    inputs: str,
    outputs: str,
    threads: int,
    arena: bool,
) -> dict[str, Any]:
    with numpy.load(inputs) as file:
        samples = [file[str(index)] for index in range(len(file.files))]
    model: Any = (
        _TFLM(path)
        if runtime == "tflm"
        else _TFLite(_interpreter(runtime, path, threads))
    )
    report()
    model.set_inputs([part[:1] for part in samples])
    model.invoke()  # warm
    report()
    rows, seconds = [], []
    for sample in range(len(samples[0])):
        model.set_inputs([part[sample : sample + 1] for part in samples])
        started = time.perf_counter()
        model.invoke()
        seconds.append(time.perf_counter() - started)
        rows.append(model.outputs())
        report()
    arrays: dict[str, Any] = {
        str(index): numpy.concatenate(parts)
        for index, parts in enumerate(zip(*rows, strict=True))
    }
    numpy.savez(outputs, **arrays)
    return {
        "milliseconds": 1000 * float(numpy.median(seconds)),
        "arena_bytes": model.arena_bytes(report) if arena else None,
    }


def _interpreter_class(runtime: str) -> Any:
    if runtime == "litert":
        from ai_edge_litert.interpreter import Interpreter
    else:
        from tflite_runtime.interpreter import Interpreter
    return Interpreter


def _interpreter(runtime: str, path: str, threads: int) -> Any:
    kind = _interpreter_class(runtime)
    interpreter = kind(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


class _TFLite:
    """A file on LiteRT or on tflite-runtime."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        inputs = interpreter.get_input_details()
        outputs = interpreter.get_output_details()
        self._inputs = [part["index"] for part in inputs]
        self._outputs = [part["index"] for part in outputs]

    def set_inputs(self, rows: list[Any]) -> None:
        for index, row in zip(self._inputs, rows, strict=True):
            self._interpreter.set_tensor(index, row)

    def invoke(self) -> None:
        self._interpreter.invoke()

    def outputs(self) -> list[Any]:
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def arena_bytes(self, report: Callable[[], None]) -> None:
        return None


class _TFLM:
    """A file on TensorFlow Lite for Microcontrollers."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._content = file.read()
        error = ""
        for arena in _ARENAS:
            try:
                with _Captured() as said:
                    self._interpreter = self._loaded(arena)
                break
            except (RuntimeError, ValueError) as problem:
                error = f"{problem} {said.text()}"
                if "allocat" not in error:
                    raise ValueError(error) from problem
        else:
            raise ValueError(error)
        self._inputs: list[Any] = []
        self._count = 0
        while True:
            try:
                self._interpreter.get_output_details(self._count)
            except (IndexError, RuntimeError, ValueError):
                break
            self._count += 1

    def _loaded(self, arena: int) -> Any:
        from tflite_micro.python.tflite_micro import runtime

        return runtime.Interpreter.from_bytes(self._content, arena_size=arena)

    def set_inputs(self, rows: list[Any]) -> None:
        self._inputs = rows
        for index, row in enumerate(rows):
            self._interpreter.set_input(row, index)

    def invoke(self) -> None:
        try:
            self._interpreter.invoke()
        except RuntimeError as problem:
            with _Captured() as said, contextlib.suppress(RuntimeError):
                self._interpreter.invoke()  # again, to hear why
            raise ValueError(f"{problem} {said.text()}") from problem

    def outputs(self) -> list[Any]:
        return [
            self._interpreter.get_output(index) for index in range(self._count)
        ]

    def arena_bytes(self, report: Callable[[], None]) -> int:
        """Returns the fewest bytes that the model loads and runs with.

        More than what the recording allocator adds up: kernels also take
        memory for the moment while they prepare.
        """
        with _Captured() as said:
            self._interpreter.print_allocations()
        total = said.text().split("Arena allocation total")[1]
        low = high = -(-int(total.split()[0]) // _ARENA_STEP) * _ARENA_STEP
        with _Captured():
            while not self._runs_with(high):
                report()
                low, high = high, 2 * high
            while high - low > _ARENA_STEP:
                report()
                middle = (low + high) // 2 // _ARENA_STEP * _ARENA_STEP
                if self._runs_with(middle):
                    high = middle
                else:
                    low = middle
        return high

    def _runs_with(self, arena: int) -> bool:
        child = os.fork()  # for want of memory, kernels may crash
        if child == 0:
            code = 1
            try:
                interpreter = self._loaded(arena)
                for index, row in enumerate(self._inputs):
                    interpreter.set_input(row, index)
                interpreter.invoke()
                code = 0
            finally:
                os._exit(code)
        return os.waitpid(child, 0)[1] == 0


class _Captured:
    """Catches what native code writes to standard error."""

    def __enter__(self) -> "_Captured":
        self._file = tempfile.TemporaryFile()
        self._stderr = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._stderr, 2)
        os.close(self._stderr)

    def text(self) -> str:
        self._file.seek(0)
        return self._file.read().decode("utf-8", errors="replace").strip()
