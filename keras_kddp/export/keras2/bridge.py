"""Models of ordinary layers carried between Keras 3 and tf_keras."""

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_kddp.atomic_files import replacing
from keras_kddp.export.errors import ExportError
from keras_kddp.export.model.float32 import in_float32
from keras_kddp.export.model.signature import (
    check_exportable,
    file_names,
    infer,
    input_signature,
)
from keras_kddp.export.workers import portable_models as _portable_models
from keras_kddp.export.workers import worker
from keras_kddp.export.workers.portable_models import MERGING, ORDINARY
from keras_kddp.export.workers.worker import Worker, WorkerError
from keras_kddp.extras import absence_of, require
from keras_kddp.layers.preparation import finalize
from keras_kddp.surgery.calls import flat_calls

Array = NDArray[Any]


TOLERANCE = 1e-5


"""Largest difference of an output, relative to the largest, at least 1."""


_SUFFIXES = (".h5", ".keras")


_SAMPLES = 8


def to_tf_keras(model: keras.Model, path: str | os.PathLike[str]) -> Path:
    """Writes a Keras 3 model as a file of tf_keras (Keras 2), and checks it.

    tf_keras runs in a process of its own, so that this one's `tf.keras` and
    environment stay as they are.

    Args:
        model: A built Sequential or Functional model of ordinary layers, such
            as Dense, convolutions, normalization, pooling, joins; nested
            models are written flat. Penalties of `prepare` are left out.
        path: File ending in `.h5` or `.keras`; replaced on success only.

    Returns:
        The path.

    Raises:
        ImportError: If tf_keras is not installed.
        ValueError: If the model has something that tf_keras has not, or the
            path has another suffix.
        ExportError: If tf_keras does not compute the same to 1e-5.

    Example:
        ```python
        keras_kddp.export.to_tf_keras(student, "student.h5")
        ```
    """
    target = Path(path)
    _check_suffix(target)
    plain = plain_copy(model)
    description, weights = describe(plain)
    x = samples_of(plain)
    with (
        replacing(target) as new,
        tempfile.TemporaryDirectory(prefix="keras_kddp_") as folder,
    ):
        files = {
            name: str(Path(folder, f"{name}.npz"))
            for name in ("weights", "samples", "outputs")
        }
        np.savez(files["weights"], **as_named(weights))
        np.savez(files["samples"], **as_named(dict(enumerate(x))))
        _asked(
            action="save",
            description=description,
            target=str(new.absolute()),
            **files,
        )
        compare(_run(plain, x), _read(files["outputs"]))
    return target


def from_tf_keras(path: str | os.PathLike[str]) -> keras.Model:
    """Returns the Keras 3 model of a file that tf_keras (Keras 2) wrote.

    Args:
        path: A `.h5` or `.keras` file, or the folder of a SavedModel, of a
            Sequential or Functional model of ordinary layers.

    Raises:
        ImportError: If tf_keras is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If tf_keras cannot load it, or it has something that
            Keras 3 has not.
        ExportError: If Keras 3 does not compute the same to 1e-5.

    Example:
        ```python
        teacher = keras_kddp.export.from_tf_keras("teacher.h5")
        ```
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(
            f"`path` must be a model of tf_keras. Received: {str(source)!r}, "
            "which does not exist."
        )
    with tempfile.TemporaryDirectory(prefix="keras_kddp_") as folder:
        files = {
            name: str(Path(folder, f"{name}.npz"))
            for name in ("weights", "samples", "outputs")
        }
        reply = _asked(action="load", path=str(source.absolute()), **files)
        with np.load(files["weights"]) as file:
            weights = dict(file)
        try:
            model = _portable_models.build(keras, reply["description"], weights)
        except (TypeError, ValueError) as error:
            raise ValueError(_refusal(error)) from error
        compare(_read(files["outputs"]), _run(model, _read(files["samples"])))
    return model


def require_tf_keras() -> None:
    """Raises an ImportError where tf_keras is not installed."""
    require(
        "Models of Keras 2 are read and written by",
        "tf_keras",
        absence_of("tf_keras"),
    )


def plain_copy(model: Any) -> keras.Model:
    """Returns a model without penalties, in float32.

    Raises:
        ValueError: If it is no built model.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a Keras 3 model. Received: "
            f"{type(model).__name__} of {type(model).__module__}. Load it with "
            "keras.saving.load_model, or keras_kddp.export.from_tf_keras."
        )
    check_exportable(model)
    return in_float32(finalize(model))


