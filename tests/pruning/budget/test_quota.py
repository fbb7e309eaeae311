"""How many units have to leave for a size, and for a file that is measured."""

import keras
import pytest
from budgeted_runs import small, small_run, train

from keras_kddp import Budget
from keras_kddp.profiling import profile
from keras_kddp.pruning.budget.quota import FallingQuota


def test_the_limit_falls_by_the_same_factor(digits, teacher):
    _, callback, history = train(
        digits, teacher, Budget(max_parameters=2_658), epochs=8
    )

    # Five removals, from 12,658 down to 2,658: each to 73 %.
    assert history["parameters"][1] == 12_658
    after = [removal.parameters_after for removal in callback.removals]
    limits = [9_265, 6_781, 4_963, 3_632, 2_658]
    for size, limit in zip(after, limits, strict=True):
        assert limit - 700 < size <= limit + 1


def test_a_roomy_file_does_not_cancel_another_limit():
    budget = Budget(max_parameters=200, max_bytes=100_000)

    distiller, _ = small_run(budget)

    assert profile(distiller.student).parameters <= 200


@pytest.mark.parametrize("start", range(0, 21, 2))
def test_the_fewest_groups_are_found_from_any_first_guess(start, monkeypatch):
    # A file that is not as the line predicts: k groups save k^2 bytes.
    quota = object.__new__(FallingQuota)
    quota._limits = {"bytes": 1_000 + 64}
    sizes = lambda k: {"bytes": 1_400 - 20 * k}  # noqa: E731
    monkeypatch.setattr(quota, "_sizes", lambda graph, order: sizes)
    monkeypatch.setattr(
        quota,
        "_measured",
        lambda measure, graph, order, constants: 1_100 - len(order) ** 2,
    )

    found = quota._checked_count(
        "bytes", None, range(20), start, least=0, constants={}
    )

    assert found == 10  # 1,100 - 100


def test_what_never_fits_takes_all_that_may_leave(monkeypatch):
    quota = object.__new__(FallingQuota)
    quota._limits = {"bytes": 500}
    sizes = lambda k: {"bytes": 1_400 - 20 * k}  # noqa: E731
    monkeypatch.setattr(quota, "_sizes", lambda graph, order: sizes)
    monkeypatch.setattr(quota, "_measured", lambda *args: 2_000)

    assert (
        quota._checked_count("bytes", None, range(9), 3, least=0, constants={})
        == 9
    )


@pytest.mark.parametrize("limit", [400, 390, 380, 300])
def test_biases_that_folding_adds_are_paid_for(limit):
    student = small(use_bias=False)
    kernel, bias = student.get_layer("first").get_weights()
    kernel[:, :6], bias[:6] = 0, 1  # six units that are always 1
    student.get_layer("first").set_weights([kernel, bias])

    distiller, _ = small_run(
        Budget(max_parameters=limit),
        student=student,
        optimizer=keras.optimizers.SGD(0.0),
        epochs=3,
        warmup_epochs=0,
    )

    found = profile(distiller.student).parameters
    assert limit - 45 < found <= limit
    assert distiller.student.get_layer("second").use_bias
