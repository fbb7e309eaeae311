"""Knowledge distillation with dynamic pruning for Keras 3."""

import importlib
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_kddp import export, layers, surgery
    from keras_kddp.compression.compress import compress
    from keras_kddp.compression.results import Compression
    from keras_kddp.distillation.checkpoints.resumable import (
        ResumableCheckpoint,
    )
    from keras_kddp.distillation.distiller import Distiller
    from keras_kddp.distillation.feature_hints import FeatureHints
    from keras_kddp.distillation.soft_targets import SoftTargets
    from keras_kddp.distillation.teacher.cache import TeacherCache
    from keras_kddp.layers.preparation import finalize, prepare
    from keras_kddp.profiling import ModelProfile, profile
    from keras_kddp.pruning.activity import UnitActivity, collect_activity
    from keras_kddp.pruning.best_student import BestStudent
    from keras_kddp.pruning.budget.budget import Budget
    from keras_kddp.pruning.callback import DynamicPruning
    from keras_kddp.surgery import (
        RemovalPlan,
        SurgeryError,
        UnitGroup,
        explain,
        plan_removal,
        remove_units,
        unit_groups,
    )

try:
    __version__ = version("keras-kddp")
except PackageNotFoundError:  # a source folder that was never installed
    __version__ = "0"


__all__ = [
    "BestStudent",
    "Budget",
    "Compression",
    "FeatureHints",
    "ModelProfile",
    "Distiller",
    "DynamicPruning",
    "RemovalPlan",
    "ResumableCheckpoint",
    "SoftTargets",
    "SurgeryError",
    "TeacherCache",
    "UnitActivity",
    "UnitGroup",
    "collect_activity",
    "compress",
    "explain",
    "export",
    "finalize",
    "layers",
    "plan_removal",
    "prepare",
    "profile",
    "remove_units",
    "surgery",
    "unit_groups",
]
_HOMES = {
    "BestStudent": "pruning.best_student",
    "Budget": "pruning.budget.budget",
    "Compression": "compression.results",
    "Distiller": "distillation.distiller",
    "DynamicPruning": "pruning.callback",
    "FeatureHints": "distillation.feature_hints",
    "ModelProfile": "profiling",
    "RemovalPlan": "surgery",
    "ResumableCheckpoint": "distillation.checkpoints.resumable",
    "SoftTargets": "distillation.soft_targets",
    "SurgeryError": "surgery",
    "TeacherCache": "distillation.teacher.cache",
    "UnitActivity": "pruning.activity",
    "UnitGroup": "surgery",
    "collect_activity": "pruning.activity",
    "compress": "compression.compress",
    "explain": "surgery",
    "finalize": "layers.preparation",
    "plan_removal": "surgery",
    "prepare": "layers.preparation",
    "profile": "profiling",
    "remove_units": "surgery",
    "unit_groups": "surgery",
}
"""Module of each public name; the other public names are modules."""

_MODULES = ("export", "layers", "models", "surgery")
_REGISTERED = (
    "distillation.distiller",
    "distillation.feature_hints",
    "distillation.soft_targets",
    "export.saved_model.layer",
    "layers.penalties",
    "pruning.criteria",
)
"""Modules that register with Keras what saved models may name."""


if not TYPE_CHECKING:  # else every misspelt name would be one

    def __getattr__(name: str) -> Any:
        """Returns a public name, whose module is imported now."""
        if name in _MODULES:
            return importlib.import_module(f"keras_kddp.{name}")
        if name not in _HOMES:
            raise AttributeError(
                f"module 'keras_kddp' has no attribute {name!r}"
            )
        home = importlib.import_module(f"keras_kddp.{_HOMES[name]}")
        globals()[name] = found = getattr(home, name)
        return found

    def __dir__() -> list[str]:
        """Returns the public names, imported by now or not."""
        module = [name for name in globals() if name.startswith("__")]
        return sorted([*__all__, "models", *module])


def _register() -> None:
    """Registers what saved models may name with Keras.

    Keras finds only what is registered: it imports no module that a file
    names.
    """
    for name in _REGISTERED:
        importlib.import_module(f"keras_kddp.{name}")


class _Registration(MetaPathFinder):
    """Registers as soon as Keras has been imported, by whomever.

    Not sooner, since Keras takes seconds. Nor in the midst of an import of a
    module of this package, which then has nothing yet that others look for.
    """

    def __init__(self) -> None:
        self._imports = threading.local()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Returns what the other finders say, and is told when it has run."""
        if fullname != "keras" and not fullname.startswith("keras_kddp."):
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(fullname, path, target)
            if spec is not None and spec.loader is not None:
                run = partial(self._run, spec.loader.exec_module)
                spec.loader.exec_module = run  # type: ignore[method-assign]
                return spec
        return None

    def _run(
        self, run: Callable[[ModuleType], None], module: ModuleType
    ) -> None:
        """Runs a module, and registers after the outermost of its thread."""
        depth = getattr(self._imports, "depth", 0)
        self._imports.depth = depth + 1
        try:
            run(module)
        finally:
            self._imports.depth = depth
        if not depth and self in sys.meta_path and "keras" in sys.modules:
            sys.meta_path.remove(self)
            try:
                _register()
            except ImportError as error:  # not the fault of `import keras`
                warnings.warn(
                    "Saved models with layers of keras_kddp cannot be loaded: "
                    f"{error}",
                    stacklevel=2,
                )


if "keras" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _Registration())
