"""What every real writer leaves at each of its writes, and on a full disk.

`test_interrupted.py` walks the same states with folders of
a few bytes, in every test run.
"""

import hashlib
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from interrupted import full, snapshots, states, watched_exchange

import keras_kddp as kddp
from keras_kddp.atomic_files import recovered
from keras_kddp.atomic_files.ownership import strangers
from keras_kddp.cli import commands as cli
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.export import to_microcontroller, to_saved_model

# What these short runs learn is of no interest.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

X = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
Y = X[:, :3].argmax(axis=-1)


def dense(units, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(units, "relu", name="hidden"),
            keras.layers.Dense(3, name="logits"),
        ]
    )


TEACHER = dense(16)


@pytest.fixture(autouse=True)
def _watched(monkeypatch):
    watched_exchange(monkeypatch)


def compress(folder, seed, **options):
    return kddp.compress(
        TEACHER,
        dense(12, seed),
        (X, Y),
        (X, Y),
        epochs=4,
        l1=1.0,
        pruning=kddp.DynamicPruning(threshold=0.3),
        seed=seed,
        run_dir=folder,
        **options,
    )


def sums(folder):
    """Returns the sum of every file in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def is_old_or_new(copies, name, old, new):
    """Checks each copy of a folder's place; returns how many were old."""
    found = []
    for copy in copies:
        folder = recovered(copy / name)
        content = sums(folder) if folder.is_dir() else None
        assert content in (old, new), (copy, content)
        found.append(content)
    assert found[-1] == new
    switched = found.index(new)
    assert found == [old] * switched + [new] * (len(found) - switched)
    return switched


def test_every_state_of_a_second_run_reads_as_the_first_or_the_second(
    tmp_path,
):
    place = tmp_path / "place"
    compress(place / "run", 0)
    old = sums(place / "run")
    with snapshots(place, tmp_path / "copies") as copies:
        found = compress(place / "run", 1, overwrite=True)
    new = sums(place / "run")

    assert is_old_or_new(copies, "run", old, new) > 30
    assert names(place) == ["run"]
    for copy in copies:
        run = RunDirectory(copy / "run").read()
        (int8,) = [file for file in run.files if "int8" in file.name]
        assert run.summary.tflite_int8_bytes == int8.stat().st_size
        assert run.summary.units_after == run.student.get_layer("hidden").units
        assert strangers(copy / "run", "run") == []
    for copy in (copies[0], copies[len(copies) // 2], copies[-2]):
        again = RunDirectory(copy / "run")
        with again.writing(overwrite=True) as run:
            run.directory.write_student(found.student)
        assert names(copy) == ["run"]


@pytest.mark.parametrize("format", ["saved_model", "tflite", "micro"])
def test_every_state_of_an_export_is_the_run_before_or_after(format, tmp_path):
    place = tmp_path / "place"
    np.savez(tmp_path / "data.npz", x_train=X, y_train=Y, x_test=X, y_test=Y)
    compress(place / "run", 0)
    old = sums(place / "run")
    words = ["export", str(place / "run"), "--format", format]
    if format != "saved_model":
        words += ["--data", f"npz:{tmp_path / 'data.npz'}"]
    with snapshots(place, tmp_path / "copies") as copies:
        assert cli.main(words) == 0
    new = sums(place / "run")

    assert is_old_or_new(copies, "run", old, new) > 10
    for copy in copies:
        RunDirectory(copy / "run").read()
        if (copy / "run" / "saved_model").exists():
            tf.saved_model.load(str(copy / "run" / "saved_model"))


def test_every_state_of_a_saved_model_can_be_loaded(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    to_saved_model(dense(12), place / "m")
    old = sums(place / "m")
    with snapshots(place, tmp_path / "copies") as copies:
        to_saved_model(dense(12), place / "m", features="hidden")

    switched = is_old_or_new(copies, "m", old, sums(place / "m"))
    for index, copy in enumerate(copies):
        output = tf.saved_model.load(str(copy / "m"))(X)
        assert output.shape == (60, 3 if index < switched else 12)


def test_every_state_of_a_bundle_is_the_old_or_the_new_one(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    to_microcontroller(dense(12), place / "m", X)
    old = sums(place / "m")
    with snapshots(place, tmp_path / "copies") as copies:
        to_microcontroller(dense(8), place / "m", X, name="smaller")

    assert is_old_or_new(copies, "m", old, sums(place / "m")) > 20


def test_every_state_of_a_cache_is_none_or_the_complete_one(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with snapshots(place, tmp_path / "copies") as copies:
        kddp.TeacherCache(TEACHER, X, path=place / "cache")
    new = sums(place / "cache")

    assert is_old_or_new(copies, "cache", None, new) > 10
    for copy in copies:
        kddp.TeacherCache(TEACHER, X, path=copy / "cache")
        assert sums(copy / "cache") == new


WRITERS = {
    "saved_model": lambda folder: to_saved_model(dense(12), folder),
    "bundle": lambda folder: to_microcontroller(dense(12), folder, X),
    "cache": lambda folder: kddp.TeacherCache(TEACHER, X, path=folder),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_fills_at_any_stage_leaves_what_was_there(kind, tmp_path):
    place, write = tmp_path / "place", WRITERS[kind]
    place.mkdir()
    if kind != "cache":  # which is not written over
        write(place / "m")
    old = sums(place)
    count = 0
    for _ in states(place, lambda: write(place / "m"), stop=full):
        assert sums(place) == old
        count += 1

    assert count >= 5
    assert names(place) == ["m"]


def test_a_disk_that_fills_while_a_run_is_written_leaves_the_old(tmp_path):
    place = tmp_path / "place"
    compress(place / "run", 0)
    old = sums(place / "run")
    for number in (1, 2, 4, 8, 16):
        with full(place, number):
            with pytest.raises(OSError, match="must have room for"):
                compress(place / "run", 1, overwrite=True)
        assert sums(place / "run") == old


def test_of_two_commands_into_one_folder_one_is_refused(tmp_path):
    command = [
        *(sys.executable, "-m", "keras_kddp.cli", "compress"),
        *("--data", "digits", "--teacher", "digits_teacher"),
        *("--student", "digits_student", "--epochs", "20"),
        *("--teacher-epochs", "3", "--controls", "--out", "run"),
    ]
    started = [
        subprocess.Popen(
            [*command, "--seed", str(seed)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (0, 1)
    ]
    errors = [each.communicate()[1] for each in started]

    codes = [each.returncode for each in started]
    assert sorted(codes) == [0, 2], errors
    refused = errors[codes.index(2)].splitlines()[-1]
    assert "must have one writer at a time" in refused
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["seed"] == codes.index(0)
    assert strangers(tmp_path / "run", "run") == []
    assert names(tmp_path) == ["run"]
