"""Operations of a .tflite file, written as those that TFLM has too."""

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

from keras_kddp.export.tflite.flatbuffer import checked_model, told_as_damage
from keras_kddp.export.tflite.operations import operations_of

_IDENTIFIER = b"TFL3"
_OPERATORS = schema.BuiltinOperator
_REWRITTEN = {"SELECT", "TILE", "UNPACK", "REDUCE_ANY", "REVERSE_V2"}


def with_portable_operations(content: bytes) -> bytes:
    """Returns a file that computes the same, on TFLM too where that is easy.

    - SELECT of equal shapes is SELECT_V2.
    - TILE along axes of size 1 is BROADCAST_TO.
    - UNPACK of booleans, the mask of an unrolled layer, is one STRIDED_SLICE
      for each; REDUCE_ANY, of a `Masking`, is the largest of zeros and ones.
    - What goes into REVERSE_V2 has the scale of what comes out, as all runtimes
      take for granted. The converter does not see to it.

    Args:
        content: A .tflite file.

    Raises:
        ValueError: If it is damaged.
    """
    if _REWRITTEN.isdisjoint(operations_of(content)):
        return content
    checked = checked_model(content)
    builder = Builder(len(content) + 1024)
    with told_as_damage():
        model = schema.ModelT.InitFromObj(checked)
        for graph in model.subgraphs:
            graph.operators = [
                new
                for operator in graph.operators or ()  # a branch may have none
                for new in _rewritten(model, graph, operator)
            ]
        _drop_unused_codes(model)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _rewritten(model: Any, graph: Any, operator: Any) -> list[Any]:
    """Returns what stands for an operation: itself, changed or not, or many."""
    code = model.operatorCodes[operator.opcodeIndex]
    kind = max(code.builtinCode, code.deprecatedBuiltinCode)
    given = [graph.tensors[index] for index in operator.inputs]
    made = [graph.tensors[index] for index in operator.outputs]
    if any(x.shape is None for x in (*given, *made)):
        return [operator]
    if kind == _OPERATORS.SELECT:
        if len({tuple(tensor.shape) for tensor in given}) == 1:
            _become(model, operator, _OPERATORS.SELECT_V2, 1)
    elif kind == _OPERATORS.TILE:
        pairs = zip(given[0].shape, made[0].shape, strict=True)
        if all(before in (1, after) for before, after in pairs):
            shape = np.asarray(made[0].shape, np.int32)
            operator.inputs = [
                operator.inputs[0],
                _constant(model, graph, shape),
            ]
            _become(model, operator, _OPERATORS.BROADCAST_TO, 2)
    elif kind == _OPERATORS.UNPACK:
        if given[0].type == schema.TensorType.BOOL:
            return _slices(model, graph, operator)
    elif kind == _OPERATORS.REDUCE_ANY:
        return _largest(model, graph, operator)
    elif kind == _OPERATORS.REVERSE_V2 and not _is_same_scale(*given, *made):
        return [_rescaling(model, graph, operator), operator]
    return [operator]


_OPTIONS = {
    _OPERATORS.SELECT_V2: "SelectV2Options",
    _OPERATORS.BROADCAST_TO: "BroadcastToOptions",
    _OPERATORS.STRIDED_SLICE: "StridedSliceOptions",
    _OPERATORS.CAST: "CastOptions",
    _OPERATORS.REDUCE_MAX: "ReducerOptions",
    _OPERATORS.NOT_EQUAL: "NotEqualOptions",
    _OPERATORS.QUANTIZE: "QuantizeOptions",
}


def _become(model: Any, operator: Any, kind: int, version: int) -> None:
    """Makes an operator one of another kind, with default options."""
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = kind, version
    code.deprecatedBuiltinCode = min(kind, 127)
    known = [(x.builtinCode, x.version) for x in model.operatorCodes]
    if (kind, version) not in known:
        known.append((kind, version))
        model.operatorCodes.append(code)
    operator.opcodeIndex = known.index((kind, version))
    name = _OPTIONS[kind]
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
    operator.builtinOptions = getattr(schema, f"{name}T")()


