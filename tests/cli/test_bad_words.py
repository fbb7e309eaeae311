"""Bad words to every command of `kddp`, each with the line that it ends in.

What is refused is refused in one line, without a traceback, before a file is
made or a step is trained.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_kddp.cli import commands as cli

MODELS = """
import keras

def net(units=6):
    return keras.Sequential([
        keras.Input((4,)),
        keras.layers.Dense(units, "relu", name="hidden"),
        keras.layers.Dense(3, name="out"),
    ])

def spoilt():
    model = net()
    model.get_layer("out").bias.assign([float("nan"), 0, 0])
    return model

def nothing():
    return None

def breaks():
    return {}["key"]

def recurses():
    return recurses()

def forgets():
    raise MemoryError

def wordless():
    raise ValueError

def long():
    raise ValueError("x" * 100_000)

def interrupted():
    raise KeyboardInterrupt

def exits():
    raise SystemExit("used as: net.py DATA")
"""
HUGE = 10**30
FROM = r"must be a whole number from"


def compression(*more, **options):
    """Returns the words of a compression, some of them others."""
    given = {
        "teacher": "bad_models:net",
        "student": "bad_models:net",
        "data": "npz:data.npz",
        "epochs": 4,
        "out": "run",
        **options,
    }
    return [
        "compress",
        *(w for k, v in given.items() for w in (f"--{k}", f"{v}")),
        *more,
    ]


WORDS = {
    "nothing": ([], "required: command"),
    "unknown-command": (["compres"], "invalid choice: 'compres'"),
    "unknown-option": (compression("--epoch-count", "3"), "unrecognized"),
    "demo-seed": (["demo", "--seed", "-1"], FROM),
    "demo-seed-huge": (
        ["demo", "--seed", f"{HUGE}"],
        f"{FROM} 0 to 4294967295",
    ),
    "demo-seed-endless": (["demo", "--seed", "9" * 9999], "999..."),
    "epochs-zero": (compression(epochs=0), f"{FROM} 1 to 1000000"),
    "epochs-endless": (compression(epochs=10**20), f"{FROM} 1 to 1000000"),
    "epochs-text": (compression(epochs="ten"), "Received: ten"),
    "epochs-half": (compression(epochs=2.5), "Received: 2.5"),
    "epochs-endless-digits": (compression(epochs="9" * 5000), "999..."),
    "teacher-epochs": (compression("--teacher-epochs", f"{HUGE}"), FROM),
    "finetune": (compression("--finetune-epochs", f"{HUGE}"), FROM),
    "batch-huge": (compression("--batch-size", f"{10**18}"), FROM),
    "batch-zero": (compression("--batch-size", "0"), FROM),
    "rate-zero": (compression("--learning-rate", "0"), "finite number > 0"),
    "rate-nan": (compression("--learning-rate", "nan"), "finite number > 0"),
    "rate-infinite": (compression("--learning-rate", "inf"), "finite number >"),
    "rate-negative": (compression("--learning-rate=-1"), "finite number > 0"),
    "l1-negative": (compression("--l1=-1"), "`l1` must be a finite number"),
    "l1-nan": (compression("--l1", "nan"), "`l1` must be a finite number"),
    "l1-huge": (compression("--l1", "1e300"), "that float32 holds"),
    "l1-text": (compression("--l1", "much"), "invalid float value"),
    "temperature": (compression("--temperature", "0"), "`temperature` must be"),
    "temperature-nan": (
        compression("--temperature", "nan"),
        "`temperature` mu",
    ),
    "temperature-tiny": (
        compression("--temperature", "1e-300"),
        "float32 hold",
    ),
    "share": (compression("--student-loss-weight", "2"), "number in [0, 1]"),
    "units-huge": (compression("--minimum-units", f"{HUGE}"), FROM),
    "multiple-huge": (compression("--unit-multiple", f"{HUGE}"), FROM),
    "parameters": (compression("--max-parameters", "-3"), FROM),
    "parameters-one": (compression("--max-parameters", "1"), "at least"),
    "bytes": (compression("--max-bytes", "80k"), FROM),
    "drop": (compression("--max-accuracy-drop", "1"), "in [0, 1)"),
    "drop-nan": (compression("--max-accuracy-drop", "nan"), "in [0, 1)"),
    "seeds": (
        compression("--seed", "1", "1"),
        "The seeds must be one or more, and dif",
    ),
    "seed-text": (compression("--seed", "one"), "Received: one"),
    "controls": (compression("--controls", "best"), "invalid choice: 'best'"),
    "layers": (compression("--layers", "hiden"), "`layers` must name layers"),
    "teacher": (compression(teacher="nobody"), "A model must be none, self, a"),
    "teacher-none": (
        compression(teacher="none"),
        "`student_loss_weight` must be 1 where teacher=None",
    ),
    "teacher-capitals": (compression(teacher="Self"), "must be none, self, a"),
    "teacher-none-epochs": (
        compression("--teacher-epochs", "3", teacher="none"),
        "`teacher_epochs` must be left out beside teacher='none': there is no",
    ),
    "teacher-self-epochs": (
        compression("--teacher-epochs", "0", teacher="self"),
        "must be left out beside teacher='self': the student itself is trained",
    ),
    "teacher-none-reference": (
        compression(
            *("--student-loss-weight", "1", "--reference", "teacher"),
            *("--max-accuracy-drop", "0.1"),
            teacher="none",
        ),
        "`reference` must be 'student' or an accuracy where teacher=None",
    ),
    "teacher-none-controls": (
        compression(
            *("--student-loss-weight", "1", "--controls"),
            *("same_size", "same_size_labels"),
            teacher="none",
        ),
        "must have one of 'same_size' and 'same_size_labels'",
    ),
    "student-self": (compression(student="self"), "A model must be a .keras"),
    "student-none-of-it": (
        compression(student="none"),
        "A model must be a .keras file",
    ),
    "module-empty": (compression(teacher=":net"), "A model must be none, self"),
    "module-dots": (compression(teacher="..x:f"), "A model must be none, self"),
    "resume-short": (compression("--resu", "run"), "must be written in full"),
    "trust-code": (compression("--trust-code"), "must stand beside --resume"),
    "teacher-empty": (compression(teacher=""), "A model must be none, self, a"),
    "teacher-nan": (
        compression("--teacher-epochs", "0", teacher="bad_models:spoilt"),
        "`teacher` must have finite weights",
    ),
    "student-nan": (
        compression(student="spoilt.keras"),
        "`student` must have finite weights",
    ),
    "student": (compression(student="none.keras"), "must be a .keras file"),
    "student-none": (
        compression(student="bad_models:nothing"),
        "must return a built keras.Model",
    ),
    "student-directory": (compression(student=".keras"), "must be a .keras"),
    "data": (compression(data="mnist"), "The data must be digits, idx:DIR"),
    "data-missing": (compression(data="npz:no.npz"), "no.npz' must be a file"),
    "data-nan": (compression(data="npz:nan.npz"), "must be finite numbers"),
    "data-labels": (compression(data="npz:labels.npz"), "labels of"),
    "data-negative": (compression(data="npz:negative.npz"), "labels of"),
    "data-empty": (compression(data="npz:empty.npz"), "must hold examples"),
    "data-one-class": (compression(data="npz:one.npz"), "of each of the 3"),
    "explain-none": (["explain", "no.keras"], "must be a .keras file"),
    "explain-module": (["explain", "no:f"], "must be a module that can be"),
    "explain-exits": (
        ["explain", "bad_models:exits"],
        "'bad_models:exits' must return, not exit. Received: sys.exit('used",
    ),
    "explain-program": (
        ["explain", "bad_program:net"],
        "'bad_program' must return, not exit. Received: sys.exit(0)",
    ),
    "student-program": (
        compression(student="bad_program:net"),
        "'bad_program' must return, not exit",
    ),
    "explain-long": (["explain", "x" * 100_000], "Received: 'xxx"),
    "explain-bytes": (["explain", "n\udcff.keras"], "must be a .keras file"),
    "explain-null": (["explain", "a\0.keras"], "kddp: "),
    "verify-none": (["verify", "nowhere"], "must hold student.keras"),
    "verify-time": (
        ["verify", "nowhere", "--time-limit", "x"],
        "invalid float",
    ),
    "export-none": (["export", "nowhere"], "must hold student.keras"),
    "export-format": (["export", "run", "--format", "onnx"], "invalid choice"),
    "export-flavour": (
        ["export", "run", "--quantization", "int2"],
        "invalid choice",
    ),
    "export-epochs": (
        ["export", "run", "--qat-epochs", "1.5"],
        "invalid int value",
    ),
    "verify-data": (["verify", "run", "--data", ""], "must name data. Rec"),
    "export-data": (["export", "run", "--data", " "], "must name data. Rec"),
    "resume-twice": (
        ["compress", "--resume", "run", "--resume=other"],
        "`--resume` must stand once",
    ),
    "bench-none": (["bench", "nowhere"], "must hold student.keras"),
    "bench-time": (["bench", "nowhere", "--time-limit", ""], "invalid float"),
}
FAILURES = {
    "breaks": ("unexpected KeyError: 'key' (where: kddp --traceback", 1),
    "recurses": ("unexpected RecursionError: maximum recursion depth", 1),
    "forgets": ("unexpected MemoryError (where: kddp --traceback ...)", 1),
    "wordless": ("unexpected ValueError (where: kddp --traceback ...)", 1),
    "long": ("xxx [...] xxx", 2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with models, and data of which some are bad."""
    path = tmp_path_factory.mktemp("words")
    (path / "bad_models.py").write_text(MODELS)
    (path / "bad_program.py").write_text("import sys\nsys.exit(0)")
    x = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
    y = x[:, :3].argmax(axis=1)
    nan = np.where(np.arange(96)[:, None] == 5, np.nan, x)
    for name, inputs, labels in (
        ("data", x, y),
        ("nan", nan, y),
        ("labels", x, y + 5),
        ("negative", x, y - 1),
        ("empty", x[:0], y[:0]),
        ("one", x, 0 * y),
    ):
        np.savez(
            path / f"{name}.npz",
            x_train=inputs,
            y_train=labels,
            x_test=x,
            y_test=y,
        )
    namespace = {}
    exec(MODELS, namespace)  # noqa: S102
    namespace["spoilt"]().save(path / "spoilt.keras")
    return path


