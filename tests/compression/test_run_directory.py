"""A run directory: its names, its summary, what is read and cleared."""

import json
import os

import keras
import pytest

from keras_kddp.compression.choices import CONTROLS
from keras_kddp.compression.config import CompressionConfig
from keras_kddp.compression.run_directory import RunDirectory, bytes_of_run
from keras_kddp.compression.run_summary import (
    CONTROL_ENTRIES,
    VERSION,
    RunSummary,
    read_summary,
)
from keras_kddp.models import digits_student

# What the code before summaries had a version wrote, shortened.
FORMER = {
    "teacher_accuracy": 0.97,
    "kd_accuracy": 0.95,
    "kddp_accuracy": 0.94,
    "int8_accuracy": 0.93,
    "int8_agreement": 0.99,
    "tflite_float32_bytes": 9000,
    "tflite_int8_bytes": 4000,
    "arena_bytes": None,
    "units_before": 128,
    "units_after": 20,
    "split_sizes": {"train": 10, "validation": 2},
    "seed": 0,
    "seconds": 1.5,
    "input_range": [0.0, 1.0],
    "job": {"data": "digits", "student": "digits_student"},
    "an_entry_of_later": {"x": 1},
}


def test_names_are_those_of_every_run(tmp_path):
    run = RunDirectory.at(str(tmp_path))
    names = {
        run.student_file: "student.keras",
        run.teacher_file: "teacher.keras",
        run.before_file: "before.keras",
        run.summary_file: "summary.json",
        run.removals_file: "removals.json",
        run.tflite_file("none"): "student_float32.tflite",
        run.tflite_file("int4"): "student_int4.tflite",
        run.bundle(): "micro",
        run.bundle("none"): "micro_float32",
        run.bundle("int16x8"): "micro_int16x8",
        run.saved_model(): "saved_model",
        run.saved_model("hidden"): "features",
        run.quantization_aware.path: "qat",
        run.of_seed(3).path: "seed-3",
    }
    for path, name in names.items():
        assert path == tmp_path / name


def test_a_summary_of_before_is_read(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(FORMER))
    summary = read_summary(path)
    assert summary.version == 0
    assert summary.kddp_accuracy == 0.94
    assert summary.macs_after is None
    assert summary.input_range == (0.0, 1.0)
    assert summary.of_job("data") == "digits"
    assert summary.of_job("temperature", 4.0) == 4.0


@pytest.mark.parametrize(
    ("version", "is_before"), [(0, True), (1, True), (2, False)]
)
def test_data_of_former_versions_keep_their_meaning(version, is_before):
    assert RunSummary(version=version).reads_data_as_before is is_before


def test_a_configuration_is_added_and_the_rest_stays(tmp_path):
    run = RunDirectory(tmp_path)
    run.summary_file.write_text(json.dumps(FORMER))
    config = CompressionConfig(
        teacher="t", student="s", data="d", out="o", epochs=3
    )
    run.write_configuration(config, ["inputs are divided by 2"])
    found = json.loads(run.summary_file.read_text())
    job = found.pop("job")
    assert found.pop("data_notes") == ["inputs are divided by 2"]
    assert (job["data"], job["epochs"], job["seeds"]) == ("d", 3, [0])
    assert found.pop("version") == 0
    assert found == {n: x for n, x in FORMER.items() if n != "job"}


def test_a_summary_is_flat_and_leaves_out_what_there_is_not():
    assert RunSummary(seed=3).as_dict() == {"version": VERSION, "seed": 3}
    measured = RunSummary(tflite_int8_bytes=10).as_dict()
    assert measured["arena_bytes"] is None


