"""What a run follows from: arguments, data, models, versions."""

import hashlib
import importlib
import json
import platform
from dataclasses import asdict, fields
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

from keras_kddp.compression.checks import Preflight
from keras_kddp.compression.training import Recipe
from keras_kddp.data.batches import are_arrays
from keras_kddp.data.splits import Split
from keras_kddp.distillation.teacher.outputs import fingerprint
from keras_kddp.pruning.settings import PruningSettings

_DIGITS = 12  # of a sum that people compare


def identity_of(checked: Preflight, teacher: keras.Model) -> dict[str, Any]:
    """Returns what a run follows from, and nothing else does.

    Functions, such as a loss or a criterion, stand for themselves by name.

    Args:
        checked: From `preflight`, of the first seed.
        teacher: As it is given, trained or not yet.

    Returns:
        Plain values by name; arrays and models by their sums.
    """
    found = {
        **_arguments(checked),
        **{f"`{n}` data": _sum_of(s) for n, s in checked.splits.items()},
        "teacher": f"sha256 {fingerprint([teacher])[:_DIGITS]}",
        "student": f"sha256 {fingerprint([checked.student])[:_DIGITS]}",
        "layers of the student": [x.name for x in checked.student.layers],
        **_versions(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=_plain))
    return plain


def _arguments(checked: Preflight) -> dict[str, Any]:
    """Returns the arguments of `compress`, without data and models."""
    recipe = {
        entry.name: getattr(checked.recipe, entry.name)
        for entry in fields(Recipe)
    }
    settings = checked.pruning.settings()
    pruning = {
        f"pruning's {entry.name}": getattr(settings, entry.name)
        for entry in fields(PruningSettings)
        if entry.name not in ("budget", "verbose")
    }
    budget = settings.budget
    return {
        **recipe,
        "optimizer": _without_name(checked.recipe.fresh_optimizer()),
        **pruning,
        "budget": None if budget is None else asdict(budget),
        "l1": checked.l1,
        "layers": list(checked.layers),
        "controls": list(checked.controls),
    }


def _without_name(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    config = optimizer.get_config()
    return [type(optimizer).__name__, {**config, "name": None}]


def _versions() -> dict[str, str]:
    """Returns what computes: other versions may compute other numbers."""
    backend = keras.backend.backend()
    return {
        "version of keras-kddp": version("keras-kddp"),
        "version of Keras": keras.__version__,
        "version of NumPy": np.__version__,
        "version of Python": platform.python_version(),
        "backend": f"{backend} {importlib.import_module(backend).__version__}",
        "dtypes of Keras": f"{keras.config.floatx()}, "
        f"{keras.config.dtype_policy().name}",
    }


def _sum_of(split: Split) -> str:
    """Returns how many examples there are, and a sum of all their numbers."""
    digest = hashlib.sha256()
    for part in (split.x, split.y, split.sample_weight):
        digest.update(_array_sum(part).encode())
    return f"{len(split)} examples, sha256 {digest.hexdigest()[:_DIGITS]}"


def _array_sum(arrays: Any) -> str:
    digest = hashlib.sha256()
    if arrays is not None:
        for path, leaf in keras.tree.flatten_with_path(arrays):
            value = np.ascontiguousarray(leaf)
            digest.update(f"{path}{value.dtype}{value.shape}".encode())
            digest.update(memoryview(value).cast("B") if value.size else b"")
    return digest.hexdigest()[:_DIGITS]


def _plain(value: Any) -> Any:
    """Returns what stands in JSON for a value that JSON does not have."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) or are_arrays(value):
        return f"arrays, sha256 {_array_sum(value)}"
    if isinstance(value, type) or not hasattr(value, "get_config"):
        named = value if hasattr(value, "__qualname__") else type(value)
        return f"{named.__module__}.{named.__qualname__}"
    return [type(value).__name__, value.get_config()]
