"""What no .tflite file can hold, known before the model is traced."""

import keras
import numpy as np

from keras_kddp import _compat
from keras_kddp.export.errors import ExportError
from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.calls import is_flattened, layers_by_path

LARGEST_FLOAT16 = 65504.0

_LOOKUPS = (
    keras.layers.StringLookup,
    keras.layers.IntegerLookup,
    keras.layers.TextVectorization,
    keras.layers.Hashing,
    keras.layers.HashedCrossing,
)
_STATISTICS = (keras.layers.BatchNormalization, keras.layers.Normalization)


def check_convertible(model: keras.Model) -> None:
    """Refuses layers that become no operations of TFLite, by name.

    Args:
        model: A built Sequential or Functional model.

    Raises:
        ExportError: If it looks up, counts, takes strings, or keeps state
            from call to call.
    """
    for path, layer in layers_by_path(model).items():
        if is_flattened(layer):
            continue
        for inner in (layer, *_compat.all_layers(layer)):
            kind = type(inner).__name__
            if isinstance(inner, _LOOKUPS) or _counts(inner):
                raise ExportError(
                    "A .tflite file must begin behind what looks words or "
                    "numbers up, or counts them. Received: layer "
                    f"'{path}' ({kind}). "
                    f"{_way_around(model, path)}"
                )
            if isinstance(inner, keras.layers.RNN) and inner.stateful:
                raise ExportError(
                    "A .tflite file keeps no state from call to call. "
                    f"Received: layer '{path}' ({kind}) with stateful=True. "
                    "Make it with stateful=False, and hand its state in and "
                    "out: initial_state=, return_state=True."
                )
    for tensor in model.inputs:
        if tensor.dtype == "string":
            raise ExportError(
                "Inputs of a .tflite file must be numbers. Received: input "
                f"'{tensor.name}' of strings. Export the part of the model "
                "that takes numbers."
            )


def _counts(layer: keras.layers.Layer) -> bool:
    """Whether a layer counts numbers, for which TFLite has no operation."""
    is_encoding = isinstance(layer, keras.layers.CategoryEncoding)
    return is_encoding and layer.output_mode != "one_hot"


def _way_around(model: keras.Model, path: str) -> str:
    """Returns how to export what is behind a layer."""
    outermost = path.split("/")[0]
    if isinstance(model, keras.Sequential):
        position = [layer.name for layer in model.layers].index(outermost)
        return (
            "Do this before, and export keras.Sequential(model.layers"
            f"[{position + 1}:]), built on what comes out of the layer."
        )
    return (
        "Do this before, and export keras.Model(model.get_layer("
        f"'{outermost}').output, model.output)."
    )


def check_finite(model: keras.Model, quantization: str) -> None:
    """Refuses weights that no scale can stand for.

    Args:
        model: The model, in float32.
        quantization: As `to_tflite` takes it, not "none".

    Raises:
        ExportError: If there are some; the first is named.
    """
    for path, layer in layers_by_path(model).items():
        if is_flattened(layer):
            continue
        for weight in layer.weights:
            if "float" not in weight.dtype:
                continue
            spoilt = int((~np.isfinite(to_numpy(weight))).sum())
            if spoilt:
                raise ExportError(
                    f'In quantization="{quantization}", weights must be '
                    f"finite. Received: {spoilt} NaN or infinite in "
                    f"'{weight.name}' of layer '{path}' "
                    f"({type(layer).__name__}). Load weights from before "
                    "the training went astray."
                )


def check_float16(model: keras.Model) -> None:
    """Refuses weights that are infinite in float16.

    Args:
        model: The model, in float32.

    Raises:
        ExportError: If there are some; the largest is named.
    """
    found = [
        (float(np.abs(to_numpy(weight)).max(initial=0)), path, weight.name)
        for path, layer in layers_by_path(model).items()
        # Of statistics, a file holds a quotient; of models, their layers.
        if not (is_flattened(layer) or isinstance(layer, _STATISTICS))
        for weight in layer.weights
        if "float" in weight.dtype
    ]
    largest, path, name = max(found, default=(0.0, "", ""))
    if largest > LARGEST_FLOAT16:
        kind = type(layers_by_path(model)[path]).__name__
        raise ExportError(
            'In quantization="float16", weights must be within '
            f"{LARGEST_FLOAT16:g}. Received: {largest:g} in '{name}' of layer "
            f"'{path}' ({kind}). Scale what it multiplies, or use "
            'quantization="dynamic" or "none".'
        )
