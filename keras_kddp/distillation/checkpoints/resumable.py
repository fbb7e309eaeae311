"""The callback by which a killed run goes on from its last epochs."""

import os
import time
from pathlib import Path
from typing import Any

import keras

from keras_kddp._compat.running import (
    random_states,
    restore_random_states,
    set_first_epoch,
)
from keras_kddp.atomic_files.folder_lock import FolderLock
from keras_kddp.distillation.checkpoints.beside import (
    RunsLast,
    callback_settings,
    callback_states,
    check_listed,
    restore_callback_states,
    run_history,
)
from keras_kddp.distillation.checkpoints.files import (
    Stored,
    check_folder,
    make_writable,
    newest_checkpoint,
    next_number,
    reading_values,
    remove_checkpoints,
    write_checkpoint,
)
from keras_kddp.distillation.checkpoints.given import describe_given
from keras_kddp.distillation.checkpoints.identity import (
    check_same_run,
    describe_model,
    describe_versions,
)
from keras_kddp.distillation.checkpoints.states import States, check_built
from keras_kddp.distillation.checkpoints.values import as_stored, from_stored
from keras_kddp.distillation.student_state import (
    Snapshot,
    StudentState,
    built_state,
    put_back,
)

SECONDS_BETWEEN = 30.0
"""Seconds from one checkpoint to the next, at least."""

_LONGER = 1.25  # so many times longer for each second that one takes: 2.7 %


