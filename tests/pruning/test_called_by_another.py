"""A DynamicPruning that a callback of a user calls, in a run that goes on."""

import keras
import pytest
from known_activity import fit, make_distiller, pruning
from resumed_runs import EndAt, EndedError

from keras_kddp import ResumableCheckpoint
from keras_kddp.distillation.checkpoints import resumable


class Calling(keras.callbacks.Callback):
    """Calls another callback."""

    def __init__(self, called):
        super().__init__()
        self.called = called

    def set_model(self, model):
        super().set_model(model)
        self.called.set_model(model)

    def set_params(self, params):
        super().set_params(params)
        self.called.set_params(params)

    def on_train_begin(self, logs=None):
        self.called.on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.called.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.called.on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        self.called.on_train_end(logs)


class Keeping(Calling):
    """Hands the state on, too."""

    def checkpoint_state(self):
        return self.called.checkpoint_state()

    def restore_checkpoint_state(self, state):
        self.called.restore_checkpoint_state(state)


def test_one_whose_state_would_be_lost_is_refused(tmp_path):
    distiller = make_distiller()
    with pytest.raises(ValueError, match=r"must hold the DynamicPruning its"):
        fit(
            distiller,
            Calling(pruning()),
            ResumableCheckpoint(tmp_path / "run"),
        )
    assert not (tmp_path / "run").exists()

    # Nothing is left of it: without pruning, or without checkpoints, it trains.
    fit(distiller, ResumableCheckpoint(tmp_path / "run"))
    assert fit(distiller, Calling(pruning()))["units"] == [4, 4, 2, 2]


def test_one_whose_state_is_handed_on_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN", 0.0)

    def run(*others):
        return fit(
            make_distiller(),
            ResumableCheckpoint(tmp_path / "run"),
            Keeping(pruning()),
            *others,
        )

    with pytest.raises(EndedError):
        run(EndAt(3))
    assert run()["units"] == [4, 4, 2, 2]
