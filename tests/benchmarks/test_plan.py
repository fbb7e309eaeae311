"""The order of a comparison: what is run, what is chosen from it."""

import json
from dataclasses import replace

import pytest
from comparison import cells, plan
from comparison.peers import ALL_METHODS
from comparison.students import STUDENTS


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "FOLDER", tmp_path)
    monkeypatch.setattr(cells, "method_hash", lambda: "now")
    return cells.CellStore("digits")


@pytest.fixture
def digits(store):
    return plan.Plan(
        replace(STUDENTS["digits", "mlp"], ladder=(8, 16, 32, 64)),
        store,
        "teacher",
    )


def accuracy_of(spec):
    """Returns an accuracy that grows with epochs, up to 32 of them."""
    recipe, options = spec.recipe, spec.options
    return (
        0.8
        + 0.001 * min(spec.epochs, 32)
        + 0.01 * (recipe["learning_rate"] == 0.001)
        + 0.01 * (recipe["weight_decay"] == 0.1)
        + 0.02 * (options.get("temperature") == 2.0)
        + 0.02 * (options.get("l1") == 0.03)
    )


def finish(spec, store):
    """Adds what a run would have found."""
    return store.add(
        spec,
        {
            "validation": {"accuracy": accuracy_of(spec)},
            "widths": {"hidden": 16},
            "macs": 1000,
            "mac_steps": 3 * 1000 * 16 * 32 * spec.epochs,
            "steps": 32 * spec.epochs,
        },
    )


def walk(digits, store):
    """Runs whatever can be started until nothing is missing."""
    done = []
    while missing := digits.missing():
        done += missing
        for spec in missing:
            finish(spec, store)
    return done


def test_a_plan_ends_with_every_run_of_the_table_and_the_curves(digits, store):
    done = walk(digits, store)

    methods = len(ALL_METHODS) - 1  # no BatchNormalization: no slimming
    table = [s for s in done if s.seed in (0, 1, 2) and not s.size]
    curves = [s for s in done if s.size]
    assert len(table) == 3 * 2 * methods
    assert len(curves) == 3 * 2 * len(plan.CURVES)
    assert len({spec.key for spec in done}) == len(done)


def test_everything_is_chosen_by_accuracy_on_validation(digits, store):
    done = walk(digits, store)

    chosen = [s for s in done if s.seed == 0 and s.method == "kddp"]
    assert digits.choices["recipe"]["learning_rate"] == 0.001
    assert digits.choices["recipe"]["weight_decay"] == 0.1
    assert {s.options["l1"] for s in chosen} == {0.03}
    assert {s.options["temperature"] for s in chosen} == {2.0}


def test_the_short_length_is_where_twice_the_epochs_gain_little(digits, store):
    walk(digits, store)

    assert digits.choices["ladder"][-1][0] == 64
    assert "is_still_improving" not in digits.choices
    assert {
        (cell["length"], cell["epochs"])
        for cell in digits.cells()
        if cell["method"] == "kd"
    } == {("short", 32), ("long", 128)}


def test_a_ladder_that_ends_before_the_gains_do_is_told(store):
    student = replace(STUDENTS["digits", "mlp"], ladder=(8, 16, 32))
    short = plan.Plan(student, store, "teacher")

    walk(short, store)

    assert short.choices["is_still_improving"]
    labels = [c for c in short.cells() if c["method"] == "labels"]
    assert {cell["epochs"] for cell in labels} == {16, 64}


def test_what_only_tensorflow_can_do_is_left_out_elsewhere(store, monkeypatch):
    monkeypatch.setattr(plan.keras.backend, "backend", lambda: "jax")
    elsewhere = plan.Plan(STUDENTS["digits", "mlp"], store, "teacher")

    assert "taylor" not in {spec.method for spec in walk(elsewhere, store)}


def test_a_method_has_at_most_eight_tries(digits, store):
    walk(digits, store)

    tries = digits.choices["tries"]
    assert all(len(told) <= 9 for told in tries.values())
    assert {name for name, told in tries.items() if len(told) == 8} == {
        "kd",
        "kddp",
        "pruned_labels",
        "same_size_kd",
        "recipe",
    }


def test_labels_alone_train_for_what_dynamic_pruning_costs(digits, store):
    done = walk(digits, store)

    longer = [s for s in done if s.method == "same_size_labels_longer"]
    assert {(s.length, s.epochs) for s in longer} == {
        ("short", 3 * 32),
        ("long", 3 * 128),
    }


def test_controls_have_the_widths_of_the_same_seed(digits, store):
    first = digits.missing()
    while not any(spec.method == "kddp" for spec in first):
        for spec in first:
            finish(spec, store)
        first = digits.missing()
    assert all("widths" not in spec.options for spec in first)
    done = walk(digits, store)

    cuts = [s for s in done if s.method == "magnitude"]
    assert all(s.options["widths"] == {"hidden": 16} for s in cuts)


def test_a_plan_goes_on_where_it_was_stopped(digits, store):
    for spec in digits.missing()[:2]:
        finish(spec, store)

    again = plan.Plan(digits.student, cells.CellStore("digits"), "teacher")

    assert [s.key for s in again.missing()] == [s.key for s in digits.missing()]


def test_runs_of_other_code_are_not_used(digits, store, monkeypatch):
    (first, *_) = digits.missing()
    finish(first, store)
    monkeypatch.setattr(cells, "method_hash", lambda: "later")

    later = cells.CellStore("digits")

    assert later.find(first) is None
    (cells.FOLDER / "accepted.json").write_text(
        json.dumps(
            [
                {"code": "then", "by": "later", "kind": "digits mlp labels"},
                {"code": "now", "by": "then"},  # of all kinds
            ]
        )
    )
    assert cells.CellStore("digits").find(first) is not None
    assert cells.codes_that_hold("later", "digits mlp kd") == {"later"}
    monkeypatch.setattr(cells, "method_hash", lambda: "changed since")
    assert cells.CellStore("digits").find(first) is None
