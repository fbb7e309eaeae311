"""How many of the ranked groups of units leave after an epoch."""

import math
from collections.abc import Mapping
from typing import Any

from keras_kddp.pruning.budget.accuracy_guard import AccuracyGuard
from keras_kddp.pruning.budget.quota import FallingQuota
from keras_kddp.pruning.collapse_guard import CollapseGuard
from keras_kddp.pruning.ranking import Ranking
from keras_kddp.pruning.schedule import Phases


class RemovalSize:
    """What a budget asks for and what the guards allow, together.

    Args:
        phases: Of the run.
        quota: Of sizes; None: no size is asked for.
        guard: Of a `max_accuracy_drop`; None: none is.
        collapse: Where there is no guard.

    Attributes:
        quota: As it is by now; its forecast moves.
    """

    def __init__(
        self,
        phases: Phases,
        quota: FallingQuota | None,
        guard: AccuracyGuard | None,
        collapse: CollapseGuard,
    ) -> None:
        self.quota = quota
        self._phases = phases
        self._guard = guard
        self._collapse = collapse

    def checkpoint_state(self) -> dict[str, Any] | None:
        """Returns the state of the quota, if there is one."""
        if self.quota is None:
            return None
        return self.quota.checkpoint_state()

    def restore_checkpoint_state(self, state: Mapping[str, Any] | None) -> None:
        """Goes on where another run was."""
        if self.quota is not None and state is not None:
            self.quota = self.quota.restored(state)

    def groups_to_remove(
        self, epoch: int, ranking: Ranking, inactive: int
    ) -> int:
        """Returns how many of the first groups leave.

        Args:
            epoch: That ended, from 0.
            ranking: Of the groups that may leave.
            inactive: So many of the first are inactive.
        """
        is_last = self._phases.is_last_removal(epoch)
        if self.quota is not None:
            share = self._phases.removal_share(epoch)
            if share < 1:
                self.quota = self.quota.adjusted(ranking)
            inactive = self.quota.groups_to_remove(
                ranking, share=share, inactive=inactive
            )
        if self._guard is None:
            is_due = is_last and self.quota
            return inactive if is_due else self._collapse.allowed(inactive)
        most = math.ceil(self._guard.share * len(ranking))
        if self.quota is None:
            return most
        return inactive if is_last else min(inactive, most)
