"""Parts of which not every one is used, made into slices of those that are.

Whether the converter quantizes such a split, or leaves it between two casts of
float32, changes from call to call. The first step of an unrolled recurrent
layer has one: what meets the state, which is 0 there, is nothing.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy
from ai_edge_litert import schema_py_generated as schema

_MOST_DIMENSIONS = 5  # that a kernel of a slice takes


def with_slices(model: Any) -> None:
    """Replaces what splits or unstacks, of a parsed float32 .tflite file.

    Args:
        model: A `ModelT` of the schema, changed in place.
    """
    codes = [
        max(code.builtinCode, code.deprecatedBuiltinCode)
        for code in model.operatorCodes
    ]
    for graph in model.subgraphs:
        operators = graph.operators or ()  # a branch may have none
        used = set(graph.outputs)
        for operator in operators:
            used.update([] if operator.inputs is None else operator.inputs)
        new: list[Any] = []
        for operator in operators:
            slices = _SLICES.get(codes[operator.opcodeIndex])
            if slices is None or used.issuperset(operator.outputs):
                new.append(operator)
            else:
                new += slices(model, graph, operator, used)
        graph.operators = new


def _of_split(
    model: Any, graph: Any, split: Any, used: set[int]
) -> Iterator[Any]:
    """Yields an operation for each part that something uses."""
    # SPLIT has the axis first, SPLIT_V last, behind the sizes.
    if len(split.inputs) == 2:
        axis_tensor, given = split.inputs
    else:
        given, _, axis_tensor = split.inputs
    if len(graph.tensors[given].shape) > _MOST_DIMENSIONS:
        yield split
        return
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
        part.opcodeIndex = _code_of(model, schema.BuiltinOperator.SLICE)
        part.builtinOptionsType = schema.BuiltinOptions.SliceOptions
        part.builtinOptions = schema.SliceOptionsT()
        part.inputs = [
            given,
            _constant(model, graph, begin),
            _constant(model, graph, size),
        ]
        part.outputs = [index]
        yield part


def _of_unpack(
    model: Any, graph: Any, unpack: Any, used: set[int]
) -> Iterator[Any]:
    """Yields an operation for each entry that something uses."""
    (given,) = unpack.inputs
    end = [int(length) for length in graph.tensors[given].shape]
    if len(end) > _MOST_DIMENSIONS:
        yield unpack
        return
    axis = unpack.builtinOptions.axis % len(end)
    for place, index in enumerate(unpack.outputs):
        if index not in used:
            continue
        begin = [0] * len(end)
        begin[axis], end[axis] = place, place + 1
        part = copy.copy(unpack)
        part.opcodeIndex = _code_of(model, schema.BuiltinOperator.STRIDED_SLICE)
        part.builtinOptionsType = schema.BuiltinOptions.StridedSliceOptions
        part.builtinOptions = schema.StridedSliceOptionsT()
        part.builtinOptions.shrinkAxisMask = 1 << axis
        part.inputs = [
            given,
            *(_constant(model, graph, x) for x in (begin, end, [1] * len(end))),
        ]
        part.outputs = [index]
        yield part


_SLICES = {
    schema.BuiltinOperator.SPLIT: _of_split,
    schema.BuiltinOperator.SPLIT_V: _of_split,
    schema.BuiltinOperator.UNPACK: _of_unpack,
}


def _code_of(model: Any, kind: int) -> int:
    for number, code in enumerate(model.operatorCodes):
        if code.builtinCode == kind:
            return number
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
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