def describe(model: keras.Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """Returns the description and the weights of a model, for `build`.

    Raises:
        ValueError: If a layer is not among the ordinary ones, by name.
    """
    nodes, outputs, _ = flat_calls(model)
    layers = named_layers(model)
    names = {id(layer): name for name, layer in layers.items()}
    numbers: dict[int, int] = {}
    calls = []
    for node in nodes:
        made = id(node.outputs[0])
        if _is_input(node.operation) and node.inputs:
            # Of a nested model: it stands for what that is called with.
            numbers[made] = numbers[id(node.inputs[0])]
            continue
        numbers[made] = len(numbers)
        if _is_input(node.operation):
            continue
        _check_ordinary(node)
        calls.append(
            {
                "layer": names[id(node.operation)],
                "inputs": [numbers[id(x)] for x in node.inputs],
                "output": numbers[made],
            }
        )
    description = {
        "name": file_names([model.name])[0],
        "layers": {
            name: _portable_models.described(layer)
            for name, layer in layers.items()
        },
        "inputs": [
            {
                "name": entry.name,
                "shape": list(entry.shape),
                "dtype": entry.dtype,
                "tensor": numbers[id(tensor)],
            }
            for entry, tensor in zip(
                input_signature(model), model.inputs, strict=True
            )
        ],
        "calls": calls,
        "outputs": [numbers[id(x)] for x in outputs],
    }
    return description, _portable_models.weights_of(layers)


def named_layers(model: keras.Model) -> dict[str, Any]:
    """Returns the layers of a model by their names in a description."""
    operations = {
        node.name: node.operation
        for node in flat_calls(model).nodes
        if not _is_input(node.operation)
    }
    taken = [entry.name for entry in input_signature(model)]
    names = file_names([*taken, *operations])[len(taken) :]
    return dict(zip(names, operations.values(), strict=True))


def samples_of(model: keras.Model) -> list[Array]:
    """Returns a few random inputs of a model, one array an input."""
    generator = np.random.default_rng(0)
    return [
        generator.random((_SAMPLES, *entry.shape)).astype(entry.dtype)
        for entry in input_signature(model)
    ]


def as_named(arrays: dict[Any, Array]) -> dict[str, Any]:
    """Returns arrays as `numpy.savez` takes them."""
    return {str(name): array for name, array in arrays.items()}


def _is_input(operation: Any) -> bool:
    return isinstance(operation, keras.layers.InputLayer)


def _check_ordinary(node: Any) -> None:
    cls = type(node.operation)
    is_ordinary = cls.__name__ in ORDINARY
    if not is_ordinary or cls is not getattr(keras.layers, cls.__name__):
        raise ValueError(_refusal(f"layer '{node.name}' is a {cls.__name__}"))
    tensors = {id(x) for x in node.inputs}
    named = {k: x for k, x in node.kwargs.items() if k != "training"}
    others = [
        part
        for part in keras.tree.flatten((node.args, named))
        if part is not None and id(part) not in tensors
    ]
    if node.kwargs.get("training"):
        others.append("training=True")
    if others or (len(node.inputs) > 1 and cls.__name__ not in MERGING):
        raise ValueError(
            _refusal(
                f"layer '{node.name}' ({cls.__name__}) is called with more "
                "than one tensor"
            )
        )


def _refusal(reason: object) -> str:
    return (
        "The model must consist of layers that Keras 3 and tf_keras have "
        f"alike: {', '.join(ORDINARY)}. Received: {reason}. Replace it."
    )


def _check_suffix(target: Path) -> None:
    if target.suffix not in _SUFFIXES:
        raise ValueError(
            f"`path` must end in one of {_SUFFIXES}. Received: "
            f"path={str(target)!r}. Write for example to "
            f"{str(target.with_suffix('.h5'))!r}."
        )
    if not target.parent.is_dir() or target.is_dir():
        raise ValueError(
            "`path` must be a file in an existing folder. Received: "
            f"path={str(target)!r}. Create the folder first."
        )


def _run(model: keras.Model, inputs: list[Array]) -> list[Array]:
    return [keras.ops.convert_to_numpy(part) for part in infer(model, inputs)]


def _read(path: str) -> list[Array]:
    with np.load(path) as file:
        return [file[str(index)] for index in range(len(file.files))]


def compare(
    wanted: list[Array],
    found: list[Array],
    between: str = "Keras 3 and tf_keras",
) -> None:
    """Raises an ExportError where outputs differ by more than 1e-5."""
    for first, second in zip(wanted, found, strict=True):
        scale = max(1.0, float(np.abs(first).max()))
        if first.shape != second.shape:
            raise ExportError(
                f"{between} must put out the same shapes. Received: "
                f"{first.shape} and {second.shape}. Please report it, with "
                "the model."
            )
        gap = float(np.abs(first - second).max())
        if not gap <= TOLERANCE * scale:
            raise ExportError(
                f"{between} must compute the same. Received outputs that "
                f"differ by {gap:.2g} of {scale:.2g}. Please report it, "
                "with the model."
            )


@functools.cache
def _worker() -> Worker:
    return Worker(
        Path(worker.__file__).with_name("tf_keras_program.py"),
        environment={"TF_USE_LEGACY_KERAS": "1"},
    )


def _asked(**request: Any) -> dict[str, Any]:
    require_tf_keras()
    try:
        reply = _worker().ask(request)
    except WorkerError as death:
        raise ExportError(
            "tf_keras must survive the model. Received: its process ended "
            f"with {death.cause}. {death.log}"
        ) from None
    if reply["error"] is not None:
        raise _error(request, *reply["error"].split(": ", 1))
    return reply


def _error(request: Any, kind: str, text: str = "") -> Exception:
    """Returns what an error in the process of tf_keras is here."""
    if kind == "NotSharedError":
        return ValueError(_refusal(text))
    if request["action"] == "load":
        return ValueError(
            "`path` must be a model that tf_keras saved. Received: "
            f"{request['path']!r}, of which it says: {kind}: {text} Save it "
            "with tf_keras, model.save('model.h5')."
        )
    if kind in ("OSError", "PermissionError", "FileNotFoundError"):
        return OSError(
            "`path` must be a file that can be written. Received: "
            f"{request['target']!r} ({text}). Choose another folder."
        )
    return ExportError(
        f"tf_keras must build and save the model. It said: {kind}: {text} "
        "Replace the layer that it names."
    )
