"""What the small benchmarks measure and print."""

import after_pruning
import numpy as np
import pytest
import soak
from comparison.cells import CellStore
from comparison.data import Data, Examples
from comparison.plan import Plan
from comparison.students import STUDENTS
from comparison.training import Recipe, Setting
from comparison.views import Views

OPTIONS = {"temperature": 1.0, "student_loss_weight": 0.5, "l1": 0.01}


def a_row(accuracy, **entries):
    """Returns a row of one seed."""
    row = {"bytes": 2000, "compressed": 1500, "non_zeros": 300}
    return {**row, "LiteRT": accuracy, "TFLM": accuracy, **entries}


@pytest.fixture(scope="module")
def setting():
    """Returns a short run of the digits' student, without a real teacher."""
    generator = np.random.default_rng(0)
    y = np.arange(320) % 10
    x = generator.random((320, 64), dtype=np.float32)
    x[np.arange(320), y] += 4  # a bright pixel says the class
    parts = [Examples(x[i:j], y[i:j]) for i, j in ((0, 256), (256, 320))]
    data = Data("digits", *parts, parts[1], classes=10, note="")
    logits = 5 * np.eye(10, dtype="float16")[None, y[:256]]
    recipe = Recipe(5e-3, 0.0, "none")
    student = STUDENTS["digits", "mlp"]
    return Setting(student, data, Views(x[:256], "none"), logits, recipe, 20, 0)


def test_a_row_has_the_mean_of_its_seeds_and_no_number_where_it_was_refused():
    rows = {"int4": [a_row(90.0, TFLM=None), a_row(92.0, bytes=3001)]}

    head, line = after_pruning.table(rows)

    # (2000 + 3001) / 2 = 2500.5; (92 - 90) / 2 ** 0.5 / 2 ** 0.5 = 1.
    assert head.split()[1:3] == ["bytes", "compressed"]
    assert line.split() == [
        *["int4", "2,500", "1,500", "300"],
        *["91.00", "±", "1.00", "-"],
    ]


def test_students_are_not_trained_before_the_comparison_has_chosen(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("comparison.cells.FOLDER", tmp_path)
    plan = Plan(STUDENTS["fashion", "mlp"], CellStore("fashion"), "teacher")

    with pytest.raises(SystemExit, match=r"kd, kddp of seed 0 .* --students m"):
        after_pruning.finished(plan, 0, ["kddp", "kd"])


@pytest.mark.slow
def test_zeros_in_the_place_of_pruned_units_are_as_many(setting, tmp_path):
    models = {
        method: after_pruning.trained(method, setting, options)
        for method, options in {
            "kd": OPTIONS,
            "kddp": OPTIONS,
            "same_size_kd": {**OPTIONS, "widths": {"hidden": 16}},
        }.items()
    }
    rules = {"epochs": 1, "batch_size": 32}
    data = setting.data
    workshop = after_pruning.Workshop(
        data.train, data.validation, models["kd"], tmp_path, rules
    )

    rows = after_pruning.zeros_instead(workshop, models)
    pruned, zeros, small = (make() for make in rows.values())
    int4 = workshop.converted(models["kddp"], "int4")

    assert models["kddp"].get_layer("hidden").units == 16
    assert models["same_size_kd"].get_layer("hidden").units == 16
    assert pruned["non_zeros"] == 16 * (64 + 10)
    assert zeros["non_zeros"] == pytest.approx(16 * (64 + 10), abs=2)
    assert small["non_zeros"] == pytest.approx(16 * (64 + 10) / 2, abs=2)
    assert zeros["bytes"] > 2 * pruned["bytes"]
    assert zeros["compressed"] < zeros["bytes"]
    assert int4["TFLM"] is None  # TFLM has no four bits
    assert min(row["LiteRT"] for row in (pruned, zeros, int4)) > 90


def test_a_line_of_the_soak_says_by_how_much_memory_grew():
    found = {"MB": [500.0, 510.0], "events": 20, "models": 3}

    text = soak.line("swaps", {**found, "optimizers": 1, "graphs": 4})

    # 510 / 500 = 1.02; (510 - 500) * 1000 / 20 = 500 kB.
    assert text.split() == [
        *["swaps", "20", "500", "510", "+2.0", "%"],
        *["500", "3", "1", "4"],
    ]


@pytest.mark.slow
def test_a_long_run_of_removals_keeps_nothing_of_what_they_replaced():
    found = soak.measured("swaps", epochs=60, warm_up=20)

    assert found["events"] == 29
    assert found["old students alive"] == 0
    assert found["optimizers"] == 1
    # Of the 180 epochs after the first 20 that may add 10 %, 40 were run.
    assert soak.growth(found) <= 10 * 40 / 180
