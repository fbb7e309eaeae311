"""A .tflite file whose offsets stay inside of it."""

import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

from ai_edge_litert import schema_py_generated as schema

_DAMAGES = (
    AttributeError,
    IndexError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
)
_READS_PER_BYTE = 16


def checked_model(content: bytes) -> Any:
    """Returns the root of a file of which every part can be read.

    An offset of a damaged file points anywhere, so that parts hold each other
    a million times over: as many are read as the file has bytes for.

    Args:
        content: A .tflite file.

    Returns:
        A `Model` of the schema, of which operators, tensors, buffers and
        metadata lie inside the file, and name none that is not there.

    Raises:
        ValueError: If it is damaged.
    """
    with told_as_damage():
        if content[4:8] != b"TFL3":
            raise ValueError(f"{len(content):,} bytes that start otherwise")
        model = schema.Model.GetRootAsModel(content, 0)
        _Walk(len(content)).check(model)
        return model


@contextlib.contextmanager
def told_as_damage() -> Iterator[None]:
    """Tells whatever goes wrong inside as a damage of the file.

    Raises:
        ValueError: If something does.
    """
    try:
        yield
    except _DAMAGES as error:
        raise ValueError(
            "A .tflite file must be whole, TFL3 behind its first four bytes. "
            f"Received a damaged one: {error}. Write or fetch it again."
        ) from error


class _Walk:
    """Reads what there is, up to a number of parts.

    Args:
        size: Of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = _READS_PER_BYTE * size

    def check(self, model: Any) -> None:
        """Reads a whole model.

        Raises:
            ValueError: If there are more parts than the file has room for, or
                one is named that is not there.
        """
        codes, buffers = model.OperatorCodesLength(), model.BuffersLength()
        for code in self._parts(codes, model.OperatorCodes):
            code.BuiltinCode(), code.DeprecatedBuiltinCode()
        for buffer in self._parts(buffers, model.Buffers):
            buffer.DataAsNumpy()
        for entry in self._parts(model.MetadataLength(), model.Metadata):
            self._spend(len(entry.Name() or b""))
            _check_number(entry.Buffer(), buffers)
        for graph in self._parts(model.SubgraphsLength(), model.Subgraphs):
            self._check_graph(graph, codes, buffers)

    def _check_graph(self, graph: Any, codes: int, buffers: int) -> None:
        tensors = graph.TensorsLength()
        for tensor in self._parts(tensors, graph.Tensors):
            name = tensor.Name() or b""
            self._spend(len(name) + tensor.ShapeLength())
            name.decode()
            tensor.ShapeAsNumpy()
            _check_number(tensor.Buffer(), buffers)
        for operator in self._parts(graph.OperatorsLength(), graph.Operators):
            _check_number(operator.OpcodeIndex(), codes)
            for count, get in (
                (operator.InputsLength(), operator.Inputs),
                (operator.OutputsLength(), operator.Outputs),
            ):
                for number in self._parts(count, get):
                    if number != -1:  # one left out
                        _check_number(number, tensors)

    def _parts(self, count: int, get: Callable[[int], Any]) -> Iterator[Any]:
        self._spend(count)
        return map(get, range(count))

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError("it names more parts than it has bytes for")


def _check_number(number: int, count: int) -> None:
    if not 0 <= number < count:
        raise ValueError(f"it names part {number} of {count}")
