"""Compressions of students that nobody teaches, or that teach themselves."""

import functools
import json

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from compared_runs import assert_same_model, assert_same_run
from compiled_runs import compiled_with
from rich.console import Console

import keras_kddp as kddp
from keras_kddp.compression import conclusion, stages
from keras_kddp.compression.comparison_table import comparison_table
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.compression.run_exports import write_saved_model
from keras_kddp.compression.run_teacher import run_teacher, teacher_sha256
from keras_kddp.distillation.checkpoints import resumable


def examples(count, seed):
    """Returns inputs whose largest number says the class."""
    x = np.random.default_rng(seed).normal(size=(count, 6)).astype("float32")
    return x, x[:, :3].argmax(axis=-1)


TRAIN, VALIDATION, TEST = examples(96, 0), examples(24, 1), examples(48, 2)


def dense():
    keras.utils.set_random_seed(8)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(24, "relu", name="hidden"),
            keras.layers.Dropout(0.1, seed=3, name="dropout"),
            keras.layers.Dense(3, name="logits"),
        ],
        name="mlp",
    )


def compressed(teacher, run_dir=None, **options):
    """Returns a short compression that removes something."""
    keras.backend.clear_session()  # names count from 1, as in a new process
    settings = {
        "test": TEST,
        "epochs": 4,
        "batch_size": 24,
        "optimizer": keras.optimizers.Adam(0.05),
        "l1": 1.0,
        "pruning": kddp.DynamicPruning(threshold=0.3),
        "student_loss_weight": 1.0 if teacher is None else 0.1,
        "run_dir": run_dir,
        **options,
    }
    student = dense()
    if teacher == "self":  # of one that is prepared, a plain copy teaches
        student = kddp.prepare(student, layers=["hidden"])
    return kddp.compress(teacher, student, TRAIN, VALIDATION, **settings)


