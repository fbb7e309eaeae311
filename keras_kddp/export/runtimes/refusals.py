"""Why a runtime refuses a file: the operation, its layer, what to use."""

import re
from pathlib import Path

import keras

from keras_kddp.export.model.layer_names import LayerNames
from keras_kddp.export.tflite.operations import Operation, read_operations

_NUMBERED = re.compile(r"Node (?:number )?(\w+) \((?:number )?(\w+)\)")
_ABSENT = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
_OLD = re.compile(r"'(\w+)' version '(\d+)'")

_FLOAT_FILE = 'TFLM runs files of "none", "int8" and "int16x8" alone'
_SMOOTH = 'use relu, elu or silu, or quantization="none"'
_BEFORE = "compute it before, and export the part of the model behind it"
_SORTED = "sort behind the model, and export the part before it"
_INSTEAD = {
    "GELU": "use silu or relu",
    "EXP": _SMOOTH,
    "LOG": _SMOOTH,
    "SQRT": 'use quantization="none"',
    "RSQRT": 'use quantization="none"',
    "DIV": 'use quantization="none", or a product instead',
    "SELECT": "use relu, elu or silu",
    "TILE": "use UpSampling2D, RepeatVector or Concatenate",
    "CONV_3D": "use Conv2D with the depth in its channels",
    "CONV_3D_TRANSPOSE": "use Conv2DTranspose",
    "TOPK_V2": _SORTED,
    "ONE_HOT": _BEFORE,
    "BUCKETIZE": _BEFORE,
    "RFFT2D": _BEFORE,
    "REAL": _BEFORE,
    "WHERE": "use a mask of fixed size",
    "CAST": "make the inputs of the model float32 or int32",
    "GATHER": 'use quantization="int8" or "none"',
    "WHILE": 'use quantization="none", in which up to 1,000 steps are unrolled',
}


def explained(refusal: str, path: Path, model: keras.Model) -> str:
    """Returns a runtime's refusal with the layer, and what helps, before it.

    Args:
        refusal: What the runtime said.
        path: The file.
        model: The model that it was exported from.
    """
    kind, number = _operation(refusal)
    if kind is None:
        return refusal
    layer = _layer(path, model, kind, number)
    parts = [f"{kind}{f' of {layer}' if layer else ''}"]
    advice = _advice(refusal, kind)
    if advice is not None:
        parts.append(advice)
    return f"{': '.join(parts)} ({_short(refusal)})"


def _operation(refusal: str) -> tuple[str | None, int | None]:
    """Returns the kind of the operation that a refusal is of, and its place."""
    absent = _ABSENT.search(refusal)
    if absent is not None:
        return absent[1], None
    numbered = _NUMBERED.search(refusal)
    if numbered is None:
        return None, None
    for kind, number in (numbered.groups(), numbered.groups()[::-1]):
        if number.isdigit() and not kind.isdigit():
            return kind, int(number)
    return None, None


def _advice(refusal: str, kind: str) -> str | None:
    is_hybrid = r"[Hh]ybrid|filter type: INT8|node DEQUANTIZE"
    if kind == "DEQUANTIZE" or re.search(is_hybrid, refusal):
        return _FLOAT_FILE
    old = _OLD.search(refusal)
    if old is not None:
        return f"this runtime is too old for version {old[2]} of it"
    return _INSTEAD.get(kind)


def _short(refusal: str) -> str:
    """Returns a refusal without what is said twice."""
    for words in (
        "TFLM failed to allocate tensors ",
        " An older version of this builtin might be supported.",
        " Are you using an old TFLite binary with a newer model?",
        " Registration failed.",
    ):
        refusal = refusal.replace(words, "")
    return re.sub(r" Failed to get registration from op code \w+", "", refusal)


def _layer(
    path: Path, model: keras.Model, kind: str, number: int | None
) -> str | None:
    """Returns the layer that an operation of a file comes from."""
    try:
        operations = [*read_operations(path.read_bytes())]
    except ValueError:  # damaged: the runtime's own words are all there is
        return None
    for operation in operations:
        if operation.kind == kind and number in (None, operation.place):
            return _made_by(operation, LayerNames(model))
    return None


def _made_by(operation: Operation, names: LayerNames) -> str | None:
    """Returns the layer in the names of what an operation takes, or makes.

    Weights first: what is fused into an operation gives its name to the output.
    """
    first, weights = operation.inputs[:1], operation.inputs[1:]
    found = names.behind_all((*weights, *operation.outputs, *first))
    return found[0] if found else None