def test_every_control_has_an_entry():
    assert list(CONTROL_ENTRIES) == list(CONTROLS)
    assert set(CONTROL_ENTRIES.values()) < set(RunSummary.__annotations__)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("3", "must be the summary of a run, a JSON object. Received: 3"),
        ('{"version": "1"}', "must be the summary of a run"),
        (
            f'{{"version": {VERSION + 1}, "job": 3}}',
            f"of version {VERSION} or below. Received version {VERSION + 1}: a "
            "newer keras-kddp wrote it",
        ),
        ('{"job": {"data": 1}}', "must be the summary of a run"),
        ('{"input_range": [0, "1"]}', "must be the summary of a run"),
        ('{"input_range": [0, 1, 2]}', "Received: input_range="),
        ('{"input_range": [0, NaN]}', "Received: input_range="),
        ('{"kddp_accuracy": NaN}', "Received: kddp_accuracy=nan"),
        ('{"kddp_accuracy": Infinity}', "Received: kddp_accuracy=inf"),
        ('{"kddp_accuracy": "0.9"}', "Received: kddp_accuracy='0.9'"),
        ('{"kddp_accuracy": true}', "Received: kddp_accuracy=True"),
        ('{"seed": -1}', "Received: seed=-1"),
        ('{"units_after": 1.5}', "Received: units_after=1.5"),
        ('{"split_sizes": [3]}', "Received: split_sizes="),
        ('{"split_sizes": {"test": "3"}}', "Received: split_sizes="),
        ('{"verdicts": "better"}', "Received: verdicts='better'"),
        ('{"history": {"loss": 1}}', "Received: history="),
        ('{"teacher_sha256": 1}', "Received: teacher_sha256=1"),
        ('{"job": [1]}', "Received: job="),
        ('{"job": {"student": null}}', "Received: job: student=None"),
        ('{"job": {"teacher": 3}}', "Received: job: teacher=3"),
        ('{"job": {"data": "npz:a\\u0000"}}', "Received: job: data="),
        ('{"job": {"temperature": "4"}}', "Received: job: temperature='4'"),
        ('{"job": {"batch_size": 1e400}}', "Received: job: batch_size=inf"),
        ('{"job": {"seeds": [0, "1"]}}', "Received: job: seeds="),
        ('{"job": {"layers": "hidden"}}', "Received: job: layers='hidden'"),
    ],
)
def test_what_is_no_summary_is_refused(text, message, tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_summary(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{{"seed": 1{"0" * 400}}}', "Received: seed=10000"),
        (f'{{"seed": 1{"0" * 5000}}}', "must be JSON. Received: Exceeds"),
        (f'{{"version": 1{"0" * 400}}}', "Received version 10000"),
        ("[" * 100_000, "must be JSON. Received: maximum recursion"),
        (" " * (2**22 + 1), "must be JSON of at most 4,194,304 bytes"),
    ],
    ids=["large", "digits", "version", "deep", "long"],
)
def test_a_summary_that_is_too_much_is_refused(text, message, tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_summary(path)


def test_a_pipe_is_no_summary(tmp_path):
    os.mkfifo(tmp_path / "summary.json")
    with pytest.raises(OSError, match="must be a file. Received a folder, a p"):
        read_summary(tmp_path / "summary.json")


def test_a_directory_without_files_is_no_run(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_student(digits_student(4))
    run.write_summary(RunSummary())
    with pytest.raises(FileNotFoundError, match="and .tflite files"):
        run.read()
    run.tflite_file("int8").write_bytes(b"TFL3")
    found = run.read()
    assert isinstance(found.student, keras.Model)
    assert found.files == [run.tflite_file("int8")]
    assert found.summary == RunSummary()


def test_a_run_that_has_not_ended_is_named(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with RunDirectory.at(tmp_path / "run").writing(overwrite=False) as run:
            (run.parts / "teacher.keras").touch()
            raise KeyboardInterrupt

    with pytest.raises(FileNotFoundError, match="its parts in '.*run.unfinish"):
        RunDirectory.at(tmp_path / "run").read()


def test_a_run_that_is_being_made_is_named(tmp_path):
    run = RunDirectory.at(tmp_path / "run")
    with run.writing(overwrite=False) as new:
        (new.parts / "teacher.keras").touch()
        with pytest.raises(FileNotFoundError, match="wait for its end"):
            run.read()


def test_a_run_is_there_once_it_is_finished(tmp_path):
    run = RunDirectory.at(tmp_path / "run")
    run.check_target(overwrite=False)
    with run.writing(overwrite=False) as new:
        assert new.directory.final_path == run.path
        assert new.directory.of_seed(1).final_path == run.path / "seed-1"
        new.directory.of_seed(1).path.mkdir()
        new.directory.of_seed(1).write_summary(RunSummary())
        new.directory.of_seed(1).seal()
        assert not run.path.exists()

    assert run.of_seed(1).summary_file.is_file()
    with pytest.raises(ValueError, match="holds a run directory already"):
        run.check_target(overwrite=False)
    run.check_target(overwrite=True)


def test_the_room_that_a_run_takes_follows_from_its_weights():
    student = digits_student(4)
    weights = 64 * 4 + 4 + 4 * 10 + 10
    assert bytes_of_run(student) == 17 * weights
    assert bytes_of_run(student, student) == (17 + 4) * weights
