"""Runs that were broken off: who may go on with them, and what comes out."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from compared_runs import assert_same_run

import keras_kddp as kddp
from keras_kddp.atomic_files.lock import holding
from keras_kddp.compression import conclusion, stages, trainings
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.compression.run_in_progress import (
    RunInProgress,
    former_record,
)
from keras_kddp.compression.run_record import note_completion
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


def knowing():
    """Returns a teacher that names the largest of the first numbers."""
    model = dense(2 * CLASSES)
    same = np.eye(6, CLASSES)
    reader = np.concatenate([np.eye(CLASSES), -np.eye(CLASSES)])
    kernel = 3 * np.concatenate([same, -same], axis=1)  # relu(x) - relu(-x)
    zeros = np.zeros(2 * CLASSES), np.zeros(CLASSES)
    model.set_weights([kernel, zeros[0], reader, zeros[1]])
    return model


def compressed(run_dir, student=None, train=TRAIN, teacher=None, **options):
    keras.backend.clear_session()  # names count from 1, as in a new process
    keras.utils.set_random_seed(7)
    given = {
        "epochs": EPOCHS,
        "batch_size": 16,
        "l1": 1.0,
        "pruning": kddp.DynamicPruning(threshold=0.3),
        "controls": ["same_size"],
        "run_dir": run_dir,
        **options,
    }
    teacher, own = teacher or knowing(), dense(24)
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


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Returns the directory of a run that was broken off in its third epoch."""
    folder = tmp_path_factory.mktemp("broken") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable, "SECONDS_BETWEEN", 0.0)
        Interruptions(patch, [(*EPOCH, 3)])
        with pytest.raises(KeyboardInterrupt):
            compressed(folder)
    return folder


