"""What a run follows from: arguments, data, models, versions."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import keras
import numpy as np

from keras_kddp.compression.checks import Preflight
from keras_kddp.compression.choices import NO_TEACHER
from keras_kddp.compression.training import Recipe
from keras_kddp.data.splits import Split
from keras_kddp.distillation.checkpoints.identity import (
    describe,
    describe_versions,
)
from keras_kddp.distillation.checks import Teacher
from keras_kddp.distillation.teacher.outputs import fingerprint
from keras_kddp.pruning.settings import PruningSettings

_DIGITS = 16  # of a sum: people compare them


def identity_of(checked: Preflight, teacher: Teacher) -> dict[str, Any]:
    """Returns what the numbers of a run follow from.

    Functions, such as a loss or a criterion, stand for themselves by name.

    Args:
        checked: From `preflight`, of the first seed.
        teacher: As it is given, trained or not yet; see `compress`.

    Returns:
        Plain values by name; arrays and weights by their sums.
    """
    student = checked.student
    return {
        "arguments": describe(_arguments(checked)),
        "data": {name: _sum_of(x) for name, x in checked.splits.items()},
        "teacher": f"sha256 {fingerprint([teacher])[:_DIGITS]}"
        if isinstance(teacher, keras.Model)
        else teacher or NO_TEACHER,
        "student": describe(student.get_config()),
        "weights of the student": f"sha256 {fingerprint([student])[:_DIGITS]}",
        "versions": {
            **describe_versions(),
            "python": platform.python_version(),
            "floatx": keras.config.floatx(),
            "dtype_policy": keras.config.dtype_policy().name,
        },
    }


def _arguments(checked: Preflight) -> Mapping[str, Any]:
    """Returns the arguments of `compress`, without data and models."""
    recipe = {x.name: getattr(checked.recipe, x.name) for x in fields(Recipe)}
    optimizer = checked.recipe.fresh_optimizer()
    settings = checked.pruning.settings()
    pruning = {
        x.name: getattr(settings, x.name)
        for x in fields(PruningSettings)
        if x.name not in ("budget", "verbose")
    }
    return {
        **recipe,
        "optimizer": [type(optimizer), {**optimizer.get_config(), "name": ""}],
        "pruning": pruning,
        "budget": settings.budget,
        "l1": checked.l1,
        "layers": list(checked.layers),
        "controls": list(checked.controls),
    }


def _sum_of(split: Split) -> str:
    """Returns how many examples there are, and a sum of all their numbers."""
    digest = hashlib.sha256()
    parts = [split.x, split.y, split.sample_weight]
    for path, leaf in keras.tree.flatten_with_path(parts):
        if leaf is not None:
            value = np.ascontiguousarray(leaf)
            digest.update(f"{path}{value.dtype}{value.shape}".encode())
            digest.update(value.data)
    return f"{len(split)} examples, sha256 {digest.hexdigest()[:_DIGITS]}"
