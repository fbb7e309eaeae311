"""What a run of pruning warns of, each once and with the way out."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_kddp.pruning.certificates import Removal
from keras_kddp.pruning.inactive_units import InactiveUnits
from keras_kddp.pruning.schedule import Phases
from keras_kddp.pruning.settings import PruningSettings
from keras_kddp.pruning.vain_charges import vain_charges
from keras_kddp.surgery.graph import ChannelGraph

_FALLEN = (
    "all other units fell inactive and left. If too few are left, lower `l1`, "
    "warm up longer (`warmup_epochs`) or raise `minimum_units`"
)
_CUT = (
    "the budget leaves it no more. If one is too few, raise the budget or "
    "`minimum_units`"
)


class Notices:
    """What is known of a run so far, and was said of it.

    Args:
        phases: Of the run.
        callbacks: Of the run.

    Attributes:
        is_moot: It was said that nothing would leave, or that training
            stopped.
        was_taken_back: A removal was, since the accuracy fell.
    """

    def __init__(self, phases: Phases, callbacks: Any) -> None:
        self.is_moot = False
        self.was_taken_back = False
        self._phases = phases
        self._callbacks = keras.tree.flatten(
            getattr(callbacks, "callbacks", callbacks)
        )
        self._begun: int | None = None
        self._ended = -1
        self._may_stop_early = False
        self._vain: Mapping[str, str] = {}
        self._found: InactiveUnits | None = None
        self._settings: PruningSettings | None = None
        self._is_planned = False
        self._at_minimum: set[str] = set()

    def warn_of_vain_charges(self, graph: ChannelGraph) -> None:
        """Warns of what is charged for units that can never leave."""
        self._vain = vain_charges(graph)
        if self._vain:
            _warn(
                "These layers are charged for units that can never leave: "
                f"{_listed(self._vain)}. Take what stands in the way out, or "
                "the penalty: prepare(student, layers=[...]) names what pays."
            )

    def begin_epoch(self, epoch: int) -> None:
        """Warns before the first epoch if the run may end too early."""
        if self._begun is not None:
            return
        self._begun = epoch
        removing = self._removing_from(epoch)
        if not removing:
            self.is_moot = True
            _warn(
                f"Nothing will be removed: the run begins with epoch "
                f"{epoch + 1}, and units leave {self._when()}. Lower "
                "`initial_epoch`, or shorten `finetune_epochs`."
            )
            return
        for callback in self._callbacks:
            earliest = _earliest_stop(callback, epoch)
            if earliest is not None and earliest <= removing[0]:
                self._may_stop_early = True
                _warn(
                    f"`{type(callback).__name__}` with patience="
                    f"{callback.patience} can stop the run after epoch "
                    f"{earliest + 1}, and the first units leave at the "
                    f"beginning of epoch {removing[0] + 2}. Raise its patience "
                    f"by {removing[0] + 1 - earliest}, or shorten "
                    "`warmup_epochs`."
                )

    def end_epoch(self, epoch: int) -> None:
        """Notes that an epoch is over."""
        self._ended = epoch

    def note_found(
        self,
        found: InactiveUnits,
        settings: PruningSettings,
        *,
        is_planned: bool,
    ) -> None:
        """Notes what was inactive after an epoch.

        Args:
            found: The units.
            settings: They were judged by.
            is_planned: Whether some of them are to leave.
        """
        self._found, self._settings = found, settings
        self._is_planned = is_planned

    def note_removal(self, removal: Removal) -> None:
        """Warns of layers that are left the fewest units there may be.

        If the criterion left them there; or a budget a single one, unless it
        is to judge the accuracy first.
        """
        found, settings = self._found, self._settings
        if found is None or settings is None:
            return
        inactive = found.ranking.units(found.inactive)
        budget, least = settings.budget, settings.minimum_units
        is_judged = budget is not None and budget.max_accuracy_drop is not None
        fallen, cut = [], []
        for name, before in removal.units_before.items():
            after = removal.units_after[name]
            if not after <= least < before or name in self._at_minimum:
                continue
            self._at_minimum.add(name)
            if before - after <= len(inactive.get(name, ())):
                fallen.append(name)
            elif after == 1 and not is_judged:
                cut.append(name)
        for names, cause in ((fallen, _FALLEN), (cut, _CUT)):
            if names:
                _warn(
                    f"Only minimum_units={least} stay in {_quoted(names)} "
                    f"from epoch {removal.epoch + 1} on: {cause}."
                )

    def finish(self, *, is_empty: bool, is_explained: bool) -> None:
        """Warns of inactive units that stay, or says why none left.

        Args:
            is_empty: Whether the run removed nothing.
            is_explained: Whether a budget has said why already.
        """
        if self.is_moot:
            return
        if stuck := self._stuck_layers():
            _warn(
                "Inactive units stay, and are charged in vain, where no bias "
                f"can take what they leave behind: {_listed(stuck)}. Train "
                "longer where moving averages lag behind, or take what stands "
                "in the way out."
            )
        elif is_empty and not is_explained:
            if reason := self._why_nothing_left():
                _warn(f"Nothing was removed: {reason}")

    def _stuck_layers(self) -> dict[str, str]:
        """Returns layers -> how many of their inactive units stay, and why.

        None of which nothing else was to be expected, or of so few units that
        no removal would be made of them.
        """
        if self._found is None or self._settings is None:
            return {}
        graph, stuck = self._found.ranking.graph, self._found.stuck
        groups = graph.groups()
        counts: Counter[str] = Counter()
        reasons: dict[str, str] = {}
        for group, reason in stuck.items():
            for name, _ in groups[group].members:
                counts[name] += 1
                reasons.setdefault(name, reason)
        share = self._settings.minimum_change
        return {
            name: f"{counts[name]} of {len(graph.units[name])}: {reason}"
            for name, reason in reasons.items()
            if counts[name] >= share * len(graph.units[name])
            and name not in self._vain
        }

    def _why_nothing_left(self) -> str:
        """Returns the reason and the way out; "" if both were said."""
        found, settings = self._found, self._settings
        if self.was_taken_back:
            return (
                "the accuracy fell too far each time. Train longer, or allow "
                "a larger `max_accuracy_drop`."
            )
        is_early = self._ended <= self._removing_from(self._begun or 0)[0]
        if is_early and self._may_stop_early:
            return ""
        if is_early or self._is_planned:
            return (
                f"the run ended with epoch {self._ended + 1}, and units leave "
                f"{self._when()}. Let it run longer, with more patience in "
                "what stopped it, or shorten `warmup_epochs`."
            )
        if found is None or settings is None:
            return (
                "no epoch before units leave was validated (see fit's "
                "`validation_freq`) with the accuracy that "
                "`max_accuracy_drop` asks for. Train longer, or allow more."
            )
        if not len(found.ranking):
            if self._vain:
                return ""
            return (
                f"no layer has more than minimum_units={settings.minimum_units}"
                " units that may leave. Lower it, or prepare more layers."
            )
        if found.inactive:
            return (
                f"{found.inactive} inactive units were fewer than "
                f"minimum_change={settings.minimum_change} of the live ones, "
                "and the run ended before the last removal, which takes any. "
                "Lower it, or let the run go on."
            )
        return (
            f"no unit scored at most threshold={settings.threshold}; the "
            f"lowest score was {found.lowest:.3g}. Raise `l1` or `threshold`, "
            "or train longer under the penalty."
        )

    def _removing_from(self, epoch: int) -> list[int]:
        """Returns the epochs, from one on, after which units may leave."""
        epochs = range(epoch, self._phases.epochs)
        return [*filter(self._phases.removes_after, epochs)]

    def _when(self) -> str:
        """Returns when units leave: removals wait for the next epoch."""
        epochs = [epoch + 2 for epoch in self._removing_from(0)]
        if len(epochs) == 1:
            return f"at the beginning of epoch {epochs[0]}"
        return f"at the beginning of epochs {epochs[0]} to {epochs[-1]}"


def _earliest_stop(callback: Any, epoch: int) -> int | None:
    """Returns after which epoch an EarlyStopping can stop a run.

    Args:
        callback: Of the run.
        epoch: The first of the run.

    Returns:
        None for another callback. The first epoch that is judged is always
        the best so far.
    """
    if not isinstance(callback, keras.callbacks.EarlyStopping):
        return None
    has_baseline = callback.baseline is not None  # which it has to beat too
    wait = max(callback.patience - has_baseline, 1)
    return max(epoch, callback.start_from_epoch) + wait


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _listed(reasons: Mapping[str, str]) -> str:
    return ", ".join(f"'{name}' ({why})" for name, why in reasons.items())


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)
