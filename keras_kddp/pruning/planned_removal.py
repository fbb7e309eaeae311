"""A removal that waits for the next epoch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_kddp.pruning.certificates import Certificate
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.plan import RemovalPlan, plan_on


class PlannedRemoval(NamedTuple):
    """What leaves when the next epoch begins.

    Attributes:
        plan: The removal.
        certificates: The evidence for each unit.
    """

    plan: RemovalPlan
    certificates: tuple[Certificate, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns it without the student, for JSON."""
        return {
            "removed": self.plan.removed,
            "constants": {
                name: [[unit, value] for unit, value in values.items()]
                for name, values in self.plan.constants.items()
            },
            "folds": self.plan.folds,
            "certificates": [x.as_dict() for x in self.certificates],
        }

    @classmethod
    def from_dict(
        cls, stored: Mapping[str, Any], graph: ChannelGraph
    ) -> "PlannedRemoval":
        """Returns it from `as_dict()`.

        Args:
            stored: What that returned.
            graph: The channels of the student.
        """
        constants = {n: dict(x) for n, x in stored["constants"].items()}
        folds = {n: tuple(x) for n, x in stored["folds"].items()}
        removed = {n: tuple(x) for n, x in stored["removed"].items()}
        plan = plan_on(graph, removed, constants=constants, folds=folds)
        certificates = (Certificate(**x) for x in stored["certificates"])
        return cls(plan, tuple(certificates))
