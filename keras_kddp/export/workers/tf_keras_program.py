"""What the process with tf_keras does: models in, models of the other out."""

import json
import runpy
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy
import tensorflow
import tf_keras
from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata
from tf_keras.src.saving.serialization_lib import SafeModeScope

_models: Any = runpy.run_path(
    str(Path(__file__).with_name("portable_models.py"))
)
_NotSharedError: Any = _models["NotSharedError"]
_SAMPLES = 8
_MODULES = ("keras", "tf_keras", "builtins", "tensorflow")


def answer(action: str, **request: Any) -> dict[str, Any]:
    """Saves a described model with tf_keras, or describes a saved one."""
    return _save(**request) if action == "save" else _load(**request)


def _save(
    description: dict[str, Any],
    weights: str,
    samples: str,
    outputs: str,
    target: str,
) -> dict[str, Any]:
    model = built(description, weights)
    with numpy.load(samples) as file:
        inputs = [file[str(index)] for index in range(len(file.files))]
    _write(outputs, _run(model, inputs))
    model.save(target)
    return {}


def _load(
    path: str, weights: str, samples: str, outputs: str
) -> dict[str, Any]:
    for text in _configurations(Path(path)):
        _check_modules(json.loads(text))
    # Its own argument reaches no Lambda in a .h5 file or a SavedModel.
    with SafeModeScope(True):
        model = tf_keras.models.load_model(path, compile=False)
    if not (isinstance(model, tf_keras.Model) and model.inputs):
        raise _NotSharedError(
            f"a {type(model).__name__} without symbolic inputs"
        )
    description = _described(model)
    layers = {name: model.get_layer(name) for name in description["layers"]}
    numpy.savez(weights, **_models["weights_of"](layers))
    generator = numpy.random.default_rng(0)
    inputs = [
        generator.random((_SAMPLES, *entry["shape"])).astype(entry["dtype"])
        for entry in description["inputs"]
    ]
    _write(samples, inputs)
    _write(outputs, _run(model, inputs))
    return {"description": description}


def _configurations(path: Path) -> Iterator[str]:
    """Yields what a file says in JSON of its model; of noise nothing."""
    if path.is_dir():
        metadata = path / "keras_metadata.pb"
        if metadata.is_file():
            found = SavedMetadata.FromString(metadata.read_bytes())
            yield from (node.metadata for node in found.nodes if node.metadata)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield archive.read("config.json").decode()
    elif h5py.is_hdf5(path):
        with h5py.File(path) as file:
            yield file.attrs.get("model_config", "{}")


def _check_modules(config: Any) -> None:
    """Raises for a part of a module that tf_keras would import for it."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            module = str(part.get("module") or "keras")
            if module.split(".")[0] not in _MODULES:
                raise _NotSharedError(
                    f"a part of the module '{module[:80]}', which would run"
                )
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def built(description: dict[str, Any], weights: str) -> Any:
    """Returns a described model with the weights in a file."""
    with numpy.load(weights) as file:
        return _models["build"](tf_keras, description, dict(file))


def _run(model: Any, inputs: list[Any]) -> list[Any]:
    outputs = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
    return [part.numpy() for part in tensorflow.nest.flatten(outputs)]


def _write(path: str, arrays: list[Any]) -> None:
    named: dict[str, Any] = {str(i): part for i, part in enumerate(arrays)}
    numpy.savez(path, **named)


def _described(model: Any) -> dict[str, Any]:
    """Returns the description of a Sequential or Functional model."""
    entries = model.get_config()["layers"]
    by_name = {entry["config"]["name"]: entry for entry in entries}
    names = [name for name in by_name if not _is_input(by_name[name])]
    for name in names:
        _check_ordinary(model.get_layer(name), by_name[name]["class_name"])
    if isinstance(model, tf_keras.Sequential):
        inputs = [_input(model.inputs[0], 0)]
        calls = [
            {"layer": name, "inputs": [number], "output": number + 1}
            for number, name in enumerate(names)
        ]
        outputs = [len(names)]
    else:
        inputs, calls, outputs = _wired(model, by_name)
    return {
        "name": model.name,
        "layers": {
            name: _models["described"](model.get_layer(name)) for name in names
        },
        "inputs": inputs,
        "calls": calls,
        "outputs": outputs,
    }


def _check_ordinary(layer: Any, kind: str) -> None:
    """Raises for a layer that Keras 3 may not have."""
    if kind not in _models["ORDINARY"]:
        raise _NotSharedError(f"layer '{layer.name}' is a {kind}")
    if layer.compute_dtype != "float32":
        raise _NotSharedError(
            f"layer '{layer.name}' does not compute in float32"
        )


def _is_input(entry: dict[str, Any]) -> bool:
    return entry["class_name"] == "InputLayer"


def _input(tensor: Any, number: int) -> dict[str, Any]:
    if None in tensor.shape[1:]:
        raise _NotSharedError(f"input '{tensor.name}' of shape {tensor.shape}")
    return {
        "name": tensor.name.split(":")[0],
        "shape": list(tensor.shape[1:]),
        "dtype": tensor.dtype.name,
        "tensor": number,
    }


def _wired(
    model: Any, by_name: dict[str, Any]
) -> tuple[list[Any], list[Any], list[Any]]:
    """Returns inputs, calls and outputs of a Functional model's config."""
    config = model.get_config()
    references = _listed(config["input_layers"])
    numbers = {
        (part[0], part[1]): number for number, part in enumerate(references)
    }
    inputs = [
        _input(tensor, number) for number, tensor in enumerate(model.inputs)
    ]
    calls = _calls(model.name, by_name, numbers)
    outputs = [
        numbers[part[0], part[1]] for part in _listed(config["output_layers"])
    ]
    return inputs, calls, outputs


def _calls(
    name: str, by_name: dict[str, Any], numbers: dict[tuple[str, int], int]
) -> list[dict[str, Any]]:
    """Returns the calls of layers, each behind those it reads from.

    Args:
        name: Of the model.
        by_name: The layers' entries in its config.
        numbers: Those of its inputs, by layer and call; the tensors that the
            calls make are added.
    """
    waiting = [
        ((name, index), node)
        for name, entry in by_name.items()
        for index, node in enumerate(entry["inbound_nodes"])
    ]
    calls = []
    while waiting:
        ready = [
            (key, node)
            for key, node in waiting
            if all((part[0], part[1]) in numbers for part in node)
        ]
        if not ready:
            raise _NotSharedError(f"the calls of '{name}' go in a circle")
        for key, node in ready:
            _check_inputs(key[0], node)
            numbers[key] = len(numbers)
            calls.append(
                {
                    "layer": key[0],
                    "inputs": [numbers[part[0], part[1]] for part in node],
                    "output": numbers[key],
                }
            )
        waiting = [pair for pair in waiting if pair[0] not in numbers]
    return calls


def _check_inputs(name: str, node: list[Any]) -> None:
    """Raises for a call that reads anything but whole outputs of layers."""
    if any(part[2] != 0 or part[3] for part in node):
        raise _NotSharedError(
            f"layer '{name}' is called with more than tensors, or reads one "
            "of several outputs"
        )


def _listed(references: Any) -> list[Any]:
    """Returns references in a list, also where there is only one."""
    if isinstance(references, dict):
        references = list(references.values())
    is_one = bool(references) and isinstance(references[0], str)
    return [references] if is_one else list(references)
