"""The code that a run names, whose layers its models have."""

import json
import sys
from argparse import Namespace

import keras
import pytest

from keras_kddp.cli.run_data import knowing_its_code
from keras_kddp.compression.model_sources import load_model, model_file

CODE = """
import keras

class Doubling(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def twice(x):
    return 2 * x

def student():
    return keras.Sequential([
        keras.Input((4,)),
        Doubling(),
        keras.layers.Lambda(twice, output_shape=(4,)),
        keras.layers.Dense(3, "relu"),
    ])
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Returns a run whose student has layers that no one has registered."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code_of_run.py").write_text(CODE)
    load_model("code_of_run:student").save(tmp_path / "student.keras")
    sys.modules.pop("code_of_run")
    job = {"student": "code_of_run:student", "teacher": "digits_teacher"}
    (tmp_path / "summary.json").write_text(json.dumps({"job": job}))
    yield tmp_path
    sys.modules.pop("code_of_run", None)


@knowing_its_code
def reading(given):
    """A command that reads the student of a run."""
    assert model_file(given.directory / "student.keras").layers
    return 0


def test_code_is_known_only_where_it_is_trusted(run):
    with pytest.raises(ValueError, match="that Keras can load") as refused:
        reading(Namespace(directory=run))
    assert "'code_of_run:student': give --trust" in refused.value.__notes__[0]
    assert "code_of_run" not in sys.modules

    assert reading(Namespace(directory=run, trust_code=True)) == 0
    assert keras.saving.get_custom_objects().get("Doubling") is None


def test_code_that_is_not_there_is_named_where_it_is_needed(run):
    given = Namespace(directory=run, trust_code=True)
    (run / "code_of_run.py").unlink()
    with pytest.raises(ValueError, match="that Keras can load") as refused:
        reading(given)
    assert "'code_of_run' must be a module" in refused.value.__notes__[0]

    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    plain.save(run / "student.keras")
    assert reading(given) == 0


def test_a_lambda_in_a_file_is_not_said_to_need_unsafe_loading(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x)]
    )
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="Register a named func") as refused:
        model_file(tmp_path / "model.keras")
    assert "safe_mode=False" not in str(refused.value)
