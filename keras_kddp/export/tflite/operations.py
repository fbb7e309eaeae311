"""The operations of a .tflite file, read out of its flatbuffer."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ai_edge_litert import schema_py_generated as schema

from keras_kddp.export.tflite.flatbuffer import checked_model

_NAMES = {
    code: name
    for name, code in vars(schema.BuiltinOperator).items()
    if isinstance(code, int)
}


class Operation(NamedTuple):
    """One operation of a file.

    Attributes:
        kind: Name of the builtin operator, such as `"CONV_2D"`; of one that
            the schema has not, `"OPERATOR_999"`.
        place: Its number in its graph, from 0.
        inputs: Names of the tensors that it takes; "" for one left out.
        outputs: Names of the tensors that it makes.
    """

    kind: str
    place: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_operations(content: bytes) -> Iterator[Operation]:
    """Yields the operations of a file, graph by graph in the order they run.

    Args:
        content: A .tflite file.

    Raises:
        ValueError: If it is damaged.
    """
    model = checked_model(content)
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for place in range(graph.OperatorsLength()):
            operator = graph.Operators(place)
            code = model.OperatorCodes(operator.OpcodeIndex())
            # Files from before 2020 have the small numbers alone.
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            taken = map(operator.Inputs, range(operator.InputsLength()))
            made = map(operator.Outputs, range(operator.OutputsLength()))
            yield Operation(
                _NAMES.get(number, f"OPERATOR_{number}"),
                place,
                tuple(_name(graph, index) for index in taken),
                tuple(_name(graph, index) for index in made),
            )


def operations_of(content: bytes) -> tuple[str, ...]:
    """Returns the names of the operations of a file, each once, in order.

    Raises:
        ValueError: If it is damaged.
    """
    return tuple(dict.fromkeys(each.kind for each in read_operations(content)))


def _name(graph: Any, index: int) -> str:
    return (graph.Tensors(index).Name() or b"").decode() if index >= 0 else ""
