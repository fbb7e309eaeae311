"""A fit that is done, put into a model without training."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_kddp._compat.running import restore_random_states
from keras_kddp.distillation.checkpoints.files import (
    newest_checkpoint,
    reading_values,
)
from keras_kddp.distillation.checkpoints.identity import (
    check_same_run,
    describe_model,
    describe_versions,
)
from keras_kddp.distillation.checkpoints.states import States, check_built
from keras_kddp.distillation.checkpoints.values import from_stored
from keras_kddp.distillation.student_state import built_state, put_back


class FinishedFit(NamedTuple):
    """What a finished `fit` left beside the model.

    Attributes:
        history: The logs of the epochs, by name.
        callbacks: What each callback knew in the end, by its class.
    """

    history: dict[str, list[Any]]
    callbacks: dict[str, Any]


def restore_finished(
    model: keras.Model, directory: str | os.PathLike[str]
) -> FinishedFit | None:
    """Puts a finished run into a model that is as it was when that began.

    The global random states are as they were then, too.

    Args:
        model: A compiled model, or a Distiller.
        directory: What `ResumableCheckpoint.finish` wrote into.

    Returns:
        None if the run has not finished.

    Raises:
        ValueError: If it was another run, or its checkpoints are damaged.
    """
    with reading_values(Path(directory)):
        return _restored(model, directory)


def _restored(model: Any, directory: Any) -> FinishedFit | None:
    stored = newest_checkpoint(Path(directory))
    if stored is None or not stored.meta["finished"]:
        return None
    check_built(model)
    state = built_state(model)
    now = {"versions": describe_versions(), "model": describe_model(model)}
    check_same_run(stored.meta["run"], now, [*now])
    content = from_stored(stored, States(model, state))
    put_back(model, content["state"])
    restore_random_states(content["random"])
    return FinishedFit(content["history"], content["callbacks"])
