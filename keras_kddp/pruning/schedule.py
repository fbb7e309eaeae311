"""When the penalty charges and when units may be removed."""

from typing import NamedTuple

from keras_kddp.arguments import MOST_EPOCHS, require_count


class Phases(NamedTuple):
    """The phases of a pruning run, in epochs.

    Warm-up at strength 0, a linear ramp, a hold at 1, fine-tuning at 0: a
    penalty at full strength from the start kills the student.

    Attributes:
        warmup: Epochs at strength 0, first.
        ramp: Epochs that rise to strength 1.
        finetune: Epochs at strength 0, last; nothing is removed in them.
        epochs: Length of the run.
    """

    warmup: int
    ramp: int
    finetune: int
    epochs: int

    def strength(self, epoch: int) -> float:
        """Returns the penalty strength of an epoch (from 0), in [0, 1]."""
        if epoch < self.warmup or epoch >= self.epochs - self.finetune:
            return 0.0
        return min(1.0, (epoch - self.warmup + 1) / max(self.ramp, 1))

    @property
    def removals(self) -> range:
        """The epochs for which `removes_after`."""
        last = min(self.epochs - self.finetune, self.epochs - 1)
        return range(self.warmup, last)

    def removes_after(self, epoch: int) -> bool:
        """Says whether a removal may be planned at the end of an epoch."""
        return epoch in self.removals

    def removal_share(self, epoch: int) -> float:
        """Returns which share of all removals is done with that of an epoch.

        In (0, 1].
        """
        removals = self.removals
        return (epoch + 1 - removals.start) / len(removals)

    def checks_after(self, epoch: int) -> bool:
        """Says whether a student may be taken back at the end of an epoch.

        While removing, half-way through fine-tuning, and at the end of it.
        """
        half_way = self.epochs - 1 - self.finetune // 2
        return self.removes_after(epoch) or epoch in (half_way, self.epochs - 1)

    def is_last_removal(self, epoch: int) -> bool:
        """Says whether no later epoch may remove."""
        return self.removes_after(epoch) and not self.removes_after(epoch + 1)


def planned_phases(
    epochs: int,
    warmup: int | None = None,
    ramp: int | None = None,
    finetune: int | None = None,
) -> Phases:
    """Returns the phases of a run.

    Args:
        epochs: Length of the run.
        warmup: Warm-up epochs; None: 1/8 of the run.
        ramp: Ramp epochs; None: 1/6 of the run.
        finetune: Fine-tuning epochs; None: 1/3 of the run.

    Raises:
        ValueError: If the phases are longer than the run, or leave no epoch
            after which units could be removed, or the run is endless.
    """
    require_count("epochs", epochs, smallest=0, largest=MOST_EPOCHS)
    phases = Phases(
        round(epochs / 8) if warmup is None else warmup,
        round(epochs / 6) if ramp is None else ramp,
        round(epochs / 3) if finetune is None else finetune,
        epochs,
    )
    received = (
        f"Received: {phases.warmup} warm-up, {phases.ramp} ramp and "
        f"{phases.finetune} fine-tuning epochs in a run of epochs={epochs}"
    )
    if phases.warmup + phases.ramp + phases.finetune > epochs:
        raise ValueError(
            f"The schedule must not be longer than the run. {received}. "
            "Shorten a phase or train longer."
        )
    if not phases.removals:
        raise ValueError(
            "The schedule must leave at least one epoch with a penalty, and "
            f"one after it. {received}. Shorten warm-up or fine-tuning, or "
            "train longer."
        )
    return phases
