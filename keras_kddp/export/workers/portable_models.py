"""Models of ordinary layers, as numbers and names that two Keras share.

A description is a dict that JSON can hold:

    layers   name -> {"class": ..., "config": ..., "defaults": [argument]}
    calls    [{"layer": name, "inputs": [tensor], "output": tensor}]
    inputs   [{"name": ..., "shape": [...], "dtype": ..., "tensor": tensor}]
    outputs  [tensor]
    name     of the model

A tensor is a number. Weights travel beside it, by "layer:weight". Nothing of
this package is imported here: the process that has tf_keras runs this too.
"""

import inspect
from typing import Any

import numpy

MERGING = (
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    "Concatenate",
)
ORDINARY = (
    *("Dense", "Conv1D", "Conv2D", "Conv2DTranspose"),
    *("DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
    *("BatchNormalization", "LayerNormalization"),
    *("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D"),
    *("Flatten", "Reshape", "Permute"),
    *("ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D"),
    *("UpSampling1D", "UpSampling2D"),
    *("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D"),
    *("GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    "Rescaling",
    *MERGING,
)
"""Layers that Keras 3 and tf_keras compute alike."""

_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
"""(class, name in Keras 3) -> name in tf_keras."""
# What says nothing about what a built layer computes, or is said elsewhere.
_LEFT_OUT = (
    *("batch_input_shape", "batch_shape", "build_config", "dtype", "name"),
    *("seed", "trainable"),
)
# Values of arguments that one library has not, and always computes.
_ALWAYS = {
    "data_format": "channels_last",
    "groups": 1,
    "rms_scaling": False,
}


class NotSharedError(ValueError):
    """Says what one of the two libraries cannot say or compute."""


def build(
    library: Any, description: dict[str, Any], weights: dict[str, Any]
) -> Any:
    """Returns a functional model of a description.

    Args:
        library: The module `keras` or `tf_keras`.
        description: See above.
        weights: "layer:weight" -> array.

    Raises:
        NotSharedError: If the library cannot say what the description says.
    """
    layers = {
        name: _layer_of(library, name, entry)
        for name, entry in description["layers"].items()
    }
    tensors = {}
    for entry in description["inputs"]:
        tensors[entry["tensor"]] = library.layers.Input(
            entry["shape"], dtype=entry["dtype"], name=entry["name"]
        )
    for call in description["calls"]:
        inputs = [tensors[number] for number in call["inputs"]]
        is_merging = type(layers[call["layer"]]).__name__ in MERGING
        given = inputs if is_merging else inputs[0]
        tensors[call["output"]] = layers[call["layer"]](given)
    inputs = [tensors[entry["tensor"]] for entry in description["inputs"]]
    outputs = [tensors[number] for number in description["outputs"]]
    model = library.Model(
        inputs[0] if len(inputs) == 1 else inputs,
        outputs[0] if len(outputs) == 1 else outputs,
        name=description["name"],
    )
    set_weights(layers, weights)
    return model


def described(layer: Any) -> dict[str, Any]:
    """Returns the description of a layer of either library."""
    config = _plain(layer.get_config())
    parameters = inspect.signature(type(layer).__init__).parameters
    defaults = [
        argument
        for argument, value in config.items()
        if argument in parameters
        and _plain(parameters[argument].default) == value
    ]
    return {
        "class": type(layer).__name__,
        "config": config,
        "defaults": defaults,
    }


def _plain(value: Any) -> Any:
    """Returns a value of a config as JSON can hold it."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return (
        value.tolist()
        if isinstance(value, numpy.generic | numpy.ndarray)
        else value
    )


def _layer_of(library: Any, name: str, entry: dict[str, Any]) -> Any:
    """Returns a layer with as much of a config as the library has words for.

    Raises:
        NotSharedError: If something of it would be lost.
    """
    class_name = entry["class"]
    cls = getattr(library.layers, class_name)
    arguments = _arguments(library, name, entry)
    try:
        layer = cls(**arguments, name=name)
    except (TypeError, ValueError) as error:
        raise NotSharedError(
            f"layer '{name}' ({class_name}): {error}"
        ) from error
    layer.trainable = entry["config"].get("trainable", True)
    return layer


def _arguments(library: Any, name: str, entry: dict[str, Any]) -> Any:
    """Returns the arguments of a layer's constructor.

    Raises:
        NotSharedError: If the library has none for something of the config.
    """
    class_name = entry["class"]
    cls = getattr(library.layers, class_name)
    known = inspect.signature(cls.__init__).parameters
    arguments = {}
    for argument, given in entry["config"].items():
        if argument in _LEFT_OUT or argument.endswith("_initializer"):
            continue
        value = _value(library, argument, given)
        word = _word(known, class_name, argument)
        if word is not None:
            arguments[word] = value
        elif not (
            given is None
            or argument in entry["defaults"]
            or (argument in _ALWAYS and given == _ALWAYS[argument])
        ):
            raise NotSharedError(
                f"layer '{name}' ({class_name}) has {argument}={given!r}, "
                f"which {library.__name__} does not know"
            )
    return arguments


def _word(known: Any, class_name: str, argument: str) -> str | None:
    renamed = {
        **_RENAMED,
        **{(cls, there): here for (cls, here), there in _RENAMED.items()},
    }
    for word in (argument, renamed.get((class_name, argument))):
        if word is not None and word in known:
            return word
    return None


def _value(library: Any, argument: str, value: Any) -> Any:
    """Returns a value of a config, objects made anew."""
    if argument == "axis" and isinstance(value, list) and len(value) == 1:
        return value[0]  # tf_keras keeps BatchNormalization's in a list
    if value == "hard_sigmoid":
        raise NotSharedError("hard_sigmoid has another slope in Keras 3")
    if not isinstance(value, dict) or "class_name" not in value:
        return value
    plain = {key: value[key] for key in ("class_name", "config")}
    if argument.endswith("_regularizer"):
        return library.regularizers.get(plain)
    if argument.endswith("_constraint"):
        return library.constraints.get(plain)
    raise NotSharedError(f"{argument}={value!r} is an object of its own")


def set_weights(layers: dict[str, Any], weights: dict[str, Any]) -> None:
    """Gives layers their weights.

    Raises:
        ValueError: If names or shapes do not fit.
    """
    wanted = _variables(layers)
    if wanted.keys() != weights.keys():
        odd = sorted(wanted.keys() ^ weights.keys())
        raise ValueError(f"the weights {odd} are on one side only")
    for key, variable in wanted.items():
        shapes = tuple(variable.shape), tuple(weights[key].shape)
        if shapes[0] != shapes[1]:
            raise ValueError(f"{key} has the shapes {shapes}")
        variable.assign(weights[key])


def weights_of(layers: dict[str, Any]) -> dict[str, Any]:
    """Returns the weights of named layers, by "layer:weight"."""
    return {
        key: numpy.array(variable)
        for key, variable in _variables(layers).items()
    }


def _variables(layers: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{name}:{weight_name(variable)}": variable
        for name, layer in layers.items()
        for variable in layer.weights
    }


def weight_name(variable: Any) -> str:
    """Returns "kernel" of "conv/depthwise_kernel:0" and of "kernel"."""
    name = str(variable.name).split("/")[-1].split(":")[0]
    return "kernel" if name == "depthwise_kernel" else name
