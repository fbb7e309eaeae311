"""The callbacks of a run, and what they know of it."""

import weakref
from collections.abc import Callable
from typing import Any

import keras

from keras_kddp._compat.running import (
    callback_state,
    is_in_fit,
    restore_callback_state,
    surrounding_callbacks,
)
from keras_kddp.distillation.checkpoints.identity import describe


class RunsLast(keras.callbacks.Callback):
    """A callback that is called after all others, wherever it stands.

    Those after it in the list would see the epoch later than it does.

    Attributes:
        runs_last: Of two such callbacks, the one with the larger number is
            called last.
    """

    runs_last = 1

    def set_model(self, model: keras.Model) -> None:
        """Keeps the model, and goes to the end of the callbacks."""
        super().set_model(model)
        self._surrounding = found = surrounding_callbacks()
        if found is not None:  # which goes on with the list as it was
            found.callbacks = sorted(
                found.callbacks, key=lambda x: getattr(x, "runs_last", 0)
            )

    @property
    def beside(self) -> list[Any]:
        """The callbacks of the run, this one among them."""
        found = getattr(self, "_surrounding", None)
        return [self] if found is None else found.callbacks

    @property
    def running(self) -> Callable[[], bool]:
        """What says whether the `fit` that calls this one still runs."""
        found = self._surrounding
        known = (lambda: None) if found is None else weakref.ref(found)
        return lambda: is_in_fit(known())


def run_history(callbacks: list[Any]) -> keras.callbacks.History | None:
    """Returns the History among callbacks, or None."""
    found = [x for x in callbacks if isinstance(x, keras.callbacks.History)]
    return found[0] if found else None


def check_listed(pruning: Any, callbacks: list[Any]) -> None:
    """Checks that the state of the callback that prunes is kept.

    Args:
        pruning: The callback, or None.
        callbacks: Those of the run; one that calls it may keep its state.

    Raises:
        ValueError: If it is called by another one that does not.
    """
    if pruning is None or any(
        each is pruning
        or (
            hasattr(each, "checkpoint_state")
            and any(x is pruning for x in vars(each).values())
        )
        for each in callbacks
    ):
        return
    kind = type(pruning).__name__
    raise ValueError(
        f"`callbacks` must hold the {kind} itself, or its state is lost when "
        "the run goes on. Received one that another callback calls, among "
        f"{[type(each).__name__ for each in callbacks]}. List it, or give that "
        "callback `checkpoint_settings`, `checkpoint_state` and "
        "`restore_checkpoint_state`, which call those of its own."
    )


def callback_settings(callbacks: list[Any]) -> dict[str, Any]:
    """Returns what the callbacks that have state were told.

    Those say it in `checkpoint_settings()`, if they have any.
    """
    return {
        name: describe(callback.checkpoint_settings())
        if hasattr(callback, "checkpoint_settings")
        else {}
        for name, callback in _with_state(callbacks).items()
    }


def callback_states(callbacks: list[Any]) -> dict[str, Any]:
    """Returns what callbacks know of a run, by their names.

    Our own and those of users say it in `checkpoint_state()`.
    """
    return {
        name: callback.checkpoint_state()
        if hasattr(callback, "checkpoint_state")
        else callback_state(callback)
        for name, callback in _with_state(callbacks).items()
    }


def restore_callback_states(
    callbacks: list[Any], states: dict[str, Any]
) -> None:
    """Gives callbacks what `callback_states` said."""
    for name, callback in _with_state(callbacks).items():
        if hasattr(callback, "restore_checkpoint_state"):
            callback.restore_checkpoint_state(states[name])
        else:
            restore_callback_state(callback, states[name])


def _with_state(callbacks: list[Any]) -> dict[str, Any]:
    """Returns the callbacks that have state, by class and number."""
    found: dict[str, Any] = {}
    for callback in callbacks:
        if not hasattr(callback, "checkpoint_state") and (
            callback_state(callback) is None
        ):
            continue
        kind = type(callback).__name__
        same = sum(name.split(" ")[0] == kind for name in found)
        found[f"{kind} {same + 1}" if same else kind] = callback
    return found
