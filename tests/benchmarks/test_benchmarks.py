"""What the benchmark of accuracy against size keeps, mixes and draws."""

import json
from pathlib import Path

import accuracy_vs_size
import cells
import keras
import numpy as np
import pytest
import report
import soak
from experiments import COMPARISONS
from steering import PruningAtTheEnd

from keras_kddp import Budget, Distiller, prepare
from keras_kddp.models import digits_student
from keras_kddp.profiling import profile


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "FOLDER", tmp_path)
    return cells.CellStore("digits")


def make_cell(method="kddp", seed=0, accuracy=0.9, **entries):
    """Returns a finished cell as the store has it."""
    return {
        "student": "mlp",
        "method": method,
        "seed": seed,
        "config": {"epochs": 3},
        "method_hash": "abc",
        "machine": {
            "cores": 2,
            "python": "3.12",
            "keras": "3.15",
            "tensorflow": "2.21",
        },
        "accuracy": accuracy,
        "teacher_accuracy": 0.95,
        "units": 10,
        "live_units": 9,
        "parameters": 1000,
        "macs": 900,
        "seconds": 5.0,
        **entries,
    }


def test_a_finished_cell_is_found_again(store):
    written = store.write("mlp", "kd", 0, {"epochs": (1, 2)}, accuracy=0.5)

    found = store.find("mlp", "kd", 0, {"epochs": (1, 2)})

    assert found["accuracy"] == written["accuracy"] == 0.5
    assert found["machine"]["cores"] >= 1
    assert store.find("mlp", "kd", 1, {"epochs": (1, 2)}) is None


def test_a_cell_of_another_configuration_is_not_used(store):
    store.write("mlp", "kd", 0, {"epochs": 3}, accuracy=0.5)

    assert store.find("mlp", "kd", 0, {"epochs": 4}) is None


def test_a_cell_of_other_code_is_not_used(store, monkeypatch):
    store.write("mlp", "kd", 0, {"epochs": 3}, accuracy=0.5)
    monkeypatch.setattr(cells, "method_hash", lambda: "other")

    assert cells.CellStore("digits").find("mlp", "kd", 0, {"epochs": 3}) is None


METHOD = """\
import math

SCALE = 2

def score(x):
    \"\"\"Words.\"\"\"
    return SCALE * math.sqrt(x)
"""


@pytest.mark.parametrize(
    ("files", "is_same"),
    [
        pytest.param({"one.py": METHOD}, True, id="the same"),
        pytest.param({"rooms/two.py": METHOD}, True, id="a move"),
        pytest.param(
            {
                "one.py": METHOD.replace("SCALE = 2", ""),
                "two.py": '"""Numbers."""\n\nSCALE = 2\n',
            },
            True,
            id="a split",
        ),
        pytest.param(
            {"one.py": METHOD.replace("SCALE = 2", "") + "SCALE = 2\n"},
            True,
            id="another order",
        ),
        pytest.param(
            {"one.py": "from a import b\n" + METHOD}, True, id="an import"
        ),
        pytest.param(
            {"one.py": METHOD.replace("    return", "    # Why.\n    return")},
            True,
            id="a comment",
        ),
        pytest.param(
            {"one.py": METHOD.replace("Words", "Other words")},
            True,
            id="a docstring",
        ),
        pytest.param(
            {
                "one.py": METHOD.replace(
                    "    return", "    if x < 0: raise ValueError\n    return"
                )
            },
            True,
            id="a check",
        ),
        pytest.param(
            {"one.py": METHOD.replace("SCALE * m", "m")}, False, id="a formula"
        ),
        pytest.param(
            {"one.py": METHOD.replace("= 2", "= 3")}, False, id="a number"
        ),
        pytest.param(
            {
                "one.py": METHOD.replace(
                    "    return", "    if x < 0: x = 0\n    return"
                )
            },
            False,
            id="a branch",
        ),
    ],
)
def test_the_hash_follows_what_can_change_a_number(
    files, is_same, tmp_path, monkeypatch
):
    def hash_of(name, sources):
        root = tmp_path / name
        for file, text in sources.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text)
        monkeypatch.setattr(cells, "METHOD_MODULES", tuple(sources))
        monkeypatch.setattr(cells.keras_kddp, "__file__", str(root / "x.py"))
        return cells.method_hash()

    before = hash_of("before", {"one.py": METHOD})

    assert (hash_of("after", files) == before) is is_same


def test_every_method_module_exists():
    root = Path(cells.keras_kddp.__file__).parent
    assert all((root / name).is_file() for name in cells.METHOD_MODULES)


