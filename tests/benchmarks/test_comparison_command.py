"""What the command of the comparison refuses, runs, and reads of tests."""

import json
import os
import sys
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Thread
from types import SimpleNamespace

import compare
import numpy as np
import pytest
from comparison import cells, final, pool, recheck
from comparison.statistics import outcome
from comparison_spec import SPEC

FOUND = {"validation": outcome(np.ones(4, bool)), "seconds": 1}


@pytest.fixture
def store(tmp_path, monkeypatch):
    for module in (cells, final, recheck):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(cells, "method_hash", lambda: "now")
    monkeypatch.setattr(final, "ANSWERS", tmp_path / "answers")
    return cells.CellStore("digits")


def add(store, spec, predicted):
    """Returns the cell of a run that answered this to test examples."""
    hidden = final.hide(spec, np.array(predicted, "uint8"))
    return store.add(spec, {**FOUND, "hidden": hidden})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--students", "mlp", "cnn"], "of digits are mlp. Received: cnn."),
        (["--minutes", "0"], "--minutes must be above 0. Received: 0."),
        (["--minutes", "-5"], "--minutes must be above 0. Received: -5."),
        (["--workers", "0"], "--workers must be above 0. Received: 0."),
        (["--recheck", "-1"], "--recheck must be above 0. Received: -1."),
        (["--data", "mnist"], "invalid choice: 'mnist'"),
    ],
    ids=" ".join,
)
def test_words_that_would_do_nothing_are_refused(
    words, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["compare.py", *words])

    with pytest.raises(SystemExit, match="2"):
        compare.main()

    assert message in capsys.readouterr().err