@pytest.fixture(scope="module", autouse=True)
def eagerly():
    """Has models train without traces, which take longer than a short run."""
    with (
        compiled_with(run_eagerly=True),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(resumable, "SECONDS_BETWEEN", 0.0)
        yield


CONTROLS = {
    None: ["kd", "same_size"],
    "self": ["kd"],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns runs that nothing has broken off, with their compressions."""
    found = {}
    for teacher, controls in CONTROLS.items():
        folder = tmp_path_factory.mktemp("whole") / "run"
        found[teacher] = (
            folder,
            compressed(teacher, folder, controls=controls, resume=True),
        )
    return found


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text("utf-8"))


def table_of(*found):
    console = Console(width=100)
    with console.capture() as shown:
        console.print(comparison_table("accuracy", found))
    return shown.get()


# Nobody teaches.


def test_labels_alone_teach_a_student_that_is_pruned(whole):
    folder, found = whole[None]
    assert found.removals
    assert found.result.units < found.units_before == 24
    assert found.history["distillation_loss"] == [0.0] * 4
    assert found.controls["kd"].accuracy > 0.8
    assert list(found.controls) == CONTROLS[None]
    assert found.controls["kd"].units == 24
    assert found.controls["same_size"].units == found.result.units
    assert found.teacher_answers is found.teacher_accuracy is None
    assert found.teacher_sha256 is None
    assert found.taught_by == "labels"
    summary = summary_of(folder)
    assert summary["taught_by"] == "labels"
    assert not {"teacher_accuracy", "teacher_sha256"} & set(summary)
    assert summary["kd_accuracy"] == found.controls["kd"].accuracy
    assert not (folder / "teacher.keras").exists()


def test_no_row_and_no_sentence_tells_of_a_teacher_that_is_not_there(whole):
    _, found = whole[None]
    assert "teacher" not in table_of(found)
    assert "student, dynamic pruning" in table_of(found)
    assert not any("eacher" in sentence for sentence in found.verdicts)


def test_without_a_teacher_the_same_size_is_that_of_labels_alone(whole):
    """So they are not trained both."""
    _, found = whole[None]
    with_labels = compressed(None, controls=["same_size_labels"])
    one = found.controls["same_size"].model
    other = with_labels.controls["same_size_labels"].model
    for mine, yours in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-4, atol=1e-6)


def test_a_student_without_a_penalty_is_what_a_budget_counts_from():
    found = compressed(
        None, budget=kddp.Budget(max_accuracy_drop=0.5), controls=["kd"]
    )
    assert found.result.units < 24
    assert found.taught_by == "labels"


def test_a_card_tells_that_labels_alone_taught(whole, tmp_path):
    card = card_of(whole[None][0])
    assert card["description"].startswith("A compact student of labels alone,")
    assert "teacher" not in " ".join(card["accuracy"])
    assert (
        run_teacher(RunDirectory(tmp_path), run_of(whole[None][0])[1]) is None
    )


def run_of(folder):
    directory = RunDirectory.at(folder)
    return directory, directory.read().summary


def card_of(folder):
    """Returns the card of a SavedModel of a run, and leaves none."""
    directory = RunDirectory.at(folder)
    kept = {}

    def write(student, target, *, features, card):
        kept.update(card)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "keras_kddp.compression.run_exports.to_saved_model", write
        )
        write_saved_model(directory.read(), directory)
    return kept


# The student teaches itself.


def test_the_student_is_trained_on_the_labels_and_teaches_then(whole):
    folder, found = whole["self"]
    assert found.removals
    assert found.taught_by == summary_of(folder)["taught_by"] == "self"
    teacher = keras.models.load_model(folder / "teacher.keras")
    assert teacher.get_layer("hidden").units == 24
    names = [layer.name for layer in teacher.layers]
    assert names == ["hidden", "dropout", "logits"]
    hits = teacher.predict(TEST[0], verbose=0).argmax(axis=1) == TEST[1]
    assert found.teacher_accuracy == hits.mean()
    assert summary_of(folder)["teacher_accuracy"] == hits.mean()
    assert max(found.history["distillation_loss"]) > 0
    # All runs start where the student starts.
    assert_same_weights(found.start, dense())


def assert_same_weights(one, other):
    for mine, yours in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(mine, yours)


def test_the_file_of_the_teacher_holds_neither_loss_nor_optimizer(tmp_path):
    """A loss need not be one that Keras can write."""
    loss = functools.partial(CROSSENTROPY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conclusion, "write_run", lambda found, *_: found)
        compressed("self", tmp_path / "run", loss=loss)
    teacher = keras.models.load_model(tmp_path / "run" / "teacher.keras")
    assert not teacher.compiled


def test_the_teacher_is_the_student_that_learns_from_labels_alone(whole):
    """It is the control `kd` of a run without a teacher."""
    teacher = keras.models.load_model(whole["self"][0] / "teacher.keras")
    unpruned = whole[None][1].controls["kd"].model
    for mine, yours in zip(teacher.weights, unpruned.weights, strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-4, atol=1e-6)


def test_the_table_says_that_the_teacher_is_the_student(whole):
    _, found = whole["self"]
    (row,) = [x for x in table_of(found).splitlines() if "teacher:" in x]
    assert "teacher: the student itself" in row
    assert f"{found.teacher_accuracy:.2%}" in row
    both = table_of(found, found)
    assert f"{found.teacher_accuracy:.2%}"[:-1] + " " in both  # of each seed


def test_the_teacher_of_the_run_is_found_for_what_follows(whole):
    folder, found = whole["self"]
    teacher = run_teacher(*run_of(folder))
    assert teacher_sha256(teacher) == found.teacher_sha256
    card = card_of(folder)
    assert card["description"].startswith("A compact student of itself as it ")
    share = f"{found.teacher_accuracy:.2%}"
    assert card["accuracy"]["teacher, the student itself"] == share


def test_a_student_near_chance_that_is_to_teach_is_told_first():
    still = keras.optimizers.SGD(0.0)
    with pytest.warns(UserWarning, match="student itself, is near chance"):
        with pytest.warns(UserWarning, match="Nothing was removed"):
            compressed(
                "self",
                optimizer=still,
                pruning=kddp.DynamicPruning(threshold=0.0),
            )


def test_a_student_that_loses_its_loss_does_not_teach():
    with pytest.raises(RuntimeError, match="of the teacher: nothing can be ma"):
        compressed("self", optimizer=keras.optimizers.SGD(1e30))


# Runs that are broken off.


@pytest.mark.parametrize(
    ("teacher", "ends"), [(None, [3]), ("self", [3, 6])], ids=["none", "self"]
)
def test_a_run_that_is_broken_off_goes_on(
    teacher, ends, whole, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    options = {"controls": CONTROLS[teacher], "resume": True}
    for end in ends:  # epochs of this start: in the first, the second training
        with monkeypatch.context() as patch:
            epochs = iter(range(end))
            patch.setattr(
                stages._Ticks,
                "on_epoch_end",
                lambda *_, left=epochs, **__: next(left),
            )
            with pytest.raises((StopIteration, RuntimeError)):
                compressed(teacher, folder, **options)
        parts = folder.with_name("run.unfinished") / "parts"
        assert (parts / "run.json").is_file()
        assert (parts / "teacher").is_dir() == (teacher == "self")
    found = compressed(teacher, folder, **options)
    expected, run = whole[teacher][1], whole[teacher][0]
    assert found.history == expected.history
    assert found.removals == expected.removals
    assert_same_run(folder, run)
    if teacher == "self":
        assert_same_model(folder / "teacher.keras", run / "teacher.keras")


@pytest.mark.parametrize("teacher", CONTROLS, ids=["none", "self"])
def test_a_finished_run_is_returned(teacher, whole, monkeypatch):
    folder, expected = whole[teacher]
    before = {x: x.stat().st_mtime_ns for x in folder.rglob("*")}
    monkeypatch.setattr(keras.Model, "fit", None)
    found = compressed(teacher, folder, controls=CONTROLS[teacher], resume=True)
    assert {x: x.stat().st_mtime_ns for x in folder.rglob("*")} == before
    assert found.summary() == expected.summary()


def test_another_teacher_does_not_go_on(whole):
    with pytest.raises(ValueError, match="teacher was 'self' and is 'none'"):
        compressed(
            None, whole["self"][0], controls=CONTROLS["self"], resume=True
        )
    with pytest.raises(ValueError, match="teacher was 'none' and is 'self'"):
        compressed("self", whole[None][0], controls=CONTROLS[None], resume=True)
