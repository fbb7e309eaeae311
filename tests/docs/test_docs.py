"""What the walks in `docs/` say, done."""

import contextlib
import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import keras
import pytest
from sklearn.datasets import load_digits

from keras_kddp.cli import commands as cli
from keras_kddp.cli import demo
from keras_kddp.export import read_metadata

DOCS = Path(__file__).parents[2] / "docs"
CHIP, REUSE = "from_keras_to_the_chip.md", "reuse.md"


def walk(page, folder):
    """Runs every block of a page in its order, in a folder of its own.

    Returns:
        Command line -> exit code and text; and the names that Python has.
    """
    blocks = re.findall(
        r"```(sh|python)\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL
    )
    epochs = {"epochs": 12, "teacher_epochs": 6, "finetune_epochs": 6}
    job = replace(demo.DEMO, l1=0.2, controls=["kd"], **epochs)
    digits = load_digits()
    names = {
        "x_train": (digits.data / 16).astype("float32"),
        "y_train": digits.target,
    }
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "DEMO", job)
        patch.chdir(folder)
        for kind, text in blocks:
            if kind == "python":
                for name in ("student", "teacher"):
                    names[name] = keras.saving.load_model(
                        f"runs/demo/{name}.keras"
                    )
                exec(text, names)
                continue
            program, command, *words = shlex.split(text)
            assert program == "kddp"
            with contextlib.redirect_stdout(io.StringIO()) as shown:
                code = cli.main([command, *words])
            found[" ".join([command, *words])] = code, shown.getvalue()
    return found, folder / "runs" / "demo", names


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Returns what the page on chips does."""
    return walk(CHIP, tmp_path_factory.mktemp("page"))


def test_every_command_succeeds(page):
    commands, _, _ = page

    assert len(commands) == 5
    assert [code for code, _ in commands.values()] == [0] * 5


def test_the_demo_leaves_a_bundle_and_prints_the_agreement(page):
    (_, shown), *_ = page[0].values()

    assert "Agreement with Keras on 450 samples" in shown
    assert "TFLM" in shown
    assert (page[1] / "micro" / "main.cc").is_file()
    summary = json.loads((page[1] / "summary.json").read_text())
    assert 0 < summary["arena_bytes"] < 10_000


def test_files_say_what_they_are(page):
    _, run, _ = page
    description = json.loads((run / "student_float16.json").read_text())

    labels = [str(digit) for digit in range(10)]
    assert description["labels"] == labels
    assert read_metadata(run / "student_float16.tflite")["labels"] == labels
    assert description["trained_on"] == "digits"
    assert description["inputs"][0]["shape"] == [1, 64]


def test_the_phone_gives_logits(page):
    assert page[2]["logits"].shape == (1, 10)


def test_the_bundle_takes_pixels(page):
    header = (page[1] / "micro" / "golden.h").read_text()

    assert "extern const uint8_t student_golden_input_0[4][64];" in header


def test_bench_shows_before_and_after(page):
    code, shown = page[0]["bench runs/demo"]

    assert code == 0
    lines = shown.splitlines()
    assert [line.split()[0] for line in lines] == (
        ["model", *["before"] * 2, *["after"] * 2, *["before"] * 2]
    )
    assert all("x" in line for line in lines[-2:])


@pytest.mark.slow
def test_a_student_is_reused_as_the_page_says(tmp_path):
    commands, run, names = walk(REUSE, tmp_path)

    assert len(commands) == 5
    assert [code for code, _ in commands.values()] == [0] * 5
    card = (run / "saved_model" / "README.md").read_text()
    assert card.startswith('---\nlicense: "apache-2.0"')
    units = names["student"].get_layer("hidden").units
    assert names["features"].shape == (8, units)
    assert names["model"](names["x_train"][:3]).shape == (3, 2)
    assert names["again"].count_params() == names["student"].count_params()
    assert names["found"].zero_fractions["hidden:kernel"] >= 0.49
    assert (run / "qat" / "student_int8.tflite").is_file()
    assert (run / "student_int4.tflite").is_file()