def files_beside(folder):
    """Returns what a run directory and what is beside it hold, and since."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.parent.rglob("*")
        if path.name != "lock"
    }


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


EPOCH = (stages._Ticks, "on_epoch_end")
CHECKPOINT = (resumable.ResumableCheckpoint, "on_epoch_end")
FINISH = (resumable.ResumableCheckpoint, "finish")
MEASURING = (conclusion, "_measured")
WRITING = (conclusion, "write_run")
PUTTING = (RunInProgress, "keep_stages")

# Each start goes on where the one before was broken off, so calls are counted
# anew: two trainings of four epochs, then measuring and writing.
MOMENTS = [
    (*EPOCH, 1),
    (*CHECKPOINT, 2),
    (*FINISH, 1),
    (*EPOCH, 3),
    (*PUTTING, 1),
]
# Five trainings.
MORE_MOMENTS = [
    (stages.Stage, "trained", 1),
    (*EPOCH, 1),
    (*CHECKPOINT, 2),
    (*EPOCH, 2),
    (*FINISH, 1),
    (stages.Stage, "trained", 2),
    (*EPOCH, 3),
    (*FINISH, 1),
    (*FINISH, 2),
    (*CHECKPOINT, 3),
    (*EPOCH, 2),
    (*FINISH, 1),
    (stages.Stage, "trained", 5),
    (*EPOCH, 2),
    (*MEASURING, 1),
    (*MEASURING, 5),
    (*WRITING, 1),
    (*PUTTING, 1),
]


def broken_off(folder, moments, monkeypatch, **options):
    """Returns a run that is broken off at some moments, and goes on each time.

    Args:
        folder: Its run directory.
        moments: As `Interruptions` takes them.
        monkeypatch: Of the test.
        options: Of `compressed`.
    """
    pending = Interruptions(monkeypatch, moments)
    for left in reversed(range(len(moments))):
        with pytest.raises(KeyboardInterrupt):
            compressed(folder, resume=True, **options)
        assert len(pending.moments) == left
        assert not folder.exists()
        parts = folder.with_name("run.unfinished") / "parts"
        assert (parts / "run.json").is_file()
    return compressed(folder, resume=True, **options)


def test_a_run_broken_off_everywhere_ends_as_one_that_was_not(
    whole, tmp_path, monkeypatch
):
    folder, expected = whole
    found = broken_off(tmp_path / "run", MOMENTS, monkeypatch)
    assert found.history == expected.history
    assert found.removals == expected.removals
    assert found.seconds > expected.seconds / 2
    assert_same_run(tmp_path / "run", folder)
    assert not (tmp_path / "run.unfinished").exists()


@pytest.mark.slow
def test_all_controls_and_a_relative_budget_go_on(tmp_path, monkeypatch):
    options = {
        "controls": ["kd", "same_size", "same_size_labels", "magnitude"],
        "budget": kddp.Budget(max_accuracy_drop=0.5, max_parameters=150),
        "epochs": 6,
    }
    expected = compressed(tmp_path / "whole", resume=True, **options)
    found = broken_off(tmp_path / "run", MORE_MOMENTS, monkeypatch, **options)
    assert found.history == expected.history
    assert found.removals == expected.removals
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_is_returned_without_training(whole, monkeypatch):
    folder, expected = whole
    before = {x: x.stat().st_mtime_ns for x in folder.rglob("*")}

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(keras.Model, "fit", never)
    found = compressed(folder, resume=True)
    assert {x: x.stat().st_mtime_ns for x in folder.rglob("*")} == before
    assert found.summary() == expected.summary()
    assert found.history == expected.history
    assert found.removals == expected.removals
    assert list(found.controls) == ["same_size"]
    assert found.files.micro == expected.files.micro
    assert found.files.int8 == expected.files.int8
    assert [row.accuracy for row in found.files.agreement.rows] == [
        row.accuracy for row in expected.files.agreement.rows
    ]


LABELS = keras.losses.SparseCategoricalCrossentropy(
    from_logits=True, ignore_class=2
)
SMALLER = kddp.Budget(max_parameters=99)


@pytest.mark.parametrize(
    ("name", "value", "difference"),
    [
        ("epochs", 5, "epochs was 4 and is 5"),
        ("l1", 2.0, "l1 was 1.0 and is 2.0"),
        ("seed", 1, "seed was 0 and is 1"),
        ("batch_size", 8, "batch_size was 16 and is 8"),
        ("optimizer", "sgd", "optimizer.*Adam.*and is.*SGD"),
        ("temperature", 2.0, "temperature was 4.0 and is 2.0"),
        ("student_loss_weight", 0.5, "student_loss_weight was 0.1 and is 0.5"),
        ("controls", ["kd"], "controls.*was 'same_size' and is 'kd'"),
        ("pruning", kddp.DynamicPruning(threshold=0.2), "was 0.3 and is 0.2"),
        ("budget", SMALLER, "budget was None and is .*99"),
        ("loss", LABELS, "loss.config.ignore_class was None and is 2"),
        ("train", examples(64, 5), "data.train was '64 .* and is '64 "),
        ("train", examples(60, 0), "data.train was '64 .* and is '60 "),
        ("test", VALIDATION, "data.test was None and is '24 "),
        ("teacher", 30, "teacher was 'sha256 .* and is 'sha256 "),
        ("student", 25, "units was 24 and is 25"),
    ],
)
def test_another_run_does_not_go_on(name, value, difference, broken):
    models = {"teacher", "student"}
    given = {name: dense(value) if name in models else value}
    before = files_beside(broken)
    with pytest.raises(ValueError, match=difference) as caught:
        compressed(broken, resume=True, **given)
    assert "must go on as it began" in str(caught.value)
    assert files_beside(broken) == before


def test_another_run_is_not_returned_either(whole):
    with pytest.raises(ValueError, match="epochs was 4 and is 5"):
        compressed(whole[0], resume=True, epochs=5)


def test_a_run_in_progress_is_never_deleted_silently(broken):
    before = files_beside(broken)
    with pytest.raises(
        FileExistsError, match="no run that was broken off"
    ) as e:
        compressed(broken)
    assert "compress(..., resume=True)" in str(e.value)
    assert "overwrite=True" in str(e.value)
    assert "kddp compress" not in str(e.value)  # a call has begun it
    assert files_beside(broken) == before


def test_the_run_of_a_live_process_is_refused(broken):
    place = broken.with_name("run.unfinished")
    before = files_beside(broken)
    with holding(broken):
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(BlockingIOError, match="one writer at a time"):
                compressed(broken, **options)
    assert place.is_dir()
    assert files_beside(broken) == before


def test_a_damaged_record_is_refused(broken, tmp_path):
    shutil.copytree(broken.parent, tmp_path / "copy")
    record = tmp_path / "copy" / "run.unfinished" / "parts" / "run.json"
    deep = "[" * 100_000
    for text in ("{", "[]", deep, '{"follows_from": 1}', '{"version": 2}'):
        record.write_text(text)
        with pytest.raises(ValueError, match="record of"):
            compressed(tmp_path / "copy" / "run", resume=True)


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}])
def test_resume_and_overwrite_need_a_run_dir(options):
    with pytest.raises(ValueError, match="are for what is in a `run_dir`"):
        compressed(None, **options)


def test_overwrite_begins_anew(broken, tmp_path, monkeypatch):
    shutil.copytree(broken.parent, tmp_path / "copy")
    folder = tmp_path / "copy" / "run"
    parts = folder.with_name("run.unfinished") / "parts"
    assert list(parts.rglob("*.checkpoint"))
    moment = (trainings, "with_teacher", 1)
    Interruptions(monkeypatch, [moment])
    with pytest.raises(KeyboardInterrupt):
        compressed(folder, epochs=3, overwrite=True)
    assert json.loads((parts / "run.json").read_text())["overwrites"]
    assert not list(parts.rglob("*.checkpoint"))
    # It has trained nothing yet, so nothing is lost: another one may begin.
    Interruptions(monkeypatch, [moment])
    with pytest.raises(KeyboardInterrupt):
        compressed(folder, epochs=5)
    assert not json.loads((parts / "run.json").read_text())["overwrites"]


def test_a_run_that_fails_before_it_has_trained_leaves_nothing(
    tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise OSError("no room")

    monkeypatch.setattr(trainings, "with_teacher", fail)
    with pytest.raises(OSError, match="no room"):
        compressed(tmp_path / "run")
    assert [*tmp_path.iterdir()] == []


def test_a_run_that_fails_says_what_it_has_kept(broken, tmp_path, monkeypatch):
    shutil.copytree(broken.parent, tmp_path / "copy")

    def fail(*_, **__):
        raise OSError("no room")

    monkeypatch.setattr(stages._Ticks, "on_epoch_end", fail)
    with pytest.raises(OSError, match="no room") as caught:
        compressed(tmp_path / "copy" / "run", resume=True)
    (note,) = caught.value.__notes__
    place = tmp_path / "copy" / "run.unfinished"
    assert f"is kept in '{place}'" in note
    assert "compress(..., resume=True)" in note
    assert [*place.rglob("*.checkpoint")]


def test_a_run_of_the_command_is_not_that_of_a_call(broken, tmp_path):
    shutil.copytree(broken.parent, tmp_path / "copy")
    folder = tmp_path / "copy" / "run"
    record = former_record(folder)
    parts = folder.with_name("run.unfinished") / "parts"
    replace(record, job={"epochs": 4}).write(parts)
    with pytest.raises(ValueError, match="begun by kddp compress and is asked"):
        compressed(folder, resume=True)


def finished_beside_broken(whole, broken, tmp_path):
    """Returns copies of a finished run, and of what a broken-off one kept."""
    folder = tmp_path / "copy" / "run"
    shutil.copytree(whole[0], folder)
    place = folder.with_name("run.unfinished")
    shutil.copytree(broken.with_name("run.unfinished"), place)
    return folder, place


def test_a_run_that_ended_when_it_was_in_place_is_finished(
    whole, broken, tmp_path
):
    folder, place = finished_beside_broken(whole, broken, tmp_path)
    note_completion(place / "parts", folder)
    found = compressed(folder, resume=True)
    assert found.summary() == whole[1].summary()
    assert not place.exists()


def test_a_run_finished_without_resume_is_not_returned(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    shutil.rmtree(folder / "stages")
    with pytest.raises(FileExistsError, match="finished with resume=True"):
        compressed(folder, resume=True)


def test_adding_files_to_a_run_keeps_what_another_has_trained(
    whole, broken, tmp_path
):
    folder, place = finished_beside_broken(whole, broken, tmp_path)
    kept = [*place.rglob("*.checkpoint")]
    directory = RunDirectory.at(folder)
    with directory.changing(directory.read()) as copy:
        (copy.path / "student_float16.tflite").touch()
    assert (folder / "student_float16.tflite").is_file()
    assert [*place.rglob("*.checkpoint")] == kept
    assert sorted(x.name for x in place.iterdir()) == ["lock", "parts"]


def test_a_finished_run_without_its_trainings_is_refused(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    (checkpoint,) = (folder / "stages" / "pruned").iterdir()
    checkpoint.unlink()
    with pytest.raises(ValueError, match="a training that is finished"):
        compressed(folder, resume=True)
    assert [*(folder / "stages" / "pruned").iterdir()] == []


def test_parts_that_have_lost_their_record_are_not_deleted(broken, tmp_path):
    shutil.copytree(broken.parent, tmp_path / "copy")
    folder = tmp_path / "copy" / "run"
    parts = folder.with_name("run.unfinished") / "parts"
    (parts / "run.json").unlink()
    before = files_beside(folder)
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="or remove that folder"):
            compressed(folder, resume=resume)
    assert files_beside(folder) == before
