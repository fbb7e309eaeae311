"""The finished runs of a comparison, each in a file of its own."""

import ast
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import keras_kddp

FOLDER = Path(__file__).parent / "cells"

METHOD_MODULES = (
    "model_io.py",
    "models.py",
    "surgery/bias_folds.py",
    "surgery/folded_slots.py",
    "surgery/norms.py",
    "surgery/observation.py",
    "surgery/observer.py",
    "surgery/optimizer_folds.py",
    "surgery/optimizer_state.py",
    "surgery/rebuild.py",
    "data/batches.py",
    "data/dataset_files.py",
    "data/datasets.py",
    "data/groups.py",
    "data/model_arrays.py",
    "data/packing.py",
    "data/shuffling.py",
    "data/sources.py",
    "data/splits.py",
    "data/tfds_source.py",
    "data/validation_split.py",
    "layers/config_edits.py",
    "layers/penalized_models.py",
    "layers/penalties.py",
    "layers/preparation.py",
    "layers/summing.py",
    "distillation/distiller.py",
    "distillation/feature_losses.py",
    "distillation/feature_reader.py",
    "distillation/fit_arguments.py",
    "distillation/given_losses.py",
    "distillation/position_weights.py",
    "distillation/soft_targets.py",
    "distillation/student_state.py",
    "distillation/student_swapping.py",
    "distillation/teacher/outputs.py",
    "distillation/terms.py",
    "distillation/traced_training.py",
    "distillation/trained_part.py",
    "distillation/weight_axes.py",
    "pruning/activity.py",
    "pruning/budget/forecast.py",
    "pruning/budget/planned_sizes.py",
    "pruning/budget/quota.py",
    "pruning/callback.py",
    "pruning/criteria.py",
    "pruning/inactive_units.py",
    "pruning/padding.py",
    "pruning/preflight.py",
    "pruning/ranking.py",
    "pruning/run.py",
    "pruning/schedule.py",
    "pruning/settings.py",
    "compression/answers.py",
    "compression/controls.py",
    "compression/training.py",
)
"""What a result follows from, beside the configuration of its cell.

Of surgery, only how a student is observed and copied: its tests hold the rest
to be exact, however it is done. Nor are arenas and round widths among them: no
cell has a budget of one, or asks for them.
"""


class CellStore:
    """Cells of one data set: (student, method, seed) -> result.

    Args:
        data: Name of the comparison.
    """

    def __init__(self, data: str) -> None:
        self._folder = FOLDER / data
        self._hash = method_hash()

    def find(
        self, student: str, method: str, seed: int, config: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Returns a finished cell of this method and configuration."""
        path = self._path(student, method, seed)
        if not path.exists():
            return None
        cell: dict[str, Any] = json.loads(path.read_text())
        is_current = cell["method_hash"] == self._hash
        same = cell["config"] == json.loads(json.dumps(config))
        return cell if is_current and same else None

    def write(
        self,
        student: str,
        method: str,
        seed: int,
        config: dict[str, Any],
        **found: Any,
    ) -> dict[str, Any]:
        """Stores a finished cell and returns it."""
        cell = {
            "student": student,
            "method": method,
            "seed": seed,
            "config": config,
            "method_hash": self._hash,
            "machine": machine(),
            **found,
        }
        path = self._path(student, method, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(cell, indent=1, sort_keys=True) + "\n")
        partial.replace(path)
        return cell

    def _path(self, student: str, method: str, seed: int) -> Path:
        return self._folder / student / f"{method}-{seed}.json"


def machine() -> dict[str, Any]:
    """Returns what a run ran on."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
    }


def method_hash() -> str:
    """Returns a hash of the code that results follow from.

    Of what is defined, wherever it stands: names of files, imports, the order
    of definitions, docstrings, comments, layout and checks that only raise do
    not count.
    """
    root = Path(keras_kddp.__file__).parent
    definitions = {
        ast.unparse(definition)
        for name in METHOD_MODULES
        for definition in _Essence()
        .visit(ast.parse((root / name).read_text()))
        .body
    }
    text = "\n".join(sorted(definitions))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Essence(ast.NodeTransformer):
    """Drops what cannot change a number."""

    def visit_Import(self, node: ast.Import) -> None:  # noqa: N802
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:  # noqa: N802
        return None

    def visit_If(self, node: ast.If) -> Any:  # noqa: N802
        only_raises = isinstance(node.body[-1], ast.Raise) and not node.orelse
        return None if only_raises else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> Any:  # noqa: N802
        is_text = isinstance(node.value, ast.Constant)
        return None if is_text else self.generic_visit(node)
