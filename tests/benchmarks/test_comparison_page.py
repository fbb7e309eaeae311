"""What the page of a comparison says of finished runs."""

import json
import struct

import numpy as np
import pytest
from comparison import labels
from comparison.page import write_page
from comparison.rows import results_of
from comparison.statistics import outcome

EXAMPLES = 100


@pytest.fixture
def no_pictures(monkeypatch):
    """Leaves the pictures out where only the text counts."""
    for name in ("draw_accuracy", "draw_differences"):
        monkeypatch.setattr(f"comparison.page.{name}", lambda *_: None)


def run(method, right, seed=0, length="short", size=0, **entries):
    """Returns a run that got the first `right` of 100 examples right."""
    return {
        "data": "digits",
        "student": "mlp",
        "method": method,
        "length": length,
        "epochs": {"short": 4, "long": 16}[length],
        "size": None if method in labels.UNPRUNED else size,
        "seed": seed,
        "options": {},
        "validation": outcome(np.arange(EXAMPLES) < right),
        "units": 10,
        "live_units": 9,
        "parameters": 1000 * 2**size,
        "macs": 900,
        "mac_steps": 5e6,
        "steps": 40,
        "seconds": 7.0,
        "backend": "tensorflow",
        "precision": "float32",
        "machine": {"cores": 2, "keras": "3.15"},
        "method_hash": "abc",
        **entries,
    }


def page_of(cells, folder, choices=None, **arguments):
    """Returns the text of the page of these runs."""
    arguments = {
        "note": "Digits of scikit-learn.",
        "teacher": {"kind": "A wide net", "validation": 0.97},
        **arguments,
    }
    path = write_page("digits", cells, choices or {}, folder, **arguments)
    return path.read_text("utf-8")


def row_in(page, label):
    """Returns the cells of a page's first table row of this name."""
    line = next(x for x in page.splitlines() if x.startswith(f"| {label}"))
    return [text.strip() for text in line.strip("|").split("|")]


def test_a_row_has_the_better_length_its_error_and_each_seed():
    cells = [run("kddp", right, seed) for seed, right in enumerate((80, 84))]
    cells += [
        run("kddp", right, seed, "long") for seed, right in enumerate((88, 92))
    ]

    (result,) = results_of(cells, "validation")

    row = result.rows["kddp"]
    assert row.length == "long"
    assert row.by_length == {"short": (82, 2), "long": (90, 2)}
    assert row.each == (88, 92)
    # Deviations of 2 twice: variance 8, over two seeds 4.
    assert row.error == pytest.approx(2)


@pytest.mark.usefixtures("no_pictures")
def test_a_page_says_what_it_shows_before_its_tables(tmp_path):
    cells = [
        run("kddp", 90),
        run("random", 70),
        run("same_size_kd", 90),
        run("taylor", 89, student="cnn"),
        run("random", 95, student="cnn"),
        run("kddp", 60, student="cnn"),
        run("labels", 95, units=80, mac_steps=4e7),
    ]

    page = page_of(cells, tmp_path, seeds=(1, 1))

    top, tables = page.split("## Teacher")
    assert "**mlp**, 10 of 80 units: KDDP has 90.00 %; of 2 controls" in top
    assert "it is above 1, not below 1." in top
    # 20 of 100: variance .2 * .8 / .99 -> 4.02 points of error.
    # 35 of 100: variance .35 * .65 / .99 -> 4.79; mean (20 - 35) / 2.
    assert (
        "- random cut: KDDP is **above** it for mlp (+20.00 ± 4.02), "
        "**below** it for cnn (-35.00 ± 4.79); over all -7.50, at worst "
        "-35.00: **lower**." in top
    )
    assert "- unpruned, labels: KDDP is **below** it for mlp (-5.00" in top
    assert row_in(tables, "random cut")[-3:] == [
        "+20.00 ± 4.02<br>**above**",
        "0.12",  # 5e6 of 4e7
        "7",
    ]


@pytest.mark.usefixtures("no_pictures")
def test_a_page_says_when_the_teacher_has_little_to_teach(tmp_path):
    cells = [run("labels", 90)]
    weak = {"kind": "A net", "validation": 0.905}

    strong_page = page_of(cells, tmp_path)
    weak_page = page_of(cells, tmp_path, teacher=weak)

    assert "| mlp | 90.00 (1 of 5 seeds) | +7.00 |" in strong_page
    assert "less than one point" not in strong_page
    assert "| +0.50 |" in weak_page
    assert "**For mlp the teacher is less than one point better" in weak_page


@pytest.mark.usefixtures("no_pictures")
def test_missing_seeds_and_pairs_are_told(tmp_path):
    cells = [run("kddp", 90, seed) for seed in range(5)]
    cells += [run("kd", 80, seed) for seed in (0, 1, 7)]

    row = row_in(page_of(cells, tmp_path), "unpruned, KD")

    assert row[4] == "80.00 (3 of 5)"
    assert row[6].startswith("short: **80.00 ± 0.00 (3 of 5 seeds)**")
    assert ", 2 of 5 pairs<br>" in row[7]
    cells.append(run("random", 80))
    assert "(**provisional**: seeds are missing)." in page_of(cells, tmp_path)


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [run("kddp", 90)],
        [run("random", 90)],
        [run("random", 90), run("kddp", 90, seed=1)],
        [run("labels", 90, length="long")],
        [run("kddp", 90, size=2)],
        [run("magnitude", 90, size=3), run("kddp", 90, size=1)],
        [run("own idea", 90, machine={}, live_units=None)],
    ],
    ids=lambda cells: "+".join(c["method"] for c in cells) or "nothing",
)
def test_a_grid_that_has_only_begun_has_a_page(cells, tmp_path):
    page = page_of(cells, tmp_path)

    assert page.startswith("# Comparison: digits\n")
    for cell in cells:
        assert f"## {cell['student']}" in page