def test_cells_of_two_versions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "DOCS", tmp_path)
    mixed = [make_cell(), make_cell("kd", method_hash="def")]

    with pytest.raises(ValueError, match=r"one version .* \['abc', 'def'\]"):
        report.write_report("digits", {"mlp": mixed})

    assert not any(tmp_path.iterdir())


def test_a_page_without_current_cells_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "DOCS", tmp_path)

    with pytest.raises(ValueError, match="none for 'digits'.*earlier one"):
        report.write_report("digits", {"mlp": []})

    assert not any(tmp_path.iterdir())


def test_means_come_with_standard_errors():
    row = report.row_of(
        "kd", [make_cell(accuracy=a) for a in (0.90, 0.92, 0.94)]
    )

    assert row.accuracy == pytest.approx(92.0)
    assert row.error == pytest.approx(2.0 / 3**0.5)
    assert row.each == [90.0, 92.0, 94.0]


def test_the_report_has_table_bars_json_and_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "DOCS", tmp_path)
    found = [
        make_cell("kddp", accuracy=0.885),
        make_cell("kd", accuracy=0.893, units=80, parameters=8000),
        make_cell("same_size", accuracy=0.878),
        make_cell("paper_criterion", accuracy=0.88),
    ]

    report.write_report("fashion", {"mlp": found})

    page = (tmp_path / "accuracy_vs_size.md").read_text()
    assert "| dynamic pruning (KDDP) | 10 | 9 | 1,000 | 900 | 88.50" in page
    assert "must (8x fewer units at <= 1.3 below, >= 0.5 above" in page
    assert "**met**, 8.0x, 0.80 below, 0.70 above" in page
    assert "**missed**, 8.0x, 0.80 below, 0.70 above" in page  # the goal
    assert page.count("paper's criterion") == 1
    content = json.loads((tmp_path / "accuracy_vs_size.json").read_text())
    assert content["method_hashes"] == ["abc"]
    assert [row["seeds"] for row in content["rows"]["mlp"]] == [1, 1, 1, 1]
    assert (tmp_path / "accuracy_vs_size.png").stat().st_size > 5_000


def test_a_run_that_prunes_at_the_end_removes_once_however_many_are_dead():
    student = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(40, "relu", name="hidden"),
            keras.layers.Dense(3),
        ]
    )
    hidden = student.get_layer("hidden")
    kernel, bias = hidden.get_weights()
    bias[2:] = -100  # they never fire
    hidden.set_weights([kernel, bias])
    distiller = Distiller(
        keras.models.clone_model(student), prepare(student, l1=0.0)
    )
    distiller.compile(
        keras.optimizers.SGD(0.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    pruning = PruningAtTheEnd(
        budget=Budget(max_parameters=4 * 5 + 5 + 5 * 3 + 3)
    )
    x = np.random.default_rng(0).random((32, 4), "float32")

    distiller.fit(
        x, np.arange(32) % 3, epochs=12, verbose=0, callbacks=[pruning]
    )

    (removal,) = pruning.removals
    assert removal.epoch == 8  # after the last epoch of the hold
    assert distiller.student.get_layer("hidden").units == 5


def test_a_model_is_narrowed_to_given_widths():
    narrow = accuracy_vs_size.narrowed(digits_student(), {"hidden": 16})

    assert profile(narrow).parameters == profile(digits_student(16)).parameters


@pytest.mark.parametrize(
    ("name", "student"),
    [(n, s) for n, c in COMPARISONS.items() for s in c.experiments],
)
def test_every_student_can_reach_its_budget(name, student):
    experiment = COMPARISONS[name].experiments[student]
    size = profile(experiment.student())
    for measure, limit in experiment.budget_object().sizes().items():
        assert limit < getattr(size, measure)
    assert experiment.methods[0] == "kddp"


@pytest.mark.slow
def test_a_small_comparison_runs_and_goes_on_where_it_stopped(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(cells, "FOLDER", tmp_path / "cells")
    monkeypatch.setattr(accuracy_vs_size, "TEACHERS", tmp_path / "teachers")
    bench = accuracy_vs_size.Bench("digits")

    same_size = bench.run("mlp", "same_size", 0)  # trains kddp first

    found = bench.cells("mlp", ["kddp", "same_size"], [0])
    kddp = found[0][2]
    assert [cell is not None for *_, cell in found] == [True, True]
    assert kddp["units"] == same_size["units"] == 16
    assert kddp["parameters"] == 1_210
    assert kddp["accuracy"] > 0.9


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
