"""What removals take from layers, where that is cause for a warning."""

from collections.abc import Iterable, Mapping, Sequence

from keras_kddp.pruning.activity import UnitActivity
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.certificates import Removal

_MOST = 0.9  # of a layer: ordinary removals take a fifth, rarely a half
_FALLEN = (
    "all other units fell inactive and left. If too few are left, lower `l1`, "
    "warm up longer (`warmup_epochs`) or raise `minimum_units`"
)
_CUT = (
    "the budget leaves it no more. If one is too few, raise the budget or "
    "`minimum_units`"
)


class LostUnitWarnings:
    """Finds the layers that lost too much, and knows which it has named."""

    def __init__(self) -> None:
        self._at_minimum: set[str] = set()
        self._silent: set[str] = set()

    def checkpoint_state(self) -> dict[str, list[str]]:
        """Returns the layers that were named."""
        return {
            "at_minimum": sorted(self._at_minimum),
            "silent": sorted(self._silent),
        }

    def restore_checkpoint_state(self, state: Mapping[str, list[str]]) -> None:
        """Names no layer again that another run named."""
        self._at_minimum = {*state["at_minimum"]}
        self._silent = {*state["silent"]}

    def of_removal(
        self,
        removal: Removal,
        inactive: Mapping[str, Sequence[int]],
        budget: Budget | None,
    ) -> list[str]:
        """Returns the warnings of layers that lost most, or all but one.

        What a budget takes is what was asked for: of one that is to judge the
        accuracy first even the last but one. So are `minimum_units` above 1.

        Args:
            removal: What left.
            inactive: Layer name -> indices of the units that were inactive.
            budget: That of the run, or None.
        """
        is_judged = budget is not None and budget.max_accuracy_drop is not None
        sudden, fallen, cut = [], [], []
        for name, before in removal.units_before.items():
            after = removal.units_after[name]
            died = before - after <= len(inactive.get(name, ()))
            if died and budget is None and before - after > _MOST * before:
                sudden.append(_sudden(name, removal))
            elif not after == 1 < before or name in self._at_minimum:
                continue
            elif died:
                fallen.append(name)
            elif not is_judged:
                cut.append(name)
            if after == 1:
                self._at_minimum.add(name)
        return sudden + [
            f"Only minimum_units=1 stay in {_quoted(names)} from epoch "
            f"{removal.epoch + 1} on: {cause}."
            for names, cause in ((fallen, _FALLEN), (cut, _CUT))
            if names
        ]

    def of_activity(
        self, epoch: int, activity: Mapping[str, UnitActivity]
    ) -> list[str]:
        """Returns the warning of layers of which no unit fires any more.

        Args:
            epoch: The one that ended, from 0.
            activity: Layer name -> statistics at its end.
        """
        silent = {n for n, found in activity.items() if not found.live.any()}
        new = sorted(silent - self._silent)
        self._silent |= silent
        if not new:
            return []
        return [
            f"No unit fires any more in {_quoted(new)} at the end of epoch "
            f"{epoch + 1}: nothing but a constant comes out. Lower `l1` or the "
            "learning rate, or warm up longer (`warmup_epochs`)."
        ]


def _sudden(name: str, removal: Removal) -> str:
    before, after = removal.units_before[name], removal.units_after[name]
    return (
        f"{before - after} of {before} units of '{name}' died at one removal, "
        f"at the beginning of epoch {removal.epoch + 1}: {after} "
        f"{'stays' if after == 1 else 'stay'}. Lower `l1`, ramp longer "
        "(`ramp_epochs`) or lower `threshold`."
    )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
