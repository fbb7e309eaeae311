"""After which epochs an EarlyStopping can stop a run."""

from collections.abc import Callable, Collection
from typing import Any

import keras


def validated_epochs(
    frequency: Any, *, is_validated: bool
) -> Callable[[int], bool]:
    """Returns what says whether a run is validated after an epoch, from 0.

    Args:
        frequency: `validation_freq` of `fit`: an integer, or the epochs that
            are validated, from 1.
        is_validated: Whether there are validation data.
    """

    def is_used(epoch: int) -> bool:
        if isinstance(frequency, Collection):
            return is_validated and epoch + 1 in frequency
        return is_validated and (epoch + 1) % frequency == 0

    return is_used


def possible_stops(
    callback: Any, epochs: range, is_validated: Callable[[int], bool]
) -> list[int]:
    """Returns the epochs after which a callback may stop a run.

    Args:
        callback: Of the run.
        epochs: Those of the run, from 0.
        is_validated: Says whether the run is validated after an epoch.

    Returns:
        In their order; none for anything but an EarlyStopping. The first epoch
        that is judged is always the best so far.
    """
    if not isinstance(callback, keras.callbacks.EarlyStopping):
        return []
    needs_validation = callback.monitor.startswith("val_")
    judged = [
        epoch
        for epoch in epochs
        if epoch >= callback.start_from_epoch
        and (is_validated(epoch) or not needs_validation)
    ]
    has_baseline = callback.baseline is not None  # which it has to beat too
    return judged[max(callback.patience - has_baseline, 1) :]
