"""The callbacks that cannot stand beside a removal of units."""

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
        if mend := _mend(callback):
            raise ValueError(
                f"`{type(callback).__name__}` keeps weights of the student as "
                "it is now and cannot put them into a smaller one after a "
                f"removal. Received it beside DynamicPruning. {mend}."
            )


def _mend(callback: Any) -> str:
    """Returns what to do about a callback; "" where it may stay."""
    if isinstance(callback, keras.callbacks.EarlyStopping):
        if callback.restore_best_weights:
            return (
                "Set restore_best_weights=False, and add "
                f"keras_kddp.BestStudent({callback.monitor!r})"
            )
    elif isinstance(callback, keras.callbacks.BackupAndRestore):
        return "Use keras_kddp.ResumableCheckpoint(directory)"
    elif isinstance(callback, keras.callbacks.ModelCheckpoint):
        if callback.save_weights_only:
            return (
                "Set save_weights_only=False: a file of the whole model, such "
                "as 'student.keras', has its shape with it"
            )
    return ""