@pytest.fixture
def inside(folder, monkeypatch):
    """Works in the folder, where a first step would be an error."""

    def step(*arguments, **options):
        raise AssertionError("a step was trained")

    monkeypatch.setattr(keras.Model, "train_step", step)
    monkeypatch.chdir(folder)
    yield folder
    sys.modules.pop("bad_models", None)


def ended(words):
    """Returns the exit code of a command."""
    try:
        return cli.main(words)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("name", WORDS)
def test_bad_words_end_in_one_line_and_exit_code_2(name, inside, capsys):
    words, part = WORDS[name]
    before = {*inside.rglob("*.*")}

    assert ended(words) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    *_, line = shown.err.splitlines()
    assert line.startswith("kddp")
    assert part in line
    assert len(line) < 2_200
    left = {path for path in inside.rglob("*.*") if "cache" not in str(path)}
    assert left <= before


def test_the_table_is_long():
    assert len(WORDS) >= 60


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_traceback_is_shown_where_it_is_asked_for(
    name, place, inside, capsys
):
    line, code = FAILURES[name]
    words = ["explain", f"bad_models:{name}"]

    assert ended(words) == code
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1

    assert ended([*words[:place], "--traceback", *words[place:]]) == code
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert line in err.splitlines()[-1]


def test_an_interrupt_is_exit_code_130(inside, capsys):
    assert ended(["explain", "bad_models:interrupted"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_teacher_that_loses_its_loss_ends_the_run(
    folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    words = compression("--controls", out="lost")
    code = ended([*words, "--learning-rate", "1e30"])
    sys.modules.pop("bad_models", None)

    assert code == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("kddp: The loss or a weight became NaN or infinite")
    assert "of the teacher: nothing can be made of it. Lower" in line
    assert not (folder / "lost" / "student.keras").exists()


def test_the_help_names_the_exit_codes(capsys):
    assert ended(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit codes: 0, done; 1, a result disagrees" in text
    assert "2, bad input; 130, interrupted" in text
    assert "--traceback" in text


class Full:
    """A stream on a full disk, of a program that goes on."""

    encoding = "utf-8"

    def write(self, text):
        raise OSError(28, "No space left on device")

    def flush(self):
        raise OSError(28, "No space left on device")


def test_an_error_that_cannot_be_written_keeps_its_exit_code(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Full())
    assert ended(["explain", "no.keras"]) == 2


def test_output_that_cannot_be_written_is_an_error(monkeypatch, capsys, inside):
    monkeypatch.setattr(sys, "stdout", Full())
    assert ended(["explain", "bad_models:net"]) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_closed_streams_are_no_error(monkeypatch, inside):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert ended(["explain", "bad_models:net"]) == 0


SHELL = f"{sys.executable} -m keras_kddp.cli"


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        # The reader is gone before the first word is written.
        (
            f"{SHELL} explain bad_models:net | true; echo $PIPESTATUS",
            0,
            "1",
            "",
        ),
        (f"{SHELL} explain no.keras >&- 2>&-", 2, "", ""),
        (
            f"PYTHONIOENCODING=ascii LC_ALL=C PYTHONUTF8=0 {SHELL} nä",
            2,
            "",
            "invalid choice",
        ),
    ],
    ids=["broken-pipe", "closed", "ascii"],
)
def test_a_shell_gets_exit_codes_and_no_traceback(line, code, out, err, folder):
    root = Path(cli.__file__).parents[2]
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{root}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert out in done.stdout
    assert err in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
