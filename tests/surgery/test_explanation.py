"""The table of what surgery can do to the layers of a model."""

import keras
import pytest
from helpers import float64
from small_models import (
    residual_model,
    small_model,
)

from keras_kddp.surgery import (
    SurgeryError,
    explain,
)

layers = keras.layers


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


def test_explain_shows_one_line_per_layer():
    assert explain(residual_model()).splitlines() == [
        "layer   units  removable  partners  why not",
        "first   3      3          second",
        "second  3      3          first",
        "inner   4      4",
        "head    2      0                    it is an output of the model",
    ]


def test_explain_names_the_operations_that_let_nothing_through():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(4, 3, name="conv"),
            layers.LayerNormalization(name="norm"),
            layers.Flatten(name="flatten"),
            layers.Dense(2, name="out"),
        ]
    )
    rows = [line.split(maxsplit=3) for line in explain(model).splitlines()]
    assert rows[2] == [
        "norm",
        "-",
        "-",
        "norm (LayerNormalization) normalizes over its channels, so that each "
        "depends on all",
    ]
    assert rows[3][0] == "out"


def test_a_distiller_is_answered_with_its_student():
    distiller = keras.distillation.Distiller(
        small_model(), small_model(), keras.distillation.LogitsDistillation()
    )
    with pytest.raises(SurgeryError, match="distiller.student"):
        explain(distiller)
