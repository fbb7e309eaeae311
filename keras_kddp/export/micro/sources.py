"""The C++ sources of a microcontroller bundle, as text."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

import numpy as np

from keras_kddp.export.micro.templates import (
    GOLDEN_HEADER,
    GOLDEN_SOURCE,
    MAIN,
    MODEL_HEADER,
    MODEL_SOURCE,
    RESOLVER,
)
from keras_kddp.export.runtimes.tensors import Tensor
from keras_kddp.model_io import Array

SOURCES = (
    "model.h",
    "model.cc",
    "op_resolver.h",
    "golden.h",
    "golden.cc",
    "main.cc",
)
"""Names of the files."""

_TYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "bool": "bool",
    "float32": "float",
}

# Methods of MicroMutableOpResolver that are not the operation's words.
_METHODS = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}


@dataclass(frozen=True)
class Golden:
    """Samples and what the model makes of them, as the file stores both.

    Attributes:
        inputs: In the file's order and dtypes, each (samples, ...).
        outputs: In the file's order and dtypes, each (samples, ...).
    """

    inputs: Sequence[Array]
    outputs: Sequence[Array]


@dataclass(frozen=True)
class Bundle:
    """What the sources are made from.

    Attributes:
        name: Prefix of every symbol: a C identifier in lower case.
        content: The .tflite file.
        operations: Names of its operations.
        inputs: In the file's order.
        outputs: In the file's order.
        arena_bytes: Bytes that the self-test reserves.
        golden: What the self-test compares.
    """

    name: str
    content: bytes
    operations: Sequence[str]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    arena_bytes: int
    golden: Golden

    def sources(self) -> dict[str, str]:
        """Returns file name -> text."""
        texts = (
            self._model_header(),
            self._model_source(),
            self._resolver(),
            self._golden_header(),
            self._golden_source(),
            _filled(MAIN, self._words(), main_body=self._body()),
        )
        return {
            name: text.strip() + "\n"
            for name, text in zip(SOURCES, texts, strict=True)
        }

    def _words(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "NAME": self.name.upper(),
            "Name": self.name.title().replace("_", ""),
            "count": len(self.golden.inputs[0]),
            "arena": self.arena_bytes,
        }

    def _model_header(self) -> str:
        lines = []
        for role, tensors in self._ends():
            for index, tensor in enumerate(tensors):
                stem = f"{self.name.upper()}_{role.upper()}_{index}"
                size = int(np.prod(tensor.shape))
                shape = " x ".join(map(str, tensor.shape))
                name = printable(tensor.name)
                lines += ["", f"/* {role} {index}: {name}, {shape} */"]
                lines.append(f"#define {stem}_SIZE {size}")
                if tensor.scale is not None:
                    lines.append(f"#define {stem}_SCALE {tensor.scale!r}f")
                    lines.append(
                        f"#define {stem}_ZERO_POINT ({tensor.zero_point})"
                    )
        return _filled(MODEL_HEADER, self._words(), ends="\n".join(lines))

    def _ends(self) -> list[tuple[str, Sequence[Tensor]]]:
        return [("input", self.inputs), ("output", self.outputs)]

    def _model_source(self) -> str:
        numbers = [f"0x{byte:02x}" for byte in self.content]
        return _filled(
            MODEL_SOURCE,
            self._words(),
            bytes=_wrapped(numbers),
            size=len(self.content),
        )

    def _resolver(self) -> str:
        methods = [resolver_method(name) for name in self.operations]
        calls = "\n".join(
            f"  if (resolver.{method}() != kTfLiteOk) return kTfLiteError;"
            for method in methods
        )
        return _filled(
            RESOLVER, self._words(), operations=len(methods), calls=calls
        )

    def _arrays(self) -> list[tuple[str, str, Array]]:
        """Returns C type, name and values of each golden array."""
        found = []
        for (role, tensors), arrays in zip(
            self._ends(),
            (self.golden.inputs, self.golden.outputs),
            strict=True,
        ):
            for index, (tensor, array) in enumerate(
                zip(tensors, arrays, strict=True)
            ):
                name = f"{self.name}_golden_{role}_{index}"
                found.append((_TYPES[tensor.dtype], name, array))
        return found

    def _golden_header(self) -> str:
        lines = [
            f"extern const {kind} {name}[{len(array)}][{array[0].size}];"
            for kind, name, array in self._arrays()
        ]
        return _filled(GOLDEN_HEADER, self._words(), arrays="\n".join(lines))

    def _golden_source(self) -> str:
        blocks = []
        for kind, name, array in self._arrays():
            rows = ",\n".join(
                "    {\n"
                + _wrapped([_literal(kind, value) for value in row], 8)
                + "\n    }"
                for row in array.reshape(len(array), -1).tolist()
            )
            blocks.append(
                f"const {kind} {name}[{len(array)}][{array[0].size}] = {{\n"
                f"{rows}\n}};"
            )
        return _filled(GOLDEN_SOURCE, self._words(), arrays="\n\n".join(blocks))

    def _body(self) -> str:
        """Returns the loop's part of main.cc that depends on the tensors."""
        words = self._words()
        lines = []
        for index, tensor in enumerate(self.inputs):
            kind = _TYPES[tensor.dtype]
            lines.append(
                f"memcpy(interpreter.input({index})->data.raw, "
                f"{words['name']}_golden_input_{index}[sample],\n"
                f"       {words['NAME']}_INPUT_{index}_SIZE * sizeof({kind}));"
            )
        lines.append("if (interpreter.Invoke() != kTfLiteOk) return 3;")
        for index, tensor in enumerate(self.outputs):
            kind = _TYPES[tensor.dtype]
            lines.append(
                f"wrong += differs(\n"
                f"    reinterpret_cast<const {kind}*>("
                f"interpreter.output({index})->data.raw),\n"
                f"    {words['name']}_golden_output_{index}[sample], "
                f"{words['NAME']}_OUTPUT_{index}_SIZE,\n"
                f"    {_tolerances(tensor)});"
            )
        return textwrap.indent("\n".join(lines), "    ")


def printable(name: str) -> str:
    """Returns any name in ASCII, on one line, as a comment can hold it."""
    return json.dumps(name)[1:-1].replace("*/", "* /")


def resolver_method(operation: str) -> str:
    """Returns the method of MicroMutableOpResolver that adds an operation."""
    words = operation.split("_")
    plain = "".join(
        word if word[0].isdigit() else word.capitalize() for word in words
    )
    return _METHODS.get(operation, f"Add{plain}")


def _literal(kind: str, value: Any) -> str:
    if kind == "float":
        return f"{np.float32(value)!s}f"
    return str(value).lower() if kind == "bool" else str(value)


def _tolerances(tensor: Tensor) -> str:
    """Returns how far an output may be off: absolute, and of its size.

    A step of int8 and four of int16, which is 256 times finer and adds up;
    integers that stand for themselves are exact.
    """
    if tensor.dtype == "float32":
        return "1e-4, 1e-4"
    if tensor.scale is None:
        return "0.0, 0.0"
    return "4.0, 0.0" if tensor.dtype == "int16" else "1.0, 0.0"


def _wrapped(items: Sequence[str], indent: int = 4) -> str:
    lines = textwrap.wrap(", ".join(items), 79 - indent, break_on_hyphens=False)
    return textwrap.indent("\n".join(lines), " " * indent)


def _filled(text: str, words: dict[str, Any], **more: Any) -> str:
    return Template(text).substitute(words, **more)
