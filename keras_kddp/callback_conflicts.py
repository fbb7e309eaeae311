"""Callbacks that cannot stand beside one that removes units."""

from typing import Any

import keras


def check_callbacks(callbacks: Any, pruning: type) -> None:
    """Refuses callbacks that bring weights of another size back.

    Args:
        callbacks: Of a run that removes units.
        pruning: The kind that removes them; one of it may stand there.

    Raises:
        ValueError: If there is another, or one that keeps weights.
    """
    listed = getattr(callbacks, "callbacks", callbacks) or []
    listed = listed if isinstance(listed, (list, tuple)) else [listed]
    if sum(isinstance(x, pruning) for x in listed) > 1:
        raise ValueError(
            "One DynamicPruning must be in `callbacks`. Received several: they "
            "would remove the same units. Leave one."
        )
    for callback in listed:
        name, mend = type(callback).__name__, ""
        if isinstance(callback, keras.callbacks.EarlyStopping):
            if callback.restore_best_weights:
                mend = "Set restore_best_weights=False"
        elif isinstance(callback, keras.callbacks.BackupAndRestore):
            mend = "Leave it out"
        elif isinstance(callback, keras.callbacks.ModelCheckpoint):
            if callback.save_weights_only:
                mend = "Set save_weights_only=False"
        if mend:
            raise ValueError(
                f"`{name}` keeps weights of the student as it is now and "
                "cannot put them into a smaller one after a removal. Received "
                f"it beside DynamicPruning. {mend}."
            )
