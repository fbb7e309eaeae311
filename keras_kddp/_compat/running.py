"""What of a running `fit` only Keras' private names tell, with the reason."""

import random
import sys
from types import FrameType
from typing import Any

import keras
import numpy as np

from keras_kddp._compat import global_generator, set_global_generator

_CALLBACK_STATE = {
    "EarlyStopping": (
        "wait",
        "stopped_epoch",
        "best",
        "best_epoch",
        "best_weights",
    ),
    "ReduceLROnPlateau": ("wait", "cooldown_counter", "best"),
    "ModelCheckpoint": (
        "best",
        "_batches_seen_since_last_saving",
        "_last_batch_seen",
    ),
    "SwapEMAWeights": ("_ema_weights_in_model",),
}
"""What Keras' callbacks know of a run; the learning rate is the optimizer's."""


def set_first_epoch(model: keras.Model, epoch: int | None) -> None:
    """Has the `fit` that begins go on with an epoch, from 0.

    As Keras' BackupAndRestore does it, which never takes it back: None lets
    the next `fit` begin where it is told to.
    """
    model._initial_epoch = epoch


_OF_FIT = (
    *("x", "y", "sample_weight", "class_weight", "batch_size", "shuffle"),
    *("validation_data", "validation_split", "validation_batch_size"),
    *("validation_steps", "validation_freq"),
)
"""Arguments of Keras' `fit` that its numbers follow from; no counts of it."""


def arguments_of_fit(model: keras.Model) -> dict[str, Any]:
    """Returns what Keras' `fit` of a model was given, by name.

    A callback is told the number of epochs and steps alone. Empty where no
    `fit` of the model calls.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit":
            found = frame.f_locals
            if found.get("self") is model and {*_OF_FIT} <= {*found}:
                return {name: found[name] for name in _OF_FIT}
        frame = frame.f_back
    return {}


def surrounding_callbacks() -> Any:
    """Returns the `CallbackList` that is calling its callbacks, or None.

    A callback is told its model, but not what stands beside it. Only the call
    of `set_model` shows it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, keras.callbacks.CallbackList):
            return found
        frame = frame.f_back
    return None


def is_in_fit(found: Any) -> bool:
    """Says whether a `fit` that runs, in any thread, calls a `CallbackList`.

    One that an exception has ended does not, though a traceback may keep it.

    Args:
        found: The list, or None, which nothing calls.
    """
    if found is None:
        return False
    for frame in sys._current_frames().values():
        below: FrameType | None = frame
        while below is not None:
            if below.f_code.co_name == "fit" and (
                below.f_locals.get("callbacks") is found
            ):
                return True
            below = below.f_back
    return False


def callback_state(callback: Any) -> dict[str, Any] | None:
    """Returns what one of Keras' callbacks knows of a run; None of others."""
    names = _state_names(callback)
    if names is None:
        return None
    return {name: getattr(callback, name, None) for name in names}


def restore_callback_state(callback: Any, state: dict[str, Any]) -> None:
    """Gives one of Keras' callbacks what another of its kind knew."""
    for name in _state_names(callback) or ():
        setattr(callback, name, state[name])


def _state_names(callback: Any) -> tuple[str, ...] | None:
    for name, names in _CALLBACK_STATE.items():
        if isinstance(callback, getattr(keras.callbacks, name)):
            return names
    return None


def random_states() -> dict[str, Any]:
    """Returns the states of Python's, NumPy's and Keras' global generators."""
    kind, numbers, position, has_gauss, gauss = np.random.get_state()
    version, words, spare = random.getstate()
    generator = global_generator()
    return {
        "python": {
            "version": version,
            "words": np.array(words, np.uint32),
            "spare": spare,
        },
        "numpy": {
            "kind": kind,
            "numbers": numbers,
            "position": position,
            "has_gauss": has_gauss,
            "gauss": gauss,
        },
        "keras": None if generator is None else np.array(generator.state),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Puts back what `random_states` returned."""
    python, numpy = states["python"], states["numpy"]
    words = tuple(int(word) for word in python["words"])
    random.setstate((python["version"], words, python["spare"]))
    np.random.set_state(
        (
            numpy["kind"],
            np.asarray(numpy["numbers"]),
            numpy["position"],
            numpy["has_gauss"],
            numpy["gauss"],
        )
    )
    found, generator = global_generator(), None
    if states["keras"] is not None:
        # The one that is there, which steps may have been traced with.
        generator = found or keras.random.SeedGenerator(0, name="global")
        generator.state.assign(states["keras"])
    set_global_generator(generator)