def test_a_page_of_no_runs_is_not_written(store, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(compare, "teacher_hash", str)
    words = ["compare.py", "--data", "watch", "--report-only"]
    monkeypatch.setattr(sys, "argv", words)

    with pytest.raises(SystemExit, match="without --report-only"):
        compare.main()

    assert not (tmp_path / "docs").exists()


def test_changes_are_committed_before_anything_trains_for_a_look(
    store, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["compare.py", "--final"])
    monkeypatch.setattr(final, "_git", lambda *_: " M keras_kddp/models.py")
    monkeypatch.setattr(compare, "train_teacher", None)

    with pytest.raises(SystemExit, match="not committed"):
        compare.main()


def test_answers_of_the_same_run_of_other_code_are_not_taken(store):
    own = add(store, SPEC, [1, 2])
    before = store.add(replace(SPEC, seed=1), FOUND)  # tells no hash

    assert final.is_answered(own)
    assert not final.is_answered(before)
    final.hide(SPEC, np.array([1, 3], "uint8"))
    final.hide(replace(SPEC, seed=1), np.array([1, 3], "uint8"))
    assert not final.is_answered(own)
    assert final.is_answered(before)


def test_only_runs_that_are_tested_are_trained_anew_for_their_answers(store):
    choosing = replace(SPEC, seed=100)
    for spec in (SPEC, choosing):
        store.add(spec, FOUND)

    final.forget_unanswered(store)

    assert store.find(SPEC) is None
    assert store.find(choosing) is not None


def test_test_results_are_of_the_code_that_was_tested(
    store, tmp_path, monkeypatch
):
    cell = add(store, SPEC, [1, 2])
    told = {**outcome(np.array([True, False])), "method_hash": "now"}
    content = {"runs": {SPEC.key: told}, "teacher": {"accuracy": 0.9}}
    content |= {"date": "2030-01-01", "commit": "abc"}
    assert final.with_tests("digits", [cell]) == ([cell], None)
    (tmp_path / "digits" / "final.json").write_text(json.dumps(content))

    ((tested,), teacher) = final.with_tests("digits", [cell])
    later = {**cell, "method_hash": "later"}

    assert tested["test"]["accuracy"] == 0.5
    assert teacher == {"accuracy": 0.9}
    assert final.with_tests("digits", [later]) == ([later], None)
    assert "on 2030-01-01, for commit abc" in final.looked_at("digits")


def test_the_look_is_recorded_once_and_only_when_all_runs_are_there(
    store, monkeypatch
):
    cell = add(store, SPEC, [1, 2])
    examples = SimpleNamespace(y=np.array([1, 3]))
    monkeypatch.setattr(final, "load", lambda _: SimpleNamespace(test=examples))
    monkeypatch.setattr(final, "predictions_of_split", lambda *_: examples.y)
    monkeypatch.setattr(final, "_git", lambda *words: "abc" * ("HEAD" in words))
    plans = [SimpleNamespace(missing=lambda: [SPEC], cells=lambda: [cell])]

    with pytest.raises(SystemExit, match="1 missing ones"):
        final.read_tests("digits", plans)
    plans[0].missing = list
    final.read_tests("digits", plans)

    ((tested,), teacher) = final.with_tests("digits", [cell])
    assert tested["test"]["accuracy"] == 0.5
    assert teacher["accuracy"] == 1
    with pytest.raises(
        SystemExit, match=r"for commit abc\. It is looked at on"
    ):
        final.read_tests("digits", plans)


def answer(pipe):
    """Stands for a worker: breaks off at seed 13."""
    with pipe:
        try:
            while (spec := pipe.recv()[0]).seed != 13:
                pipe.send({"seed": spec.seed})
        except EOFError:
            return


@pytest.mark.parametrize("is_equal", [True, False])
def test_a_recheck_accepts_what_it_has_tried_and_no_more(
    is_equal, store, monkeypatch
):
    for seed, method in enumerate(("kd", "kd", "kddp", "random")):
        spec = replace(SPEC, seed=seed, method=method)
        store.add(spec, {**FOUND, "seconds": seed})
    monkeypatch.setattr(cells, "method_hash", lambda: "later")
    right = np.full(4, is_equal)
    found = [(SPEC, {"validation": outcome(right)})]
    crew = SimpleNamespace(start=lambda _: None, finished=lambda: found)
    monkeypatch.setattr(recheck, "Pool", lambda _: crew)

    if is_equal:
        recheck.recheck(cells.CellStore("digits"), 2)
    else:
        with pytest.raises(SystemExit, match="do not hold"):
            recheck.recheck(cells.CellStore("digits"), 2)

    stale = [cell["method"] for cell in cells.CellStore("digits").stale()]
    assert stale == (["random"] if is_equal else ["kd", "kd", "kddp", "random"])


@pytest.fixture
def started(monkeypatch):
    """Has threads stand for processes; returns those that were started."""
    threads = []

    def process(target, args):
        own = Connection(os.dup(args[0].fileno()))
        threads.append(Thread(target=answer, args=(own,)))
        return threads[-1]

    context = SimpleNamespace(Pipe=Pipe, Process=process)
    monkeypatch.setattr(pool.multiprocessing, "get_context", lambda _: context)
    monkeypatch.setattr(pool, "one_core", lambda: None)
    return threads


def test_a_process_is_followed_by_another_after_its_share(started, monkeypatch):
    monkeypatch.setattr(pool, "RUNS_PER_PROCESS", 2)
    crew = pool.Pool(1)

    for seed in range(5):
        crew.start(replace(SPEC, seed=seed))
        ((spec, found),) = crew.finished()
        assert found["seed"] == spec.seed == seed

    assert len(started) == 3


def test_what_came_out_beside_a_run_that_failed_is_kept(started):
    crew = pool.Pool(2)
    for seed in (13, 0):
        crew.start(replace(SPEC, seed=seed))
    assert all(pipe.poll(10) for pipe in crew._busy)
    found = []

    with pytest.raises(SystemExit, match=r"a run failed: .*seed=13"):
        for spec, _ in crew.finished():
            found.append(spec.seed)

    assert found == [0]
