"""Errors of the converter, with the name of the layer and what helps."""

import contextlib
import re
from collections.abc import Container, Iterator
from pathlib import Path

import keras

from keras_kddp import _compat
from keras_kddp.export.errors import ExportError
from keras_kddp.export.model.layer_names import LayerNames
from keras_kddp.export.model.signature import (
    input_signature,
    output_names,
)
from keras_kddp.export.model.tracing import traced_inputs
from keras_kddp.export.tflite.converter import ConversionError, shared_converter
from keras_kddp.export.tflite.operations import read_operations
from keras_kddp.export.workers.guard import temporary_folder
from keras_kddp.surgery.layer_state import is_custom

_LOOPS = ("WHILE", "IF", "CALL_ONCE")
_MASKED = "NOT_EQUAL"  # which a mask begins with
_INTEGER = ("int8", "int16x8")


@contextlib.contextmanager
def naming_the_layer(
    model: keras.Model, saved_model: Path, quantization: str
) -> Iterator[None]:
    """Makes a failed conversion say at which layer it failed, and what helps.

    Args:
        model: The model that is converted inside.
        saved_model: Folder that it was saved to.
        quantization: As `to_tflite` takes it.

    Raises:
        ExportError: Instead of a `ConversionError`.
    """
    try:
        yield
    except ConversionError as failure:
        words = (
            _of_range(model, failure.received, quantization)
            or _of_wide_input(model, failure.received)
            or _of_wide_operations(model, failure.received, saved_model)
            or _of_operation(model, failure.received)
            or _of_loop(model, failure.received, saved_model, quantization)
            or f"{failure}{_suspects(model)}"
        )
        raise ExportError(words) from None


def _of_range(
    model: keras.Model, received: str, quantization: str
) -> str | None:
    """Explains an activation that no integers can stand for."""
    match = re.match(r"RangeError: (.*): (.*)", received)
    if match is None:
        return None
    name, what = match.groups()
    layer = _behind(model, name)
    if "go in" in what:
        return (
            f'In quantization="{quantization}", what goes into {layer} must '
            "have a range. Received: only zeros for all of `calibration`. "
            "Calibrate with more inputs, also such that no step is padded or "
            "masked in all of them, or take out the units before it, if they "
            'never fire; quantization="int8" takes them.'
        )
    if " out" in what:
        return (
            f'In quantization="{quantization}", what {layer} computes must '
            f"have a range. Received: {what} for all of `calibration`. "
            "Calibrate with more inputs, or take out its units, which never "
            'fire; quantization="int8" takes them.'
        )
    if "masked" in what:
        return (
            f'In quantization="{quantization}", masked scores must be near '
            f"the others. Received: {what} in {layer}. Use "
            'quantization="int8", in which they are put there.'
        )
    return (
        f'In quantization="{quantization}", values must have a finite range. '
        f"Received: {what} from {layer} for `calibration`. Scale the inputs "
        "as in training, and check the weights of this layer."
    )


def _behind(model: keras.Model, name: str) -> str:
    """Returns what to call a tensor: its layer, or an output of the model."""
    result = re.fullmatch(r"StatefulPartitionedCall\w*:(\d+)", name)
    if result is not None and int(result[1]) < len(model.outputs):
        return f"output '{output_names(model)[int(result[1])]}'"
    return LayerNames(model).behind(name) or f"tensor '{name}'"


def _of_wide_input(model: keras.Model, received: str) -> str | None:
    """Explains an input of integers, of which int16x8 finds no range."""
    match = re.search(r"Failed for tensor ([^\s:]+)", received)
    if match is None:
        return None
    name = match[1].removeprefix("serving_default_")
    traced = zip(traced_inputs(model), input_signature(model), strict=True)
    for traced_name, entry in traced:
        if traced_name == name:
            return (
                'In quantization="int16x8", what computes with an input must '
                "be floating-point. Received: input "
                f"'{entry.keras_name}' of {entry.dtype}. Use "
                'quantization="int8", or begin behind the layers that take '
                "integers."
            )
    layer = _behind(model, name)
    return (
        'quantization="int16x8" must find a range for every tensor. Received: '
        f'none for what {layer} computes. Use quantization="int8", or replace '
        "this layer."
    )


def _of_wide_operations(
    model: keras.Model, received: str, saved_model: Path
) -> str | None:
    """Explains operations that int16x8 has not."""
    found = re.findall(r"16x8-bit not yet supported for op: '(\w+)'", received)
    if not found:
        return None
    masking = _masking(model) if _MASKED in found else []
    if masking:
        return (
            'In quantization="int16x8", steps must not be masked: the '
            "converter has no operations for it. Received: "
            f'{", ".join(masking)}. Use quantization="int8", or make the '
            "model without a mask."
        )
    layers = LayerNames(model).behind_all(_makers(saved_model, found))
    return (
        'quantization="int16x8" must be for operations that the converter has '
        f"in it. Received: {', '.join(dict.fromkeys(found))}"
        f'{_listed(layers, " of ")}. Use quantization="int8", or replace '
        f"{'this layer' if len(layers) == 1 else 'what makes them'}."
    )


def _masking(model: keras.Model) -> list[str]:
    """Returns the layers that mask steps."""
    return [
        f"layer '{layer.name}' ({type(layer).__name__})"
        for layer in _compat.all_layers(model)
        if isinstance(layer, keras.layers.Masking)
        or (isinstance(layer, keras.layers.Embedding) and layer.mask_zero)
    ]


def _of_operation(model: keras.Model, received: str) -> str | None:
    """Explains an operation that the converter names itself."""
    name, _, cause = received.partition(": ")
    if not cause or re.fullmatch(r"\w*(Error|Exception)", name):
        return None
    layer = LayerNames(model).behind(name) or f"operation '{name}'"
    return (
        f"What {layer} computes must consist of TFLite builtin operations. "
        f"Received from the converter: {cause}. Replace it, or leave it out "
        "of the exported model."
    )


def _of_loop(
    model: keras.Model, received: str, saved_model: Path, quantization: str
) -> str | None:
    """Explains a loop or a branch, of which the converter dies in integers."""
    if quantization not in _INTEGER or received.startswith("SIGKILL"):
        return None
    layers = LayerNames(model).behind_all(_makers(saved_model, _LOOPS))
    if not layers:
        return None
    return (
        f'In quantization="{quantization}", layers must compute without loops '
        f"and branches. Received: {', '.join(layers)}; the converter's answer "
        f"was {received.strip()[:200]!r}. Write the loop out in Python, over a "
        'fixed number of steps, or use quantization="dynamic".'
    )


def _makers(saved_model: Path, kinds: Container[str]) -> list[str]:
    """Returns what operations of some kinds put out in the float32 file.

    Returns:
        Names of tensors; none where that file cannot be made either.
    """
    with temporary_folder() as folder:
        path = folder / "float32.tflite"
        try:
            shared_converter.convert(saved_model, path)
        except ExportError:
            return []
        content = path.read_bytes()
    return [
        name
        for operation in read_operations(content)
        if operation.kind in kinds
        for name in operation.outputs
    ]


def _suspects(model: keras.Model) -> str:
    """Returns the layers that the converter may never have seen."""
    custom = [
        f"'{layer.name}' ({type(layer).__name__})"
        for layer in _compat.all_layers(model)
        if is_custom(layer)
    ]
    return _listed(custom, "\nFirst try it without your own layers ")


def _listed(layers: list[str], before: str) -> str:
    return f"{before}{', '.join(layers)}" if layers else ""
