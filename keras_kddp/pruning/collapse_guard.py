"""Takes a removal back that a student does not survive."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_kddp.data.batches import are_arrays
from keras_kddp.distillation.distiller import Distiller
from keras_kddp.distillation.student_state import Snapshot
from keras_kddp.pruning.taken_back import take_back

_LEAST_DROP = 0.1


class CollapseGuard:
    """Says whether a student collapsed in the epoch after a removal.

    It did where its training loss without penalties rose, and it lost more
    than half of what it had: of its accuracy above chance, and then at least
    ten points and three standard errors; or of how far its loss was below that
    of a student that knows nothing, and then the loss at least trebled. That
    is measured on validation data where there are some, else while training.
    What the inactive units of a usual removal cost is far less.

    Its state is four numbers or tables of numbers and a snapshot, which is
    only there between a removal and the next epoch that is judged.

    Args:
        distiller: Inside its `fit`.

    Attributes:
        most: So many groups leave at most at once; None: any number.
    """

    def __init__(self, distiller: Distiller) -> None:
        self.most: int | None = None
        has_labels = distiller.student_loss_weight > 0
        self._loss = "student_loss" if has_labels else "distillation_loss"
        self._is_validated = distiller.fit_validation is not None
        self._chance, self._untrained = _untrained(distiller)
        self._least_drop = _least_drop(distiller)
        self._planned = 0
        self._before: dict[str, float] = {}
        self._good: Snapshot | None = None

    def checkpoint_state(self) -> dict[str, Any]:
        """Returns what the student is judged by, and is to go back to."""
        return {
            "most": self.most,
            "planned": self._planned,
            "before": self._before,
            "good": self._good,
        }

    def restore_checkpoint_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where another guard was."""
        self.most = state["most"]
        self._planned = state["planned"]
        self._before = state["before"]
        self._good = state["good"]

    def allowed(self, count: int) -> int:
        """Returns how many groups may leave, of so many, and notes it."""
        self._planned = count if self.most is None else min(count, self.most)
        return self._planned

    def note_removal(self, distiller: Distiller) -> None:
        """Keeps the student, before units leave."""
        if self._good is None:
            self._good = distiller.snapshot()

    def goes_back(
        self, epoch: int, logs: Mapping[str, float], may_go_back: bool
    ) -> bool:
        """Says whether to take a removal back, and warns of a collapse.

        Args:
            epoch: That ended, from 0.
            logs: Of the epoch.
            may_go_back: Whether a removal may be taken back.
        """
        found = self._measures(logs)
        if found is None:
            return False
        lost = self._lost(found) if self._good is not None else ""
        if lost:
            self._warn(epoch, lost, found, will_go_back=may_go_back)
            if may_go_back:
                return True
        self._before, self._good = found, None
        return False

    def take_removal_back(self, distiller: Distiller) -> bool:
        """Puts the student before the removal back; half as many leave next.

        Returns:
            Whether there was something to take back.
        """
        if self._good is None:
            return False
        take_back(distiller, self._good)
        self._good = None
        self.most = self._planned // 2
        return True

    def _measures(self, logs: Mapping[str, float]) -> dict[str, float] | None:
        """Returns what an epoch is judged by; None: it was not validated."""
        prefix = "val_" if self._is_validated else ""
        if prefix and not any(name.startswith(prefix) for name in logs):
            return None
        found = {
            name: float(value)
            for name, value in logs.items()
            if name.startswith("val_") is self._is_validated
            and name.lower().endswith(("accuracy", "_acc", "acc"))
        }
        for name in (self._loss, f"{prefix}{self._loss}"):
            found[name] = float(logs.get(name, math.nan))
        return found

    def _lost(self, found: Mapping[str, float]) -> str:
        """Returns by which measure a student collapsed, or ""."""
        if not found[self._loss] > self._before.get(self._loss, math.inf):
            return ""
        for name, value in found.items():
            before = self._before.get(name, math.nan)
            if self._is_validated and not name.startswith("val_"):
                continue
            if name.endswith("_loss"):
                half = (before + self._untrained) / 2
                if before > 0 and value > max(3 * before, half):
                    return name
            elif (
                before - value > self._least_drop
                and value < (before + self._chance) / 2
            ):
                return name
        return ""

    def _warn(
        self,
        epoch: int,
        name: str,
        found: Mapping[str, float],
        *,
        will_go_back: bool,
    ) -> None:
        if will_go_back:
            end = (
                f"the removal is taken back, and at most {self._planned // 2} "
                "groups of units leave at once from here on. Lower `l1` or "
                "`threshold`, or ramp longer (`ramp_epochs`)"
            )
        else:
            end = (
                "it stays, for the size that was asked for. Allow more with "
                "the budget, or set its max_accuracy_drop"
            )
        warnings.warn(
            f"The student collapsed after a removal: {name} went from "
            f"{self._before[name]:.4g} to {found[name]:.4g} in epoch "
            f"{epoch + 1}: {end}.",
            stacklevel=4,
        )


def _untrained(distiller: Distiller) -> tuple[float, float]:
    """Returns accuracy and crossentropy of a student that knows nothing.

    Of the output with most classes; of labels that can be looked at it knows
    the shares.
    """
    outputs = distiller.student.outputs
    classes = max(max(output.shape[-1] or 1, 2) for output in outputs)
    validation: Any = distiller.fit_validation
    if isinstance(validation, (tuple, list)) and len(validation) > 1:
        y = validation[1]
        if not keras.tree.is_nested(y) and are_arrays(y) and len(y.shape) == 1:
            _, counts = np.unique(np.asarray(y), return_counts=True)
            shares = counts / counts.sum()
            if 1 < len(shares) <= classes:
                return 1 / classes, float(-(shares * np.log(shares)).sum())
    return 1 / classes, math.log(classes)


def _least_drop(distiller: Distiller) -> float:
    """Returns the drop of an accuracy that is none by chance."""
    data: Any = distiller.fit_validation
    data = distiller.fit_inputs if data is None else data
    leaves = [x for x in keras.tree.flatten(data) if x is not None]
    if not leaves or not are_arrays(leaves):
        return _LEAST_DROP
    return max(_LEAST_DROP, 3 * float(np.sqrt(0.5 / max(len(leaves[0]), 1))))
