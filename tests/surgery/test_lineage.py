"""Removals as plain data, by which a copy of the first model follows."""

import json

import keras
import numpy as np
import pytest

from keras_kddp.surgery import SurgeryError, plan_removal
from keras_kddp.surgery.lineage import Lineage


def model():
    inputs = keras.Input((5,))
    x = keras.layers.Dense(6, "relu", name="a")(inputs)
    y = keras.layers.Dense(6, "relu", use_bias=False, name="b")(x)
    x = keras.layers.BatchNormalization(name="norm")(
        keras.layers.Add(name="add")([x, y])
    )
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(x))


def shapes(made):
    return [(w.name, tuple(w.shape)) for w in made.weights]


def removed(made, *removals):
    """Returns a model after removals, and their lineage."""
    lineage = Lineage()
    for units in removals:
        plan = plan_removal(made, {"a": units, "b": units})
        made, lineage = plan.build(), lineage.after(plan)
    return made, lineage


def test_two_removals_are_one_of_the_first_models_units():
    _, lineage = removed(model(), [1, 4], [0, 2])
    # 0 1 2 3 4 5 without 1 and 4 is 0 2 3 5, and that without the first and
    # the third of them is 2 5.
    assert lineage.removed == {"a": (0, 1, 3, 4), "b": (0, 1, 3, 4)}


def test_a_copy_of_the_first_model_gets_the_shapes_of_the_last():
    last, lineage = removed(model(), [1, 4], [0, 2])
    stored = Lineage.from_dict(json.loads(json.dumps(lineage.as_dict())))
    assert stored == lineage

    copy = stored.plan_from(Lineage(), model()).build_unfolded()

    assert shapes(copy) == shapes(last)
    copy.set_weights(last.get_weights())
    x = np.ones((1, 5))
    np.testing.assert_array_equal(copy.predict(x, verbose=0), last(x))


def test_a_lineage_goes_on_from_an_earlier_one():
    between, earlier = removed(model(), [1, 4])
    last, later = removed(model(), [1, 4], [0, 2])

    plan = later.plan_from(earlier, between)

    assert plan.removed == {"a": (0, 2), "b": (0, 2)}
    assert shapes(plan.build_unfolded()) == shapes(last)


def test_a_bias_that_folding_gained_is_there_again():
    start = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, "relu", name="a"),
            keras.layers.Dense(2, use_bias=False, name="out"),
        ]
    )
    plan = plan_removal(start, {"a": [1]}, constants={"a": {1: 0.5}})
    lineage = Lineage().after(plan)

    copy = lineage.plan_from(Lineage(), start).build_unfolded()

    assert lineage.folded == ("out",)
    assert shapes(copy) == shapes(plan.build())
    assert shapes(copy)[-1] == ("bias", (2,))


@pytest.mark.parametrize("units", [[0], [5]])
def test_a_model_that_lost_other_units_is_no_start(units):
    other, earlier = removed(model(), units)
    _, later = removed(model(), [1, 4])
    with pytest.raises(SurgeryError, match="must be what all removals began"):
        later.plan_from(earlier, other)


def test_a_model_without_the_units_is_no_start():
    _, later = removed(model(), [1, 5])
    other, _ = removed(model(), [0])
    with pytest.raises(SurgeryError, match="must be what all removals began"):
        later.plan_from(Lineage(), other)


def test_a_layer_that_was_cut_elsewhere_is_no_start():
    start = model()
    with pytest.raises(SurgeryError, match="must be what all removals began"):
        Lineage().plan_from(Lineage({"a": (0,)}), start)