def _slices(model: Any, graph: Any, operator: Any) -> list[Any]:
    """Returns one slice for each output of an UNPACK."""
    (source,) = operator.inputs
    rank, axis = len(graph.tensors[source].shape), operator.builtinOptions.axis
    found = []
    for number, output in enumerate(operator.outputs):
        begin, end = np.zeros((2, rank), np.int32)
        begin[axis], end[axis] = number, number + 1
        new = copy.copy(operator)
        new.inputs = [
            source,
            *(
                _constant(model, graph, values)
                for values in (begin, end, np.ones(rank, np.int32))
            ),
        ]
        new.outputs = [output]
        _become(model, new, _OPERATORS.STRIDED_SLICE, 4)
        all_but_axis = 2**rank - 1 - 2 ** (axis % rank)
        new.builtinOptions.beginMask = all_but_axis
        new.builtinOptions.endMask = all_but_axis
        new.builtinOptions.shrinkAxisMask = 2 ** (axis % rank)
        found.append(new)
    return found


def _largest(model: Any, graph: Any, operator: Any) -> list[Any]:
    """Returns what finds out whether the largest of booleans is true."""
    source, axes = operator.inputs
    (output,) = operator.outputs
    numbers = _like(graph, source)
    largest = _like(graph, output)
    zero = _constant(model, graph, np.zeros((), np.float32))
    steps = (
        (_OPERATORS.CAST, 1, [source], [numbers]),
        (_OPERATORS.REDUCE_MAX, 1, [numbers, axes], [largest]),
        (_OPERATORS.NOT_EQUAL, 1, [largest, zero], [output]),
    )
    found = []
    for kind, version, inputs, outputs in steps:
        new = copy.copy(operator)
        new.inputs, new.outputs = inputs, outputs
        _become(model, new, kind, version)
        found.append(new)
    cast, maximum, _ = (new.builtinOptions for new in found)
    cast.inDataType = schema.TensorType.BOOL
    cast.outDataType = schema.TensorType.FLOAT32
    maximum.keepDims = operator.builtinOptions.keepDims
    return found


def _is_same_scale(source: Any, _: Any, made: Any) -> bool:
    """Returns whether integers mean the same before and after an operation."""
    before, after = source.quantization, made.quantization
    if before is None or before.scale is None:
        return True
    return bool(
        np.array_equal(before.scale, after.scale)
        and np.array_equal(before.zeroPoint, after.zeroPoint)
    )


def _rescaling(model: Any, graph: Any, operator: Any) -> Any:
    """Returns what gives the input of an operation the output's scale."""
    source, *others = operator.inputs
    (output,) = operator.outputs
    tensor = copy.copy(graph.tensors[source])
    tensor.name, tensor.buffer = tensor.name + b"_rescaled", 0
    tensor.quantization = graph.tensors[output].quantization
    graph.tensors.append(tensor)
    rescaled = len(graph.tensors) - 1
    new = copy.copy(operator)
    new.inputs, new.outputs = [source], [rescaled]
    _become(model, new, _OPERATORS.QUANTIZE, 2)
    operator.inputs = [rescaled, *others]
    return new


def _like(graph: Any, index: int) -> int:
    """Returns the index of a new float32 tensor of another one's shape."""
    tensor = copy.copy(graph.tensors[index])
    tensor.name = tensor.name + b"_number"
    tensor.type = schema.TensorType.FLOAT32
    tensor.buffer = 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _constant(model: Any, graph: Any, values: np.ndarray) -> int:
    """Returns the index of a new tensor of given values, int32 or float32."""
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    is_float = values.dtype == np.float32
    kind = schema.TensorType.FLOAT32 if is_float else schema.TensorType.INT32
    tensor.name = f"constant_{len(model.buffers)}".encode()
    tensor.type = kind
    tensor.shape = np.asarray(values.shape, np.int32)
    tensor.buffer = len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _drop_unused_codes(model: Any) -> None:
    """Leaves out the kinds of operations that no longer occur."""
    operators = [x for graph in model.subgraphs for x in graph.operators or ()]
    used = sorted({operator.opcodeIndex for operator in operators})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)
