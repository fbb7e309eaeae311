"""What `docs/from_keras_to_the_chip.md` says, done."""

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

from keras_kddp import cli, demo
from keras_kddp.export import read_metadata

PAGE = Path(__file__).parents[1] / "docs" / "from_keras_to_the_chip.md"
BLOCKS = re.findall(
    r"```(sh|python)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Runs every block in its order; returns exit code and text of commands."""
    epochs = {"epochs": 12, "teacher_epochs": 6, "finetune_epochs": 6}
    job = replace(demo.DEMO, l1=0.2, controls=["kd"], **epochs)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "DEMO", job)
        patch.chdir(tmp_path_factory.mktemp("page"))
        names = {"x_train": (load_digits().data / 16).astype("float32")}
        for kind, text in BLOCKS:
            if kind == "python":
                student = keras.saving.load_model("runs/demo/student.keras")
                names["student"] = student
                exec(text, names)
                continue
            program, command, *words = shlex.split(text)
            assert program == "kddp"
            with contextlib.redirect_stdout(io.StringIO()) as shown:
                code = cli.main([command, *words])
            found[" ".join([command, *words[1:2]])] = code, shown.getvalue()
        yield found, Path.cwd() / "runs" / "demo", names


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
    code, shown = page[0]["bench"]

    assert code == 0
    lines = shown.splitlines()
    assert [line.split()[0] for line in lines] == (
        ["model", *["before"] * 2, *["after"] * 2, *["before"] * 2]
    )
    assert all("x" in line for line in lines[-2:])
