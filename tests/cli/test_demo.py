"""The demo: its pieces on small runs, its promise over seeds."""

import contextlib
import io
import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import SUMMARY_FIELDS
from rich.console import Console

from keras_kddp.cli import commands as cli
from keras_kddp.cli import demo
from keras_kddp.compression.training import accuracy, cosine_adamw, fresh
from keras_kddp.data.datasets import load_digits
from keras_kddp.data.splits import Split
from keras_kddp.models import digits_student


@pytest.fixture(scope="module")
def short():
    """Makes the demo's runs a few epochs long."""
    epochs = {"epochs": 6, "teacher_epochs": 6, "finetune_epochs": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "DEMO", replace(demo.DEMO, l1=0.2, **epochs))
        yield


@pytest.fixture(scope="module")
def done(short, tmp_path_factory):
    """Returns the directory of a run of seed 5, and what it has printed."""
    folder, shown = tmp_path_factory.mktemp("demo") / "run", io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert cli.main(["demo", "--out", str(folder), "--seed=5"]) == 0
    return folder, shown.getvalue()


def test_digits_splits_are_disjoint_complete_and_the_same_every_time():
    data, again = load_digits(), load_digits()
    assert data.split_sizes == {"train": 1197, "validation": 150, "test": 450}
    assert 1197 + 150 + 450 == 1797
    np.testing.assert_array_equal(data.test.x, again.test.x)
    rows = np.concatenate([data.train.x, data.validation.x, data.test.x])
    bundled = np.unique((rows * 16).round(), axis=0)
    assert len(np.unique(rows, axis=0)) == len(bundled)
    assert rows.min() == 0
    assert rows.max() == 1
    assert set(data.test.y) == set(range(10))


def test_accuracy_is_the_share_of_right_answers():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
    x = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype="float32")
    assert accuracy(model, Split(x, np.array([0, 1, 0, 0]))) == 3 / 4


def test_fresh_students_of_one_seed_start_alike():
    first, second = (fresh(digits_student, 3) for _ in range(2))
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_the_rate_decays_to_zero_over_the_run():
    optimizer = cosine_adamw(0.5, epochs=2, batch_size=4, examples=10)
    schedule = optimizer.get_config()["learning_rate"]
    steps = 2 * 3  # three batches of at most 4 from 10 examples, twice
    assert schedule["config"]["decay_steps"] == steps
    assert schedule["config"]["initial_learning_rate"] == 0.5


def test_the_demo_leaves_its_run_directory(done):
    run, shown = done
    files = {path.name for path in run.iterdir()}
    assert files == {
        "teacher.keras",
        "removals.json",
        "student.keras",
        "before.keras",
        "student_float32.tflite",
        "student_int8.tflite",
        "student_float32.json",
        "student_int8.json",
        "micro",
        "summary.json",
        ".keras_kddp.json",
    }
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary) >= SUMMARY_FIELDS
    student = keras.models.load_model(run / "student.keras")
    assert student.count_params() == summary["parameters_after"]
    assert student.get_layer("hidden").units == summary["units_after"]
    assert accuracy(student, load_digits().test) == summary["kddp_accuracy"]
    for kind in ("float32", "int8"):
        artifact = run / f"student_{kind}.tflite"
        assert artifact.stat().st_size == summary[f"tflite_{kind}_bytes"]
    assert "student, dynamic pruning" in shown
    assert "LiteRT" in shown


def test_the_same_seed_gives_the_same_student_to_the_bit(done, tmp_path):
    first = keras.models.load_model(done[0] / "student.keras")
    second = demo.run_demo(
        tmp_path, seed=5, console=Console(quiet=True)
    ).student
    assert first.count_params() == second.count_params()
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_an_unwritable_directory_is_one_line_and_exit_code_2(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("not a directory")
    assert cli.main(["demo", "--out", str(file / "run")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("kddp: ")


@pytest.mark.parametrize("seed", ["-1", "4294967296", "x"])
def test_a_seed_out_of_range_is_refused(seed, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo", "--out", str(tmp_path / "run"), f"--seed={seed}"])
    assert "from 0 to 4294967295" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError("differs"), 1), (KeyboardInterrupt(), 130)],
)
def test_failures_have_exit_codes(error, code, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(demo, "run_demo", fail)
    assert cli.main(["demo"]) == code


def test_help_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert "demo" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_keeps_its_promise_over_eight_seeds(tmp_path):
    found = [
        demo.run_demo(
            tmp_path / str(seed), seed=seed, console=Console(quiet=True)
        )
        for seed in range(8)
    ]
    scores = np.array(
        [
            [
                each.controls["kd"].accuracy,
                each.controls["same_size"].accuracy,
                each.result.accuracy,
            ]
            for each in found
        ]
    )
    units = [each.result.units for each in found]
    print("\nkd, same size, kddp:", scores.round(4).tolist(), units)
    print("means:", scores.mean(axis=0).round(4).tolist())
    print(
        "int8:",
        [
            each.files.agreement.row(each.files.int8.path).top1_agreement
            for each in found
        ],
    )
    kd, same_size, kddp = scores.mean(axis=0)
    assert units[0] <= found[0].units_before / 4
    assert kddp - same_size >= 0
    assert kddp - kd >= -0.02
