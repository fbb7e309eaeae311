"""The data of a run mean what they meant when it was made."""

import argparse
import json
import shutil

import keras
import numpy as np
import pytest
from small_datasets import arrays

from keras_kddp.cli import commands as cli
from keras_kddp.cli.run_data import load_run_data
from keras_kddp.compression import run_exports
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.compression.run_summary import (
    VERSION,
    RunSummary,
    read_summary,
)
from keras_kddp.data.datasets import load_dataset
from keras_kddp.export import TFMOTResult, to_tflite
from keras_kddp.export.tflite.artifact import artifact_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns a run directory of a version before, made with npz images."""
    directory = RunDirectory(tmp_path_factory.mktemp("run"))
    student = keras.Sequential(
        [
            keras.Input((4, 3, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    directory.write_student(student)
    to_tflite(student, directory.tflite_file("none"))
    np.savez(directory.path / "data.npz", **arrays())
    return directory


def write(run, version, **job):
    job = {"data": f"npz:{run.path / 'data.npz'}", **job}
    run.write_summary(
        RunSummary(version=version, input_range=(0.0, 1.0), job=job)
    )
    return job["data"]


@pytest.mark.parametrize("version", [0, 1])
def test_a_run_of_before_is_verified_on_its_scaled_images(version, run, capsys):
    data = write(run, version)
    assert cli.main(["verify", str(run.path)]) == 0
    shown = capsys.readouterr()
    assert "on 6 samples" in shown.out
    assert shown.err.splitlines() == [
        f"kddp: {data}: {note}"
        for note in (
            "read as the version read it that made the run",
            "uint8 images are divided by 255",
            "a channel axis is added, (height, width, 1)",
            "validation: the last 2 of 24 training examples",
        )
    ]


def test_data_that_a_command_names_have_the_meaning_of_now(run, capsys):
    data = write(run, 1)
    assert cli.main(["verify", str(run.path), "--data", data]) == 2
    assert "Add the channel axis" in capsys.readouterr().err


def test_a_run_of_now_has_the_data_of_now(run):
    data = write(run, VERSION)
    summary = run.read().summary
    given = argparse.Namespace(directory=str(run.path))
    assert load_run_data(given, summary).train.x.shape == (21, 4, 3)
    write(run, VERSION, data=f"{data},scale=255")
    scaled = load_run_data(given, run.read().summary)
    assert scaled.test.x.max() <= 1


@pytest.mark.parametrize("command", ["verify", "export", "bench"])
def test_a_run_of_a_newer_version_is_refused(command, run, capsys):
    write(run, VERSION + 1)
    assert cli.main([command, str(run.path)]) == 2
    assert "a newer keras-kddp wrote it" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [60.0, 1e4])
def test_a_student_tuned_for_int8_keeps_the_version_of_its_data(
    seconds, run, monkeypatch
):
    data = write(run, 1)
    found = run.read()
    given = {}

    def tune(student, train, path, **options):
        given.update(options)
        shutil.copyfile(found.files[0], path)
        artifact = artifact_of(path, student, "int8")
        return TFMOTResult(student, artifact, {}, {}, ({"loss": 1.0},))

    monkeypatch.setattr(run_exports, "finetune_with_tfmot", tune)
    loaded = load_dataset(data, as_before=True)

    with pytest.warns(UserWarning, match="the labels alone teach"):
        tuned = run_exports.write_quantization_aware(
            found, run, loaded, epochs=1, metadata={}, time_limit=seconds
        )

    assert tuned.tflite.path == run.path / "qat" / "student_int8.tflite"
    assert tuned.tflite.path.with_suffix(".json").is_file()

    assert given["time_limit"] == max(seconds, 600)
    summary = read_summary(run.quantization_aware.summary_file)
    assert summary.of_job("data") == data
    assert summary.reads_data_as_before


@pytest.mark.parametrize("command", ["verify", "export", "bench"])
def test_data_that_a_run_names_are_not_fetched(command, run, capsys):
    write(run, VERSION, data="tfds:community:set")
    assert cli.main([command, str(run.path)]) == 2
    assert "Received one that fetches code" in capsys.readouterr().err


def test_a_former_job_is_not_taken_for_one_of_now(run):
    write(run, 1)
    run.write_summary(run.read().summary)
    assert json.loads(run.summary_file.read_text())["version"] == 1
