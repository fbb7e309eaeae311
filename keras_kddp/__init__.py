"""Knowledge distillation with dynamic pruning for Keras 3."""

from importlib.metadata import PackageNotFoundError, version

from keras_kddp import export, layers, surgery
from keras_kddp.activity import UnitActivity, collect_activity
from keras_kddp.budgets import Budget
from keras_kddp.callbacks import DynamicPruning
from keras_kddp.distiller import Distiller
from keras_kddp.feature_hints import FeatureHints
from keras_kddp.losses import SoftTargets
from keras_kddp.pipeline import compress
from keras_kddp.preparation import finalize, prepare
from keras_kddp.profiling import ModelProfile, profile
from keras_kddp.results import Compression
from keras_kddp.surgery import (
    RemovalPlan,
    SurgeryError,
    UnitGroup,
    explain,
    plan_removal,
    remove_units,
    unit_groups,
)
from keras_kddp.teacher_cache import TeacherCache

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
