"""What version 0.1.0 wrote before it had packages is still read.

`written_before/` holds a run directory of `kddp compress` on digits, and a
compiled Distiller (feature hints, a penalized Dense layer, one removal) with
what it computes and the losses of two further epochs.
"""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_kddp as kddp
from keras_kddp.cli import main

BEFORE = Path(__file__).with_name("written_before")


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(BEFORE / "run", tmp_path / "run"))


def test_a_run_directory_of_before_verifies(run, capsys):
    assert main(["verify", str(run)]) == 0

    shown = capsys.readouterr().out
    assert "student_int8.tflite" in shown
    assert shown.count("passed") >= 2


def test_a_run_directory_of_before_is_exported(run, capsys):
    assert main(["export", str(run), "--quantization", "dynamic"]) == 0

    assert (run / "student_dynamic.tflite").is_file()
    assert "passed" in capsys.readouterr().out


def test_a_distiller_of_before_trains_on():
    expected = np.load(BEFORE / "distiller.npz")

    distiller = keras.saving.load_model(BEFORE / "distiller.keras")

    assert isinstance(distiller, kddp.Distiller)
    np.testing.assert_allclose(
        distiller.predict(expected["x"], verbose=0),
        expected["outputs"],
        atol=1e-5,
    )
    history = distiller.fit(
        expected["x"],
        expected["y"],
        epochs=2,
        batch_size=16,
        shuffle=False,
        verbose=0,
    )
    np.testing.assert_allclose(
        history.history["loss"], expected["losses"], rtol=1e-4
    )
