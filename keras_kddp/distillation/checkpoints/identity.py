"""What a run is made of, to tell whether another one may go on with it."""

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import keras
import numpy as np

from keras_kddp._compat import all_layers
from keras_kddp._compat.optimizers import hidden_schedule
from keras_kddp.surgery.optimizer_successors import optimizer_parts

_SHOWN = 5
_BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}


def describe_versions() -> dict[str, str]:
    """Returns the versions that results depend on."""
    backend = keras.backend.backend()
    packages = ["keras-kddp", "keras", "numpy", _BACKENDS.get(backend, backend)]
    return {"backend": backend} | {name: _version(name) for name in packages}


def describe_model(model: Any) -> dict[str, Any]:
    """Returns what a model is made of: its layers, loss and optimizer.

    Args:
        model: A built and compiled model; of a Distiller, its student, its
            distillation losses and the shapes of its teacher count.
    """
    student = getattr(model, "student", model)
    described = {
        "class": _name(type(model)),
        "model": _describe_layers(student),
        "variables": [
            [variable.name, list(variable.shape), str(variable.dtype)]
            for variable in student.variables
        ],
        "optimizer": _describe_optimizer(model.optimizer),
        "loss": describe(getattr(model, "loss", None)),
    }
    if getattr(model, "teacher", None) is not None:
        described["teacher"] = [
            [variable.name, list(variable.shape)]
            for variable in model.teacher.weights
        ]
    for name in (
        "distillation_losses",
        "distillation_loss_weights",
        "student_loss_weight",
    ):
        if hasattr(model, name):
            described[name] = describe(getattr(model, name))
    return described


def describe(value: Any) -> Any:
    """Returns a setting as JSON: of objects their class and configuration."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(_content(value)).hexdigest()[:16]
        return f"{value.dtype} {list(value.shape)} {digest}"
    if isinstance(value, Mapping):
        if value.get("class_name") == "__lambda__":  # knows its line number
            return "lambda"
        return {str(key): describe(x) for key, x in value.items()}
    if isinstance(value, Sequence):
        return [describe(x) for x in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        return describe({name: getattr(value, name) for name in fields})
    if hasattr(value, "get_config") and not isinstance(value, type):
        config = _config(value)
        return {"class": _name(type(value)), "config": config}
    return _name(value if hasattr(value, "__qualname__") else type(value))


def _content(array: np.ndarray) -> Any:
    """Returns the bytes of an array, without a copy where that is possible."""
    if array.dtype == object:  # else the places of its texts in memory
        return json.dumps(array.tolist(), default=str).encode()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """Yields where two descriptions differ, in words.

    Args:
        before: As the run was.
        now: As it is to go on.
        place: What stands before the names.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(
                before.get(key),
                now.get(key),
                f"{place}.{key}" if place else key,
            )
    elif isinstance(before, list) and isinstance(now, list):
        old, new = _labelled(before), _labelled(now)
        for key in dict.fromkeys([*old, *new]):
            name = f"{place}[{key}]"
            yield from differences(old.get(key), new.get(key), name)
    elif before != now and not (before != before and now != now):  # NaN
        yield f"{place} was {_short(before)} and is {_short(now)}"


def check_same_run(
    before: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str]
) -> None:
    """Checks that a run is the one that a checkpoint is of.

    Args:
        before: Its description in the checkpoint.
        now: Its description now.
        names: The parts that count.

    Raises:
        ValueError: If it is not; the differences are named.
    """
    found = [
        difference
        for name in names
        for difference in differences(before.get(name), now.get(name), name)
    ]
    if found:
        more = len(found) - _SHOWN
        raise ValueError(
            "A run must go on as it began. Received another: "
            f"{'; '.join(found[:_SHOWN])}"
            f"{f'; and {more} more' if more > 0 else ''}. Make everything as "
            "it was (in one process, call keras.utils.clear_session() first, "
            "or name the layers), or remove the checkpoints to begin anew."
        )


def _describe_layers(model: Any) -> Any:
    """Returns the configuration of a model, or of those layers that have one.

    Layers of users need not have one.
    """
    whole = _config(model)
    if whole is not None and "layers" in whole:
        return _renumbered({**whole, "name": None})  # counted up, too
    return {
        layer.name: {
            "class": _name(type(layer)),
            "config": _config(layer),
        }
        for layer in all_layers(model)
    }


def _describe_optimizer(optimizer: Any) -> list[Any]:
    parts = [] if optimizer is None else optimizer_parts(optimizer)
    described = []
    with contextlib.ExitStack() as hidden:
        schedules = [
            None
            if getattr(part, "inner_optimizer", None) is not None
            else hidden.enter_context(hidden_schedule(part))
            for part in parts
        ]
        for part, schedule in zip(parts, schedules, strict=True):
            described.append(
                {
                    "class": _name(type(part)),
                    "config": _unnamed(_config(part)),
                    "schedule": describe(schedule),
                }
            )
    return described


def _config(value: Any) -> Any:
    """Returns what a configuration says; None where there is none."""
    try:
        return describe(value.get_config())
    except (NotImplementedError, TypeError, ValueError):
        return None


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _unnamed(config: Any) -> Any:
    """Returns a configuration without names, which Keras counts up."""
    if isinstance(config, list):
        return [_unnamed(x) for x in config]
    if not isinstance(config, dict):
        return config
    return {k: _unnamed(x) for k, x in config.items() if k != "name"}


def _renumbered(described: Any) -> Any:
    """Returns a description whose inputs are counted from 0.

    Keras counts them up in a process; nothing is kept by their names.
    """
    names: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"input_layer_{len(names)}")

    text = re.sub(r"\binput_layer(_\d+)?\b", number, json.dumps(described))
    return json.loads(text)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _labelled(entries: list[Any]) -> dict[str, Any]:
    """Returns the entries of a list by their names, or their places."""
    found: dict[str, Any] = {}
    for index, entry in enumerate(entries):
        named = entry if isinstance(entry, dict) else {}
        if isinstance(named.get("config"), dict):
            named = named["config"]
        name = named.get("name")
        is_new = isinstance(name, str) and name not in found
        found[str(name) if is_new else str(index)] = entry
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
