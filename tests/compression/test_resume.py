"""Runs that were broken off: who may go on with them, and what comes out."""

import keras
import numpy as np
import pytest
from compared_runs import assert_same_run

import keras_kddp as kddp
from keras_kddp.compression import conclusion, phases
from keras_kddp.compression.run_in_progress import RunInProgress
from keras_kddp.distillation.checkpoints import resumable

CLASSES = 3
EPOCHS = 4


def examples(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, 6)).astype("float32")
    return x, x[:, :CLASSES].argmax(axis=-1)


TRAIN, VALIDATION = examples(64, 0), examples(24, 1)


def dense(units, **options):
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(units, "relu", name="hidden"),
            keras.layers.Dropout(0.2, seed=3, name="dropout"),
            keras.layers.Dense(CLASSES, name="logits"),
        ],
        name="mlp",
        **options,
    )


def compressed(run_dir, student=None, train=TRAIN, teacher=None, **options):
    keras.utils.set_random_seed(7)
    given = {
        "epochs": EPOCHS,
        "batch_size": 16,
        "l1": 1.0,
        "pruning": kddp.DynamicPruning(threshold=0.3),
        "controls": ["kd", "same_size", "same_size_labels", "magnitude"],
        "run_dir": run_dir,
        **options,
    }
    teacher, own = teacher or dense(32), dense(24)
    return kddp.compress(teacher, student or own, train, VALIDATION, **given)


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """Keeps every epoch, however short."""
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN", 0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns a run that nothing has broken off, and its compression."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, compressed(folder, resume=True)


class Interruptions:
    """Raises KeyboardInterrupt at chosen calls of what a run consists of.

    Args:
        monkeypatch: Puts the counting functions in place.
        moments: (owner, name of a function, before which call of it).
    """

    def __init__(self, monkeypatch, moments):
        self.moments = list(moments)
        self.counts = {}
        for owner, name in {moment[:2] for moment in moments}:
            self._watch(monkeypatch, owner, name)

    def _watch(self, monkeypatch, owner, name):
        real = getattr(owner, name)

        def watched(*args, **kwargs):
            key = (owner, name)
            self.counts[key] = self.counts.get(key, 0) + 1
            if self.moments and self.moments[0] == (*key, self.counts[key]):
                self.moments.pop(0)
                self.counts = {}
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)


EPOCH = (phases._Ticks, "on_epoch_end")
CHECKPOINT = (resumable.ResumableCheckpoint, "on_epoch_end")
FINISH = (resumable.ResumableCheckpoint, "finish")
MEASURING = (conclusion, "_measured")
WRITING = (conclusion, "write_run")
PUTTING = (RunInProgress, "keep_phases")

# Each start goes on where the one before was broken off, so calls are counted
# anew: five trainings of four epochs, then measuring and writing.
MOMENTS = [
    (phases.Phase, "trained", 1),
    (*EPOCH, 1),
    (*CHECKPOINT, 2),
    (*EPOCH, 2),
    (*FINISH, 1),
    (phases.Phase, "trained", 2),
    (*EPOCH, 3),
    (*FINISH, 1),
    (*FINISH, 2),
    (*CHECKPOINT, 3),
    (*EPOCH, 2),
    (*FINISH, 1),
    (phases.Phase, "trained", 5),
    (*EPOCH, 2),
    (*MEASURING, 1),
    (*MEASURING, 5),
    (*WRITING, 1),
    (*PUTTING, 1),
]


def test_a_run_broken_off_everywhere_ends_as_one_that_was_not(
    whole, tmp_path, monkeypatch
):
    folder, expected = whole
    pending = Interruptions(monkeypatch, MOMENTS)
    starts = 0
    while pending.moments:
        left = len(pending.moments)
        with pytest.raises(KeyboardInterrupt):
            compressed(tmp_path / "run", resume=True)
        assert not (tmp_path / "run").exists()
        assert (tmp_path / "run.unfinished" / "parts" / "run.json").is_file()
        assert len(pending.moments) == left - 1
        starts += 1
    found = compressed(tmp_path / "run", resume=True)
    assert starts == len(MOMENTS)
    assert found.history == expected.history
    assert found.removals == expected.removals
    assert_same_run(tmp_path / "run", folder)
    assert not (tmp_path / "run.unfinished").exists()
