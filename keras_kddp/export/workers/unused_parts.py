"""Splits of which not every part is used, made into slices of those that are.

Whether the converter quantizes such a split, or leaves it between two casts of
float32, changes from call to call. The first step of an unrolled recurrent
layer has one: what meets the state, which is 0 there, is nothing.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy
from ai_edge_litert import schema_py_generated as schema

_SPLITS = {schema.BuiltinOperator.SPLIT, schema.BuiltinOperator.SPLIT_V}


def with_slices(model: Any) -> None:
    """Replaces these splits of a parsed float32 .tflite file.

    Args:
        model: A `ModelT` of the schema, changed in place.
    """
    splits = {
        number
        for number, code in enumerate(model.operatorCodes)
        if {code.builtinCode, code.deprecatedBuiltinCode} & _SPLITS
    }
    for graph in model.subgraphs:
        operators = graph.operators or ()  # a branch may have none
        used = set(graph.outputs)
        for operator in operators:
            used.update([] if operator.inputs is None else operator.inputs)
        graph.operators = [
            new
            for operator in operators
            for new in (
                _slices(model, graph, operator, used)
                if operator.opcodeIndex in splits
                and not used.issuperset(operator.outputs)
                else [operator]
            )
        ]


def _slices(
    model: Any, graph: Any, split: Any, used: set[int]
) -> Iterator[Any]:
    """Yields an operation for each part that something uses."""
    # SPLIT has the axis first, SPLIT_V last, behind the sizes.
    if len(split.inputs) == 2:
        axis_tensor, given = split.inputs
    else:
        given, _, axis_tensor = split.inputs
    data = model.buffers[graph.tensors[axis_tensor].buffer].data
    (axis,) = numpy.frombuffer(bytes(data), numpy.int32)
    start = 0
    for index in split.outputs:
        size = [int(length) for length in graph.tensors[index].shape]
        begin = [0] * len(size)
        begin[axis] = start
        start += size[axis]
        if index not in used:
            continue
        part = copy.copy(split)
        part.opcodeIndex = _code_of_slices(model)
        part.builtinOptionsType = schema.BuiltinOptions.SliceOptions
        part.builtinOptions = schema.SliceOptionsT()
        part.inputs = [
            given,
            _constant(model, graph, begin),
            _constant(model, graph, size),
        ]
        part.outputs = [index]
        yield part


def _code_of_slices(model: Any) -> int:
    for number, code in enumerate(model.operatorCodes):
        if code.builtinCode == schema.BuiltinOperator.SLICE:
            return number
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.SLICE
    code.deprecatedBuiltinCode = schema.BuiltinOperator.SLICE
    code.version = 2  # that of int8
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _constant(model: Any, graph: Any, values: Sequence[int]) -> int:
    """Returns the number of a new tensor of int32."""
    buffer = schema.BufferT()
    buffer.data = numpy.frombuffer(
        numpy.array(values, numpy.int32).tobytes(), numpy.uint8
    )
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.shape = [len(values)]
    tensor.type = schema.TensorType.INT32
    tensor.name = b"slice"
    tensor.buffer = len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
