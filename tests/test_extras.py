"""What is missing says what it is for and what brings it."""

import re
import tomllib
from pathlib import Path

import pytest

from keras_kddp import extras
from keras_kddp.data.datasets import load_dataset
from keras_kddp.export import (
    estimate_on_ethos_u,
    finetune_with_tfmot,
    from_tf_keras,
    to_microcontroller,
    to_tf_keras,
    to_tflite,
)
from keras_kddp.models import fashion_mlp_student

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


@pytest.fixture
def nothing_extra(monkeypatch):
    """Hides all modules that only extras bring."""
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda _: None)


def test_what_is_there_is_not_absent():
    assert extras.absence_of() is None
    assert extras.absence_of("tf_keras") is None
    extras.require("Files are read by", "tf_keras", None)


def test_absence_names_each_extra_once(nothing_extra):
    found = extras.absence_of("tf_keras", "ethosu", "importlib_resources")
    assert found.startswith("pip install -e '.[data,tfmot,vela]' in the clone")

    modules = "tensorflow_model_optimization", "tf_keras"
    assert extras.absence_of(*modules).startswith("pip install -e '.[tfmot]'")


def test_each_module_is_in_the_extra_that_is_said_to_bring_it():
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    for module, extra in extras._EXTRAS.items():
        known = [
            re.split(r"[<>=\[]", entry)[0].lower().replace("-", "_")
            for entry in project["optional-dependencies"][extra]
        ]
        assert {"ethosu": "ethos_u_vela"}.get(module, module) in known


STUDENT = fashion_mlp_student(2)


@pytest.mark.parametrize(
    ("call", "purpose", "extra"),
    [
        (
            lambda path: to_tflite(STUDENT, path, quantization="int4"),
            'quantization="int4" is made by ai-edge-quantizer, which',
            "int4",
        ),
        (
            lambda path: to_microcontroller(STUDENT, path, None),
            "Before a bundle is written it is run on TFLM, which",
            "micro",
        ),
        (
            lambda path: to_tf_keras(STUDENT, path.with_suffix(".h5")),
            "Models of Keras 2 are read and written by tf_keras, which",
            "tfmot",
        ),
        (
            lambda path: from_tf_keras(path.parent),
            "Models of Keras 2 are read and written by tf_keras, which",
            "tfmot",
        ),
        (
            lambda path: finetune_with_tfmot(STUDENT, None, path),
            "Students are fine-tuned in tf_keras by "
            "tensorflow_model_optimization, which",
            "tfmot",
        ),
        (
            estimate_on_ethos_u,
            "Ethos-U is estimated by Arm's Vela, which",
            "vela",
        ),
        (
            lambda _: load_dataset("tfds:mnist"),
            "tfds: is read by tensorflow-datasets with importlib_resources, "
            "which",
            "data",
        ),
    ],
    ids=["int4", "micro", "to_keras2", "of_keras2", "tfmot", "vela", "tfds"],
)
def test_an_extra_that_is_missing_is_one_sentence(
    call, purpose, extra, tmp_path, nothing_extra
):
    with pytest.raises(ImportError) as caught:
        call(tmp_path / "student.tflite")

    assert str(caught.value) == (
        f"{purpose} is not here: pip install -e '.[{extra}]' in the clone of "
        "keras-kddp."
    )
    assert not any(tmp_path.iterdir())
