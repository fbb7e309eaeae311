"""A configuration agrees with all that is made from it."""

import inspect
from dataclasses import fields, replace

import pytest

from keras_kddp import DynamicPruning, compress, export
from keras_kddp.compression.choices import QUANTIZATION_NAMES
from keras_kddp.compression.config import CompressionConfig, option_of
from keras_kddp.compression.training import Recipe
from keras_kddp.export.tflite.to_tflite import QUANTIZATIONS
from keras_kddp.pruning.budget.budget import Budget

CONFIG = CompressionConfig(
    teacher="t.keras", student="s", data="digits", out="runs", epochs=4
)

RECEIVERS = {"recipe": Recipe, "pruning": DynamicPruning, "budget": Budget}


def test_defaults_are_those_of_compress():
    parameters = inspect.signature(compress).parameters
    shared = {
        entry.name: entry.default
        for entry in fields(CompressionConfig)
        if entry.name in parameters and entry.name != "epochs"
    }
    # The command compares with two controls by default, the function with none.
    assert shared.pop("controls") == ("kd", "same_size")
    shared.pop("teacher"), shared.pop("student")
    assert set(shared) == {
        *("batch_size", "temperature", "student_loss_weight", "l1")
    }
    for name, default in shared.items():
        assert parameters[name].default == default, name


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_every_entry_goes_where_a_parameter_waits_for_it(receiver):
    parameters = inspect.signature(RECEIVERS[receiver]).parameters
    arguments = CONFIG.arguments_of(receiver)
    assert arguments
    assert set(arguments) <= set(parameters)


def test_receivers_are_known():
    found = {option_of(entry) for entry in fields(CompressionConfig)} - {None}
    receivers = {option.goes_to for option in found} - {None}
    assert receivers == set(RECEIVERS)


def test_a_run_of_one_seed_says_which():
    config = replace(CONFIG, seeds=(3, 5))
    assert config.of_seed(5).as_dict()["seeds"] == [5]
    assert config.seeds == (3, 5)


def test_every_quantization_has_a_file_name():
    assert tuple(QUANTIZATION_NAMES) == QUANTIZATIONS
    assert len(set(QUANTIZATION_NAMES.values())) == len(QUANTIZATIONS)
    assert export.to_tflite.__kwdefaults__["quantization"] in QUANTIZATION_NAMES
