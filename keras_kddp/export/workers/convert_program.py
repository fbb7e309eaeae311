"""What the converter's process does: SavedModel in, .tflite file out."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy
import tensorflow as tf

_LARGEST_RATIO = 128  # XNNPACK refuses 256 and more
_NOTHING = 1e-6  # the converter takes a narrower range for one of this width
_SAME_SCALE = ("SELECT", "SELECT_V2")
_WEIGHTED = (
    *("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D"),
    *("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"),
)


class RangeError(ValueError):
    """An activation has no range that integers can stand for."""


def answer(
    saved_model: str,
    target: str,
    quantization: str,
    calibration: str | None,
    uint8_input: bool,
) -> dict[str, Any]:
    """Converts the signature `serving_default`.

    Args:
        saved_model: Folder of the SavedModel.
        target: File to write.
        quantization: none, dynamic, float16, int8 or int16x8.
        calibration: For the last two, an .npz file of samples, named "input:"
            and the name of the input.
        uint8_input: Inputs in uint8 instead of int8.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(
        saved_model, signature_keys=["serving_default"]
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.allow_custom_ops = False
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if calibration is not None:
        _calibrate(converter, calibration)
        is_wide = quantization == "int16x8"
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            if is_wide
            else tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        ]
        ends = tf.int16 if is_wide else tf.int8
        converter.inference_input_type = tf.uint8 if uint8_input else ends
        converter.inference_output_type = ends
    if calibration is None:
        content = converter.convert()
    else:
        with _usable_ranges(is_wide=quantization == "int16x8"):
            content = converter.convert()
    with open(target, "wb") as file:
        file.write(content)
    return {}


def _calibrate(converter: Any, calibration: str) -> None:
    with numpy.load(calibration) as file:
        samples = {key.removeprefix("input:"): file[key] for key in file}
    count = len(next(iter(samples.values())))
    converter.representative_dataset = lambda: (
        {name: array[row : row + 1] for name, array in samples.items()}
        for row in range(count)
    )


@contextlib.contextmanager
def _usable_ranges(*, is_wide: bool) -> Iterator[None]:
    """Has the converter see calibrated ranges that runtimes can work with.

    Args:
        is_wide: Of int16x8, for which the converter takes no changed ranges:
            they are only checked.
    """
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    def calibrate(self: Any, *options: Any) -> Any:
        content = found(self, *options)
        return content if content is None else _with_ranges(content, is_wide)

    found = Calibrator.calibrate
    Calibrator.calibrate = calibrate
    try:
        yield
    finally:
        Calibrator.calibrate = found


def _with_ranges(content: bytes, is_wide: bool) -> bytes:
    """Returns a calibrated file with ranges that can be quantized."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
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
        else:
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
        data = self._model.buffers[weight.buffer].data
        if data is None or not len(data):
            return 1.0
        values = numpy.frombuffer(bytes(data), numpy.float32)
        return float(numpy.abs(values).max(initial=0))

    def _of(self, *kinds: str) -> list[Any]:
        return [
            operator
            for operator in self._graph.operators
            or ()  # a branch may have none
            if self._kinds[operator.opcodeIndex] in kinds
        ]

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
