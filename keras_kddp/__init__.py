"""Knowledge distillation with dynamic pruning for Keras 3."""

from importlib.metadata import PackageNotFoundError, version

from keras_kddp import export, layers, surgery
from keras_kddp.compression.compress import compress
from keras_kddp.compression.results import Compression
from keras_kddp.distillation.distiller import Distiller
from keras_kddp.distillation.feature_hints import FeatureHints
from keras_kddp.distillation.soft_targets import SoftTargets
from keras_kddp.distillation.teacher.cache import TeacherCache
from keras_kddp.layers.preparation import finalize, prepare
from keras_kddp.profiling import ModelProfile, profile
from keras_kddp.pruning.activity import UnitActivity, collect_activity
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
    "Budget",
    "Compression",
    "FeatureHints",
    "ModelProfile",
    "Distiller",
    "DynamicPruning",
    "RemovalPlan",
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
