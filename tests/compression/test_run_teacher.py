"""A run goes on under its own teacher, or not at all."""

import shutil

import keras
import pytest

from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.compression.run_summary import RunSummary
from keras_kddp.compression.run_teacher import run_teacher, teacher_sha256


def make_teacher(seed):
    """Returns a teacher whose weights follow from a seed."""
    initializer = keras.initializers.GlorotUniform(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, kernel_initializer=initializer),
        ]
    )


TEACHER, OTHER = make_teacher(1), make_teacher(2)
SUMMARY = RunSummary(teacher_sha256=teacher_sha256(TEACHER))


def test_the_teacher_is_found_where_it_may_stand(tmp_path):
    run = RunDirectory(tmp_path / "seed-0")
    run.path.mkdir()
    with pytest.warns(UserWarning, match="the labels alone teach"):
        assert run_teacher(run, SUMMARY) is None
    TEACHER.save(tmp_path / "named.keras")
    named = RunSummary(
        teacher_sha256=SUMMARY.teacher_sha256,
        job={"teacher": str(tmp_path / "named.keras")},
    )
    assert teacher_sha256(run_teacher(run, named)) == SUMMARY.teacher_sha256
    for place in (tmp_path, run.path):
        TEACHER.save(place / "teacher.keras")
        found = run_teacher(run, SUMMARY)
        assert teacher_sha256(found) == SUMMARY.teacher_sha256
        (place / "teacher.keras").unlink()


def test_where_labels_alone_taught_there_is_no_teacher_to_warn_of(tmp_path):
    run = RunDirectory(tmp_path)
    assert run_teacher(run, RunSummary(taught_by="labels")) is None


def test_another_model_is_refused_where_the_teacher_stood(tmp_path):
    run = RunDirectory(tmp_path)
    OTHER.save(run.teacher_file)
    with pytest.raises(ValueError, match="the one that the run learned from"):
        run_teacher(run, SUMMARY)
    # The file that the run names is its teacher all the same.
    TEACHER.save(tmp_path / "named.keras")
    summary = RunSummary(
        teacher_sha256=SUMMARY.teacher_sha256,
        job={"teacher": str(tmp_path / "named.keras")},
    )
    assert run_teacher(run, summary) is not None


def test_of_a_run_of_before_only_its_own_file_is_taken(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    TEACHER.save(tmp_path / "teacher.keras")
    before = RunSummary(job={"teacher": str(tmp_path / "teacher.keras")})
    with pytest.raises(ValueError, match="cannot be checked. If it is the one"):
        run_teacher(run, before)
    shutil.copy(tmp_path / "teacher.keras", run.teacher_file)
    with pytest.warns(UserWarning, match="without the SHA-256 to check it by"):
        assert run_teacher(run, before) is not None
