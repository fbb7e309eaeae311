"""Every layer of Keras is followed, or blocks and says why."""

import inspect
from pathlib import Path

import keras
import pytest

from keras_kddp.surgery.explanation import coverage_table
from keras_kddp.surgery.registry import BlockingRule, register_rule, rules

DOCUMENT = Path(__file__).parents[2] / "docs" / "surgery.md"


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, value in inspect.getmembers(keras.layers, inspect.isclass)
        if issubclass(value, keras.layers.Layer)
        and value is not keras.layers.Layer
    ],
)
def test_every_layer_of_keras_has_a_rule_or_a_reason(name):
    rule = rules()[getattr(keras.layers, name)]
    text = rule.reason if isinstance(rule, BlockingRule) else rule.__doc__
    assert text.strip()


def test_every_operation_with_a_rule_exists():
    operations = {
        name
        for module in ("numpy", "nn", "core")
        for name in dir(getattr(keras.src.ops, module))
    }
    named = {target for target in rules() if isinstance(target, str)}
    assert named - operations == {"CustomScaleLayer"}


def test_the_document_holds_the_tables():
    assert DOCUMENT.read_text(encoding="utf-8").endswith(
        coverage_table() + "\n"
    )


def test_rules_of_others_are_left_out(monkeypatch):
    class Own(keras.layers.Layer):
        pass

    monkeypatch.setattr("keras_kddp.surgery.registry._RULES", rules())
    before = coverage_table()
    register_rule(Own)(
        type(
            "OwnRule",
            (BlockingRule,),
            {"__init__": lambda self: None, "reason": "is my own"},
        )
    )
    assert coverage_table() == before
