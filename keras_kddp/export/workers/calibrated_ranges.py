"""Ranges of activations, found by calibration, made fit for integers."""

import copy
import runpy
from pathlib import Path
from typing import Any

import numpy
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

_LARGEST_RATIO = 128  # XNNPACK refuses 256 and more
_NOTHING = 1e-6  # the converter takes a narrower range for one of this width
_SAME_SCALE = ("SELECT", "SELECT_V2")
_MASKING = (*_SAME_SCALE, "ADD", "SUB")
_SILENT = 1e-30  # a range of zeros is as wide as the least float32
_SMALLEST_SUM = 1 << 14  # times smaller than a summand, in int16
_LARGE = 1e6  # a score beyond it is masked
_BELOW = 8.0  # exp(-8) is nothing to an int8 softmax
_WEIGHTED = (
    *("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D"),
    *("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"),
)


class RangeError(ValueError):
    """An activation has no range that integers can stand for."""


def with_ranges(content: bytes, *, is_wide: bool) -> bytes:
    """Returns a calibrated file with ranges that can be quantized.

    Args:
        content: A float32 .tflite file with the ranges of its activations.
        is_wide: Of int16x8, for which the converter takes no changed ranges:
            they are only checked.

    Raises:
        RangeError: If an activation has none: its name, and what it was.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    if not is_wide:
        program = Path(__file__).with_name("unused_parts.py")
        runpy.run_path(str(program))["with_slices"](model)
    names = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if isinstance(code, int)
    }
    kinds = [
        names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    ]
    for graph in model.subgraphs:
        ranges = _Ranges(model, graph, kinds)
        ranges.check_finite()
        if is_wide:
            ranges.check_alive()
            ranges.check_results()
            ranges.check_masks()
        else:
            ranges.soften_masks()
            ranges.join()
            ranges.widen()
    builder = Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Ranges:
    """What the activations of a graph were while it was calibrated.

    Args:
        model: The file, as an object.
        graph: Of its subgraphs.
        kinds: Names of the operations, as the file numbers them.
    """

    def __init__(self, model: Any, graph: Any, kinds: list[str]) -> None:
        self._model, self._graph, self._kinds = model, graph, kinds

    def check_finite(self) -> None:
        """Refuses a tensor that overflowed."""
        for tensor in self._graph.tensors:
            if _is_ranged(tensor):
                low, high = _range(tensor)
                if not numpy.isfinite(numpy.float32(high) - low):
                    raise RangeError(
                        f"{tensor.name.decode()}: {low:.3g} to {high:.3g}"
                    )

    def check_alive(self) -> None:
        """Refuses a bias behind nothing but zeros: its scale would be 0."""
        for operator in self._of(*_WEIGHTED):
            given = self._graph.tensors[operator.inputs[0]]
            has_bias = len(operator.inputs) > 2 and operator.inputs[2] >= 0
            if has_bias and _is_ranged(given) and _width(given) < _NOTHING:
                made = self._graph.tensors[operator.outputs[0]]
                raise RangeError(f"{made.name.decode()}: only zeros go in")

    def check_results(self) -> None:
        """Refuses results that are too small beside what they are made of.

        LiteRT does not load such a product of one unit with a bias, which has
        one scale for all of it, and dies of such a sum.
        """
        for operator in self._of("ADD", "FULLY_CONNECTED"):
            given, (made,) = operator.inputs, operator.outputs
            if self._kinds[operator.opcodeIndex] == "ADD":
                least = max(map(self._largest, given)) / _SMALLEST_SUM
            else:
                has_bias = len(given) > 2 and given[2] >= 0
                is_one = self._graph.tensors[given[1]].shape[0] == 1
                least = _SILENT if has_bias and is_one else 0.0
            tensor, largest = self._graph.tensors[made], self._largest(made)
            if _is_ranged(tensor) and largest < least:
                most = f"at most {largest:.3g} comes out"
                what = "only zeros come out" if largest < _SILENT else most
                raise RangeError(f"{tensor.name.decode()}: {what}")

    def check_masks(self) -> None:
        """Refuses scores of a softmax beside which masked ones are large."""
        for operator in self._of("SOFTMAX"):
            for tensor in self._ranged(operator.inputs):
                if _width(tensor) >= _LARGE:
                    low, high = _range(tensor)
                    raise RangeError(
                        f"{tensor.name.decode()}: masked scores, {low:.3g} "
                        f"beside {high:.3g}"
                    )

    def soften_masks(self) -> None:
        """Puts masked scores of a softmax just below the others.

        Beside -1e9, all scores would be one and the same in 256 steps.
        """
        for operator in self._of("SOFTMAX"):
            masking = self._masking(operator.inputs[0])
            indices = [
                index
                for part in masking
                for index in (*part.inputs, *part.outputs)
            ]
            ranged = self._ranged(indices)
            scores = [x for x in ranged if _width(x) < _LARGE]
            if not scores or len(scores) == len(ranged):
                continue
            low = min(_range(x)[0] for x in scores)
            high = max(_range(x)[1] for x in scores)
            below = low - (high - low) - _BELOW
            for part in masking:
                is_sum = self._kinds[part.opcodeIndex] in ("ADD", "SUB")
                distance = high - low + _BELOW
                self._replace_large(part, distance if is_sum else -below)
            for tensor in ranged:
                if _width(tensor) >= _LARGE:
                    _set_range(tensor, below, max(high, 0.0))

    def _masking(self, index: int) -> list[Any]:
        """Returns the operations that mask what goes into a softmax."""
        found = []
        for operator in self._of(*_MASKING):
            if index in operator.outputs:
                found.append(operator)
                for given in operator.inputs:
                    found += self._masking(given)
        return found

    def _replace_large(self, operator: Any, size: float) -> None:
        """Gives an operation constants of a size instead of large ones."""
        for place, index in enumerate(operator.inputs):
            tensor = self._graph.tensors[index]
            values = self._values(tensor)
            if values is None:
                continue
            is_large = numpy.abs(values) >= _LARGE
            if is_large.any():
                new = numpy.where(is_large, numpy.sign(values) * size, values)
                constant = copy.copy(tensor)
                buffer = copy.copy(self._model.buffers[tensor.buffer])
                buffer.data = numpy.frombuffer(
                    new.astype(numpy.float32).tobytes(), numpy.uint8
                )
                self._model.buffers.append(buffer)
                constant.buffer = len(self._model.buffers) - 1
                self._graph.tensors.append(constant)
                operator.inputs = [*operator.inputs]
                operator.inputs[place] = len(self._graph.tensors) - 1

    def join(self) -> None:
        """Gives what must share a scale the range of all of it.

        The converter takes that of one, and the others are cut off by it.
        """
        is_changing = True
        while is_changing:
            is_changing = False
            for operator in self._of(*_SAME_SCALE):
                found = self._ranged([*operator.inputs[1:], *operator.outputs])
                ranges = [_range(tensor) for tensor in found]
                low = min((low for low, _ in ranges), default=0)
                high = max((high for _, high in ranges), default=0)
                for tensor, known in zip(found, ranges, strict=True):
                    if known != (low, high):
                        _set_range(tensor, low, high)
                        is_changing = True

    def widen(self) -> None:
        """Widens ranges that are too narrow beside those they come from.

        Of units that never fire, for example: XNNPACK refuses the whole file.
        """
        for operator in self._of(*self._kinds):  # all, in order
            kind = self._kinds[operator.opcodeIndex]
            widths = [_width(x) for x in self._ranged(operator.inputs)]
            least = self._least_width(operator, kind, widths)
            for tensor in self._ranged(operator.outputs):
                low, _ = _range(tensor)
                needed = least
                if _width(tensor) < _NOTHING:
                    needed = max(least, *widths, 0) or 1.0
                if _width(tensor) < needed:
                    _set_range(tensor, -needed if low < 0 else 0, needed)

    def _least_width(
        self, operator: Any, kind: str, widths: list[float]
    ) -> float:
        """Returns the narrowest range that a result may have."""
        if not widths or kind not in _WEIGHTED:
            return 0.0
        largest = self._largest_weight(operator)
        return max(widths) * largest / 127 / _LARGEST_RATIO

    def _largest_weight(self, operator: Any) -> float:
        weight = self._graph.tensors[operator.inputs[1]]
        values = self._values(weight)
        return 1.0 if values is None else float(numpy.abs(values).max())

    def _largest(self, index: int) -> float:
        """Returns the largest number in a tensor, without its sign."""
        tensor = self._graph.tensors[index]
        if _is_ranged(tensor):
            low, high = _range(tensor)
            return max(-low, high)
        values = self._values(tensor)
        return 0.0 if values is None else float(numpy.abs(values).max())

    def _values(self, tensor: Any) -> Any:
        """Returns the numbers of a constant of float32, None of others."""
        data = self._model.buffers[tensor.buffer].data
        if tensor.type != 0 or data is None or not len(data):
            return None
        return numpy.frombuffer(bytes(data), numpy.float32)

    def _of(self, *kinds: str) -> list[Any]:
        operators = self._graph.operators or ()  # a branch may have none
        return [x for x in operators if self._kinds[x.opcodeIndex] in kinds]

    def _ranged(self, indices: Any) -> list[Any]:
        given = [] if indices is None else indices  # a call may have none
        tensors = (self._graph.tensors[index] for index in given if index >= 0)
        return [tensor for tensor in tensors if _is_ranged(tensor)]


def _is_ranged(tensor: Any) -> bool:
    quantization = tensor.quantization
    return (
        tensor.type == 0  # float32
        and quantization is not None
        and quantization.min is not None
        and len(quantization.min) == 1
    )


def _range(tensor: Any) -> tuple[float, float]:
    quantization = tensor.quantization
    return float(quantization.min[0]), float(quantization.max[0])


def _width(tensor: Any) -> float:
    """Returns the width of a range that holds 0."""
    low, high = _range(tensor)
    return max(high, 0) - min(low, 0)


def _set_range(tensor: Any, low: float, high: float) -> None:
    tensor.quantization.min, tensor.quantization.max = [low], [high]