class ResumableCheckpoint(RunsLast):
    """Has a run go on where its process ended, from the last checkpoint.

    The same program, started anew, goes on: with the student and the widths
    that it had, the optimizer, the callbacks, the history and the random
    states of Python, NumPy and Keras. Of arrays given to
    `keras_kddp.Distiller.fit` the order follows from seed and epoch, so the
    result on one machine is that of a run that was never ended, bit by bit. The
    order of a pipeline of your own (a `tf.data.Dataset`, a generator) is
    yours: it begins anew.

    Checkpoints are written when an epoch ends, at most every 30 seconds, and
    less often where one takes longer than a second to write. The newest two
    are kept; one that is damaged is recognized, and the one before is used.
    When `fit` is done they are removed. Works in any order of callbacks, and
    in the `fit` of other Keras models too.

    Keras' EarlyStopping, ReduceLROnPlateau, ModelCheckpoint and SwapEMAWeights
    go on where they were. So does a callback of your own that has
    `checkpoint_state()`, which returns a dict of numbers, text and arrays, and
    `restore_checkpoint_state(state)`. A CSVLogger needs `append=True`.

    Args:
        directory: A folder of its own: new, or with the checkpoints of this
            run alone.
        keep: Keep the checkpoints when `fit` is done.

    Raises:
        ValueError: If the directory is no path; when training begins, if the
            model has no weights yet, the folder holds anything else or only
            damaged checkpoints, a callback that is not listed prunes, or the
            run is not the one that was ended:
            other layers, optimizer, losses, epochs, pruning or versions, or
            other arrays or class weights. Then nothing has been changed.
        BlockingIOError: When training begins, if another run has the folder.
        OSError: When training begins, if the folder cannot be written.

    Example:
        ```python
        distiller.fit(
            x,
            y,
            epochs=24,
            callbacks=[
                keras_kddp.DynamicPruning(),
                keras_kddp.ResumableCheckpoint("checkpoints"),
            ],
        )
        ```
    """

    runs_last = 2

    def __init__(
        self, directory: str | os.PathLike[str], *, keep: bool = False
    ) -> None:
        """Keeps the arguments."""
        super().__init__()
        if not isinstance(directory, (str, os.PathLike)) or directory == "":
            raise ValueError(
                "`directory` must be the path of a folder. Received: "
                f"directory={directory!r}. Try 'checkpoints'."
            )
        self.directory = Path(directory)
        self.keep = keep
        self._run: dict[str, Any] = {}
        self._following: int | None = None

    def set_model(self, model: keras.Model) -> None:
        """Keeps the model, and refuses others that would go on with a run."""
        super().set_model(model)
        self._check_beside()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Goes on with the run of the last checkpoint, if there is one."""
        set_first_epoch(self.model, None)
        self._following = None
        check_folder(self.directory)
        is_new = not self.directory.exists()
        self._lock = FolderLock(self.directory, self.running)
        self._lock.take()
        try:
            self._begin()
        except BaseException:
            self._lock.release(with_folder=is_new)
            raise

    def _begin(self) -> None:
        self._written, self._pause = time.monotonic(), SECONDS_BETWEEN
        check_built(self.model)
        check_listed(getattr(self.model, "fit_pruning", None), self.beside)
        state = built_state(self.model)
        self._run = {
            "versions": describe_versions(),
            "model": describe_model(self.model),
            "fit": {
                name: self.params.get(name) for name in ("epochs", "steps")
            },
            "given": describe_given(self.model),
            "callbacks": callback_settings(self.beside),
        }
        stored = newest_checkpoint(self.directory)
        if stored is None:
            make_writable(self.directory)
            return
        with reading_values(self.directory):
            self._go_on(stored, state)

    def _go_on(self, stored: Stored, state: StudentState) -> None:
        """Puts the run of a checkpoint in the place of the one that begins."""
        is_fit = bool(self._run["given"])  # a loop is refused by its epoch
        names = [x for x in self._run if x != "given" or is_fit]
        check_same_run(stored.meta["run"], self._run, names)
        if stored.meta["finished"]:
            raise ValueError(
                "`directory` must hold the checkpoints of a run that was "
                f"ended. Received: directory={str(self.directory)!r}, whose "
                "run is finished. Choose another, or remove it."
            )
        content = from_stored(stored, States(self.model, state))
        put_back(self.model, content["state"])
        restore_callback_states(self.beside, content["callbacks"])
        if history := run_history(self.beside):
            history.history = content["history"]
            history.epoch = content["epochs"]
        restore_random_states(content["random"])
        self.model.stop_training = content["is_stopped"]
        following = content["epoch"]
        if content["is_stopped"]:  # no epoch is left
            following = self.params.get("epochs", following)
        set_first_epoch(self.model, following)
        self._following = following

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Leaves the first epoch of the next `fit` to that.

        Raises:
            ValueError: If a loop that is not Keras' goes on with another epoch
                than that of the checkpoint.
        """
        set_first_epoch(self.model, None)
        following, self._following = self._following, None
        if following not in (None, epoch):
            raise ValueError(
                "Training must go on with the epoch of the checkpoint. "
                f"Received: epoch {epoch} instead of {following}, from 0, from "
                "a loop that does not ask for it. Train with `fit`."
            )

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Writes a checkpoint, if the last one was a while ago."""
        now = time.monotonic()
        if now - self._written >= self._pause:
            self._write(epoch + 1)
            self._written = time.monotonic()
            longer = _LONGER * (self._written - now)
            self._pause = SECONDS_BETWEEN * max(longer, 1.0)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Removes the checkpoints: the run is done."""
        set_first_epoch(self.model, None)
        if not self.keep:
            remove_checkpoints(self.directory)
        self._lock.release(with_folder=not self.keep)

    def finish(self) -> None:
        """Keeps the run as it is when `fit` has returned.

        Raises:
            OSError: If it cannot be written, or another run has it by now.
        """
        self._lock.take()
        try:
            self._write(self.params.get("epochs", 0), is_finished=True)
        finally:
            self._lock.release()

    def _check_beside(self) -> None:
        kinds = (ResumableCheckpoint, keras.callbacks.BackupAndRestore)
        found = [type(x).__name__ for x in self.beside if isinstance(x, kinds)]
        if len(found) > 1:
            raise ValueError(
                "One ResumableCheckpoint must be in `callbacks`, and no "
                f"BackupAndRestore. Received: {found}: each would go on from "
                "an epoch of its own. Leave one."
            )

    def _write(self, epoch: int, *, is_finished: bool = False) -> None:
        history = run_history(self.beside)
        content = {
            "run": self._run,
            "finished": is_finished,
            "epoch": epoch,
            "is_stopped": bool(self.model.stop_training),
            "history": {} if history is None else history.history,
            "epochs": [] if history is None else history.epoch,
            "callbacks": callback_states(self.beside),
            "random": random_states(),
            "state": Snapshot.of(built_state(self.model)),
        }
        number = next_number(self.directory)
        write_checkpoint(self.directory, number, as_stored(content))