@pytest.mark.usefixtures("no_pictures")
def test_runs_of_other_code_or_backends_are_marked(tmp_path):
    cells = [
        run("kddp", 90),
        run("kd", 90, backend="jax"),
        run("random", 80, backend="jax", method_hash="def"),
    ]

    page = page_of(cells, tmp_path)

    assert row_in(page, "unpruned, KD")[0].endswith("<sup>b</sup>")
    assert row_in(page, "random cut")[0].endswith("<sup>a, b</sup>")
    assert "<sup>a</sup> Another version of the code (def)" in page
    assert "<sup>b</sup> Another backend (jax)" in page
    assert "KDDP ran with tensorflow in float32, code `abc`" in page
    assert "KDDP ran" not in page_of(cells[1:], tmp_path)


@pytest.mark.usefixtures("no_pictures")
def test_a_page_of_test_results_takes_the_lengths_of_validation(tmp_path):
    def both(length, validation, test):
        tested = outcome(np.arange(EXAMPLES) < test)
        return run("kddp", validation, length=length, test=tested)

    cells = [both("short", 90, 70), both("long", 80, 95)]
    cells.append(run("kd", 99))  # not tested yet

    page = page_of(cells, tmp_path, split="test")

    assert "short: **70.00" in row_in(page, "dynamic pruning (KDDP)")[6]
    assert not any(x.startswith("| unpruned, KD") for x in page.splitlines())
    assert "--final" not in page  # it looks once
    assert "Accuracy on **test**" in page


@pytest.mark.usefixtures("no_pictures")
def test_curves_go_from_the_smallest_to_the_largest(tmp_path):
    cells = [run("kddp", 80 + size, size=size) for size in (2, 0, 1)]
    cells.append(run("magnitude", 70, size=1))

    # Only the size of the table has long runs: they are of no curve.
    cells.append(run("kddp", 95, length="long"))

    page = page_of(cells, tmp_path, seeds=(1, 1))

    table, curves = page.split("against size, %, the short length alone")
    assert "long: **95.00**" in row_in(table, "dynamic")[6]

    assert row_in(curves, "parameters")[1:] == ["1,000", "2,000", "4,000"]
    assert row_in(curves, "dynamic")[1:] == ["80.00", "81.00", "82.00"]
    assert row_in(curves, "magnitude")[1:] == ["–", "70.00", "–"]


@pytest.mark.usefixtures("no_pictures")
def test_a_page_says_what_was_chosen_among_what(tmp_path):
    chosen = {
        "recipe": {"learning_rate": 0.002},
        "ladder": [(16, 0.91), (8, 0.9)],
        "is_still_improving": True,
        "tries": {
            "kddp": [({"l1": 0.1}, "short", 0.8, False)]
            + [({}, "long", 0.9, True)]
        },
    }

    choices = {"mlp": chosen, "cnn": {"tries": {}}}
    page = page_of([run("kddp", 90)], tmp_path, choices)

    assert "Recipe: learning_rate 0.002." in page
    assert "| epochs | 8 | 16 |" in page
    assert "| validation, % | 90.00 | 91.00 |" in page
    assert "It was still improving at the longest of them" in page
    assert "### cnn\n\nNothing yet." in page
    assert "| dynamic pruning (KDDP) | l1 0.1 | short | 80.00 |" in page
    assert "| dynamic pruning (KDDP) | defaults | long | **90.00** |" in page


@pytest.mark.usefixtures("no_pictures")
def test_the_numbers_stand_beside_the_page(tmp_path):
    cells = [run("kddp", 90), run("random", 70), run("kddp", 91, size=1)]

    page_of(cells, tmp_path)

    found = json.loads((tmp_path / "comparison_digits.json").read_text())
    student = found["students"]["mlp"]
    assert [row["method"] for row in student["rows"]] == ["kddp", "random"]
    assert student["rows"][1]["kddp_minus"]["mean"] == 20
    assert student["rows"][1]["verdict"] == "above"
    assert len(student["curves"]["kddp"]) == 2
    # 20 of 100: variance .2 * .8 / .99, error .0402015.
    assert student["rows"][1]["kddp_minus"]["error"] == 4.0202
    assert found["pooled"]["random"]["is_not_below"] is True


@pytest.mark.parametrize("students", [1, 2, 3])
def test_pictures_are_at_most_1200_pixels_wide(students, tmp_path):
    cells = [
        run(method, 90, student=f"net {number}")
        for method in labels.LABELS
        for number in range(students)
    ]

    page = page_of(cells, tmp_path)

    for name in ("comparison_digits.png", "comparison_digits_differences.png"):
        header = (tmp_path / name).read_bytes()[16:24]
        width, height = struct.unpack(">II", header)
        assert 400 <= width <= 1200
        assert 400 <= height <= 1200
        assert f"]({name})" in page
