"""What a run of pruning warns of, each once and with the way out."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_kddp.distillation.distiller import Distiller
from keras_kddp.layers.penalized_models import prepared_layers
from keras_kddp.pruning.activity import UnitActivity
from keras_kddp.pruning.certificates import Removal
from keras_kddp.pruning.early_stopping import possible_stops, validated_epochs
from keras_kddp.pruning.inactive_units import (
    Findings,
    InactiveUnits,
    summarize,
)
from keras_kddp.pruning.lost_units import LostUnitWarnings
from keras_kddp.pruning.schedule import Phases
from keras_kddp.pruning.settings import PruningSettings
from keras_kddp.pruning.vain_charges import find_vain_charges
from keras_kddp.surgery.graph import ChannelGraph


class RunWarnings:
    """Collects what a run's warnings need, and gives each once.

    Args:
        phases: Of the run.
        distiller: Inside its `fit`.

    Attributes:
        is_moot: It was said that nothing would leave, or that training
            stopped.
        was_taken_back: A removal was, since the accuracy fell.
    """

    def __init__(self, phases: Phases, distiller: Distiller) -> None:
        self.is_moot = False
        self.was_taken_back = False
        self._phases = phases
        callbacks = distiller.fit_callbacks
        self._callbacks = keras.tree.flatten(
            getattr(callbacks, "callbacks", callbacks)
        )
        self._is_validated = validated_epochs(
            distiller.fit_validation_freq,
            is_validated=distiller.fit_validation is not None,
        )
        self._said: set[str] = set()
        self._begun: int | None = None
        self._ended = -1
        self._may_stop_early = False
        self._vain: Mapping[str, str] = {}
        self._found: Findings | None = None
        self._settings: PruningSettings | None = None
        self._is_planned = False
        self._lost = LostUnitWarnings()

    def warn_of_vain_charges(self, graph: ChannelGraph) -> None:
        """Warns of what is charged for units that can never leave.

        And of units that are not observed as what they are.
        """
        self._vain = find_vain_charges(graph)
        if self._vain:
            _warn(
                "These layers are charged for units that can never leave: "
                f"{listed(self._vain)}. Take what stands in the way out, or "
                "the penalty: prepare(student, layers=[...]) names what pays."
            )
        hiding = graph.points.hiding
        hidden = {
            name: f"'{hiding[name]}'"
            for name in prepared_layers(graph)
            if name in hiding
        }
        if hidden:
            _warn(
                "These layers are observed before their activation, where dead "
                f"units look alive, since noise stands between: "
                f"{listed(hidden)}. Put the noise behind the activation."
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
                "Nothing will be removed: the run begins with epoch "
                f"{epoch + 1}, and removals are planned when "
                f"{self._when_planned()}. Lower `initial_epoch`, or shorten "
                "`finetune_epochs`."
            )
            return
        for callback in self._callbacks:
            epochs = range(epoch, removing[0] + 1)
            if stops := possible_stops(callback, epochs, self._is_validated):
                self._may_stop_early = True
                _warn(
                    f"`{type(callback).__name__}` with patience="
                    f"{callback.patience} can stop the run after epoch "
                    f"{stops[0] + 1}, and the first units leave at the "
                    f"beginning of epoch {removing[0] + 2}. Raise its patience "
                    f"by {len(stops)}, or shorten `warmup_epochs`."
                )

    @contextlib.contextmanager
    def each_once(self) -> Iterator[None]:
        """Hands on what is warned of inside, if the run has not yet."""
        with warnings.catch_warnings(record=True) as caught:
            yield
        for warning in caught:
            if str(warning.message) not in self._said:
                self._said.add(str(warning.message))
                warnings.warn(warning.message, warning.category, stacklevel=5)

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
        self._found, self._settings = summarize(found, settings), settings
        self._is_planned = is_planned

    def note_removal(self, removal: Removal) -> None:
        """Warns of layers that lost too much; see `LostUnitWarnings`."""
        found, settings = self._found, self._settings
        if found is None or settings is None:
            return
        for message in self._lost.of_removal(
            removal, found.units, settings.budget
        ):
            _warn(message)

    def note_activity(
        self, epoch: int, activity: Mapping[str, UnitActivity]
    ) -> None:
        """Warns of layers that fell silent; see `LostUnitWarnings`."""
        for message in self._lost.of_activity(epoch, activity):
            _warn(message)

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
                f"can take what they leave behind: {listed(stuck)}. Train "
                "longer where moving averages lag behind, or take what stands "
                "in the way out."
            )
        elif is_empty and not is_explained:
            if reason := self._why_nothing_left():
                _warn(f"Nothing was removed: {reason}")

    def _stuck_layers(self) -> dict[str, str]:
        """Returns layers -> how many of their inactive units stay, and why.

        Without those of which nothing else was to be expected.
        """
        stuck = {} if self._found is None else self._found.stuck
        return {n: why for n, why in stuck.items() if n not in self._vain}

    def checkpoint_state(self) -> dict[str, Any]:
        """Returns what was said, and what the rest depends on."""
        return {
            "is_moot": self.is_moot,
            "was_taken_back": self.was_taken_back,
            "said": sorted(self._said),
            "begun": self._begun,
            "ended": self._ended,
            "may_stop_early": self._may_stop_early,
            "found": self._found and self._found._asdict(),
            "is_planned": self._is_planned,
            "lost": self._lost.checkpoint_state(),
        }

    def restore_checkpoint_state(
        self, state: Mapping[str, Any], settings: PruningSettings
    ) -> None:
        """Goes on after what another run said.

        Args:
            state: Its `checkpoint_state`.
            settings: Those of the run.
        """
        self.is_moot = state["is_moot"]
        self.was_taken_back = state["was_taken_back"]
        self._said = {*state["said"]}
        self._begun, self._ended = state["begun"], state["ended"]
        self._may_stop_early = state["may_stop_early"]
        if state["found"] is not None:
            self._found = Findings(**state["found"])
            self._settings = settings
        self._is_planned = state["is_planned"]
        self._lost.restore_checkpoint_state(state["lost"])

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
        if not found.choices:
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

    def _when_planned(self) -> str:
        """Returns at the end of which epochs removals are planned."""
        epochs = [epoch + 1 for epoch in self._removing_from(0)]
        if len(epochs) == 1:
            return f"epoch {epochs[0]} ends"
        return f"epochs {epochs[0]} to {epochs[-1]} end"

    def _when(self) -> str:
        """Returns when units leave: removals wait for the next epoch."""
        epochs = [epoch + 2 for epoch in self._removing_from(0)]
        if len(epochs) == 1:
            return f"at the beginning of epoch {epochs[0]}"
        return f"at the beginning of epochs {epochs[0]} to {epochs[-1]}"


def listed(reasons: Mapping[str, str]) -> str:
    """Returns names, each with a reason."""
    return ", ".join(f"'{name}' ({why})" for name, why in reasons.items())


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)
