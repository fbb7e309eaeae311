"""Runs of pruning that go on after their process ended, bit by bit."""

import keras
import pytest
from budgeted_runs import Judged
from resumed_runs import Outcome, assert_equal, distiller, pruning, resumed

from keras_kddp import Budget, FeatureHints
from keras_kddp.distillation.checkpoints import resumable

optimizers = keras.optimizers


@pytest.fixture(autouse=True)
def at_every_epoch(monkeypatch):
    """Writes a checkpoint after each epoch."""
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN", 0.0)


def taken_back():
    """The second removal costs too much: it is taken back at once."""
    budget = Budget(max_accuracy_drop=0.1)
    judged = Judged(0.9, 0.9, 0.3, 0.88, 0.89, 0.9)
    optimizer = optimizers.AdamW(optimizers.schedules.CosineDecay(0.02, 12))
    return distiller(optimizer), [judged, pruning(budget=budget)], {}


def averaged():
    """A constant unit goes into a new bias; another callback stops early."""
    x = inputs = keras.Input((6,), name="x")
    x = keras.layers.Dense(8, "relu", name="first")(x)
    x = keras.layers.Dense(8, "relu", use_bias=False, name="second")(x)
    x = keras.layers.Dense(3, name="logits")(x)
    start = keras.Model(inputs, x, name="student")
    kernel, bias = start.get_layer("first").get_weights()
    kernel[:, :3], bias[:3] = 0.0, [0.5, 0.25, 0.0]
    start.get_layer("first").set_weights([kernel, bias])
    start.get_layer("first").trainable = False
    optimizer = optimizers.SGD(0.05, 0.9, use_ema=True, ema_momentum=0.8)
    callbacks = [
        keras.callbacks.EarlyStopping("loss", patience=4, min_delta=9.0),
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        pruning(),
    ]
    return distiller(optimizer, start=start), callbacks, {}


def hinted():
    optimizer = optimizers.LossScaleOptimizer(optimizers.Nadam(0.01), 2.0**10)
    hints = FeatureHints("first", "first")
    model = distiller(optimizer, distillation_losses=[hints])
    plateau = keras.callbacks.ReduceLROnPlateau(
        "loss", patience=1, min_delta=9.0
    )
    return model, [plateau, pruning(budget=Budget(max_parameters=300))], {}


@pytest.mark.parametrize("make", [taken_back, averaged, hinted])
def test_a_run_that_was_ended_comes_to_the_same(tmp_path, make):
    expected = Outcome(make)
    assert expected.removals != [[]]
    found = resumed(make, tmp_path / "checkpoints", 3)
    assert_equal(found, expected)
    assert not (tmp_path / "checkpoints").exists()


def small_file():
    """The quota goes by what was measured of files."""
    callbacks = [pruning(budget=Budget(max_bytes=2500))]
    return distiller(), callbacks, {}


@pytest.mark.slow
def test_a_budget_of_bytes_comes_to_the_same(tmp_path):
    expected = Outcome(small_file)
    assert expected.removals != [[]]
    assert_equal(resumed(small_file, tmp_path / "checkpoints", 3), expected)
