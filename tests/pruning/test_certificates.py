"""The evidence on which units leave, and the bounds that prove some dead."""

import json

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from helpers import float64, random_inputs, randomize

import keras_kddp as kddp
from keras_kddp.pruning.activity import (
    UnitActivity,
    activity_on,
    collect_activity,
)
from keras_kddp.pruning.certificates import (
    certify,
    constant_units,
    summarize_evidence,
)
from keras_kddp.surgery import ChannelGraph
from keras_kddp.surgery.activity_bounds import activity_bounds

layers = keras.layers
ROWS = np.random.default_rng(0).uniform(0, 1, (64, 2)).astype("float32")


def student() -> keras.Model:
    """relu(x0 - x1 - 3), relu(x0 - 0.5), relu(0.25), relu(x0), relu(-1)."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(5, activation="relu", name="fc"),
            layers.Dense(2, name="out"),
        ]
    )
    kernel = [[1, 1, 0, 1, 0], [-1, 0, 0, 0, 0]]
    fc = model.get_layer("fc")
    fc.kernel.assign(kernel)
    fc.bias.assign([-3, -0.5, 0.25, 0, -1])
    model.get_layer("out").kernel.assign(np.ones((5, 2)))
    return model


def certificates(model, rows=ROWS, input_range=None, units=range(4)):
    graph = ChannelGraph(model)
    activity = activity_on(graph, rows)
    constants = constant_units(activity)
    return certify(graph, {"fc": units}, activity, constants, input_range)


def test_each_kind_of_evidence():
    rows = ROWS.copy()
    rows[:, 0] = rows[:, 0] / 2  # within the range, the second never fires
    found = certificates(student(), rows, input_range=(0.0, 1.0))
    assert [c.kind for c in found] == [
        *("provably dead", "observed dead"),
        *("constant", "negligible"),
    ]
    assert [c.firing_rate_bound for c in found] == [0.0, 3 / 64, None, None]
    assert [c.value for c in found] == [None, None, 0.25, None]
    assert [c.examples for c in found] == [64] * 4
    assert found[0].contribution == found[1].contribution == 0
    assert found[2].contribution == pytest.approx(
        0.25 / max(0.25, rows[:, 0].mean())
    )
    assert summarize_evidence(found) == (
        "1 provably dead, 1 observed dead (fire on < 4.69% of examples, 95 % "
        "confidence), 1 constant, 1 negligible (contribute <= "
        f"{found[3].contribution:.2%} of the largest)"
    )
    json.dumps([c.as_dict() for c in found])


def test_nothing_is_proved_without_a_declared_range():
    assert certificates(student())[0].kind == "observed dead"


def test_few_examples_make_nothing_constant():
    activity = collect_activity(student(), ROWS[:31])
    assert constant_units(activity) == {}
    assert constant_units(collect_activity(student(), ROWS)) == {
        "fc": {2: 0.25}
    }


def test_examples_are_counted_once_whatever_the_positions():
    model = keras.Sequential(
        [
            keras.Input((5, 2)),
            layers.Conv1D(3, 2, name="conv"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(1),
        ]
    )
    statistics = collect_activity(model, np.ones((7, 5, 2)))["conv"]
    assert isinstance(statistics, UnitActivity)
    assert (statistics.examples, statistics.count) == (7, 28)


def wide_model() -> keras.Model:
    """A chain of every layer that interval bounds follow, in float64."""
    x = keras.Input((6, 6, 2))
    y = layers.Rescaling(-2.0, offset=0.5)(x)
    y = layers.Conv2D(4, 3, padding="same", name="conv")(y)
    y = layers.BatchNormalization()(y)
    y = layers.LeakyReLU()(y)
    y = layers.Conv2D(4, 2, activation="tanh", name="second")(y)
    z = layers.Conv2D(4, 1, name="third")(y)
    y = layers.ReLU()(layers.Add()([y, z]))
    y = layers.ZeroPadding2D(1)(layers.MaxPooling2D()(y))
    y = layers.Dropout(0.5)(layers.AveragePooling2D(2)(y))
    y = layers.Concatenate()([y, keras.ops.relu(y)])
    y = layers.Dense(5, activation="sigmoid", name="dense")(layers.Flatten()(y))
    y = keras.ops.tanh(y) * -2.0 + 0.25
    y = layers.Dense(4, activation="gelu", name="open")(y)
    return keras.Model(x, layers.Dense(2)(y))


@pytest.mark.parametrize("seed", range(5))
def test_no_activity_leaves_its_bounds(seed):
    with float64():
        model = randomize(wide_model(), seed)
    (x,) = random_inputs(model, seed, batch_size=200)
    x = np.clip(x / 3, -1, 1)
    graph = ChannelGraph(model)
    bounds = activity_bounds(graph, (-1.0, 1.0))
    activity = activity_on(graph, x)
    assert set(bounds) == {"conv", "second", "third", "dense", "open"}
    for name, (low, high) in bounds.items():
        assert (low <= activity[name].minimum).all()
        assert (high >= activity[name].maximum).all()
        assert np.isfinite(low).all() == (name != "open")


def test_bounds_are_tight_where_inputs_reach_them():
    low, high = activity_bounds(ChannelGraph(student()), (0.0, 1.0))["fc"]
    np.testing.assert_allclose(low, [0, 0, 0.25, 0, 0], atol=1e-4)
    np.testing.assert_allclose(high, [0, 0.5, 0.25, 1, 0], atol=1e-4)


def test_a_constant_unit_leaves_inside_fit_and_its_value_is_folded():
    model = kddp.prepare(student(), l1=0.0)
    before = np.asarray(model(ROWS))
    distiller = kddp.Distiller(None, model)
    distiller.compile(
        keras.optimizers.SGD(0.0),
        CROSSENTROPY,
    )
    pruning = kddp.DynamicPruning(
        warmup_epochs=0,
        ramp_epochs=1,
        finetune_epochs=1,
        threshold=0.0,
        minimum_change=0.0,
        input_range=(0.0, 1.0),
    )
    packed = kddp.TeacherCache(student(), ROWS).pack(ROWS)
    labels = np.zeros(len(ROWS), int)
    distiller.fit(packed, labels, epochs=3, verbose=0, callbacks=[pruning])
    (removal,) = pruning.removals
    assert [(c.unit, c.kind) for c in removal.certificates] == [
        (0, "provably dead"),
        (2, "constant"),
        (4, "provably dead"),
    ]
    assert "2 provably dead, 1 constant" in str(removal)
    np.testing.assert_allclose(distiller.student(ROWS), before, atol=1e-6)


@pytest.mark.parametrize("value", [3, (1,), (2, 1), (0, np.inf), "01"])
def test_a_range_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="`input_range` must be"):
        kddp.DynamicPruning(input_range=value)
