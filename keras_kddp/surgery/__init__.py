"""Takes units out of a Keras model, exactly."""

from keras_kddp.surgery import rules  # noqa: F401  (registers them)
from keras_kddp.surgery.channels import Call
from keras_kddp.surgery.checks import SurgeryError
from keras_kddp.surgery.explanation import explain
from keras_kddp.surgery.graph import ChannelGraph, UnitGroup, unit_groups
from keras_kddp.surgery.plan import RemovalPlan, plan_removal, remove_units
from keras_kddp.surgery.registry import register_rule
from keras_kddp.surgery.rule import Rule

__all__ = [
    "Call",
    "ChannelGraph",
    "RemovalPlan",
    "Rule",
    "SurgeryError",
    "UnitGroup",
    "explain",
    "plan_removal",
    "register_rule",
    "remove_units",
    "unit_groups",
]
