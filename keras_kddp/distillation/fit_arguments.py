"""What was given to `fit`, as callbacks need it."""

from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_kddp.data.batches import Batches, are_arrays
from keras_kddp.data.packing import unpacked
from keras_kddp.model_io import Arrays


@dataclass(frozen=True)
class FitArguments:
    """The data and the callbacks of a run; all None outside of one.

    Not a tuple or dict: Keras would look into it and hand its dicts out as a
    class of its own.

    Attributes:
        inputs: Arrays given as `x`, without packed teacher outputs and without
            the rows that `validation_split` sets aside.
        callbacks: The callbacks.
        validation: The validation data.
        validation_freq: After which epochs it is used, as `fit` takes it.
        pruning: The callback that prunes, once it has begun.
    """

    inputs: Arrays | None = None
    callbacks: Any = None
    validation: Batches | None = None
    validation_freq: Any = 1
    pruning: Any = None


class ShowsFit:
    """The part of `keras_kddp.Distiller` that tells callbacks of its `fit`."""

    _fit: FitArguments

    @property
    def fit_inputs(self) -> Arrays | None:
        """Inside `fit`, the arrays given as `x`, else None.

        Without packed teacher outputs, and without the rows that
        `validation_split` sets aside.
        """
        return self._fit.inputs

    @property
    def fit_callbacks(self) -> Any:
        """Inside `fit`, the callbacks of the run, else None."""
        return self._fit.callbacks

    @property
    def fit_validation(self) -> Batches | None:
        """Inside `fit`, its validation data, else None."""
        return self._fit.validation

    @property
    def fit_validation_freq(self) -> Any:
        """Inside `fit`, its `validation_freq`."""
        return self._fit.validation_freq

    @property
    def fit_pruning(self) -> Any:
        """The callback that prunes, listed or called by another; else None."""
        return self._fit.pruning

    def note_pruning(self, callback: Any) -> None:
        """Notes the callback that prunes; None when it is done."""
        self._fit = replace(self._fit, pruning=callback)


def read_arguments(
    x: Batches, y: Arrays, given: MutableMapping[str, Any]
) -> FitArguments:
    """Returns what was given to `fit`, and puts its callbacks in order.

    Args:
        x: Inputs.
        y: Labels.
        given: The other arguments; `callbacks` comes out in order.
    """
    given["callbacks"] = _in_order(given.get("callbacks"))
    validation, share = given.get("validation_data"), 0.0
    if validation is None:
        share = given.get("validation_split", 0.0)
        validation = _validation_rows(x, y, share) if share else None
    inputs = _training_rows(x, share)
    freq = given.get("validation_freq", 1)
    return FitArguments(inputs, given["callbacks"], validation, freq)


def _in_order(callbacks: Any) -> Any:
    """Returns callbacks with those first that write for the others.

    Those in a `CallbackList` too: it was made before the length of the run and
    the model were known. One of a subclass, which may call them in a way of
    its own, is left as it is.
    """
    if not isinstance(callbacks, (list, tuple)) and not _is_plain(callbacks):
        return callbacks
    flat = _flattened(callbacks)
    return sorted(flat, key=lambda x: not getattr(x, "runs_first", False))


def _is_plain(callbacks: Any) -> bool:
    return type(callbacks) is keras.callbacks.CallbackList


def _flattened(callbacks: Any) -> list[Any]:
    """Returns callbacks without the lists that they stand in."""
    if _is_plain(callbacks):
        callbacks = callbacks.callbacks
    flat: list[Any] = []
    for each in keras.tree.flatten(callbacks):
        flat += _flattened(each) if _is_plain(each) else [each]
    return flat


def _training_rows(x: Batches, validation_split: float) -> Arrays | None:
    """Returns arrays given to `fit`, without the validation rows."""
    x, _ = unpacked(x)
    if not are_arrays(x):
        return None
    last = _first_validation_row(x, validation_split)
    return keras.tree.map_structure(lambda leaf: leaf[:last], x)


def _validation_rows(x: Batches, y: Arrays, validation_split: float) -> Arrays:
    """Returns the rows that `fit` sets aside, packed as they are."""
    if not are_arrays(x):
        return None
    first = _first_validation_row(x, validation_split)
    held_out = (x,) if y is None else (x, y)
    return keras.tree.map_structure(lambda leaf: leaf[first:], held_out)


def _first_validation_row(x: Arrays, validation_split: float) -> int:
    rows = keras.tree.flatten(x)[0].shape[0]
    return int(rows * (1 - validation_split))
