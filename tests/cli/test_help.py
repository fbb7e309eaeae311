"""The help of `kddp`, and what it takes to show it."""

import contextlib
import io
import subprocess
import sys
from dataclasses import fields

import pytest

from keras_kddp.arguments import RUN_SECONDS
from keras_kddp.cli import commands as cli
from keras_kddp.cli.config_options import config_of
from keras_kddp.compression.choices import CONTROLS
from keras_kddp.compression.config import CompressionConfig, option_of

COMMANDS = ("demo", "compress", "explain", "verify", "export", "bench")

HELP_OF_ALL = """
import contextlib, io, sys
from keras_kddp.cli import main

for words in ([], *([name] for name in sys.argv[1:])):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            main([*words, "--help"])
        except SystemExit as end:
            assert end.code == 0
    assert "usage: kddp" in shown.getvalue()
heavy = {"keras", "tensorflow", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""


def required_words():
    return [
        *("compress", "--teacher", "t", "--student", "s", "--data", "d"),
        *("--out", "o", "--epochs", "3"),
    ]


def test_help_imports_neither_keras_nor_tensorflow():
    done = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL, *COMMANDS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_entry_of_a_configuration_is_an_option_but_one():
    without = [
        entry.name
        for entry in fields(CompressionConfig)
        if option_of(entry) is None
    ]
    assert without == ["teacher_learning_rate"]


def test_what_the_command_line_leaves_out_is_what_a_configuration_has():
    given = cli._parser().parse_args(required_words())
    expected = CompressionConfig(
        teacher="t", student="s", data="d", out="o", epochs=3
    )
    found = config_of(given).as_dict()
    for name, value in expected.as_dict().items():
        is_list = isinstance(value, tuple)
        assert found[name] == (list(value) if is_list else value), name


def test_all_stands_for_every_control():
    words = [*required_words(), "--controls", "all"]
    config = config_of(cli._parser().parse_args(words))
    assert config.controls == list(CONTROLS)


@pytest.mark.parametrize("command", ["verify", "export", "bench"])
def test_the_default_time_limit_is_that_of_the_runtimes(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"(default: {RUN_SECONDS})" in text
    assert "(default: None)" not in text
    assert ("what converts or tunes" in text) is (command != "verify")


def test_help_shows_defaults_and_says_what_none_means():
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        with pytest.raises(SystemExit, match="0"):
            cli.main(["compress", "--help"])
    text = " ".join(shown.getvalue().split())
    assert "--batch-size BATCH_SIZE examples (default: 128)" in text
    assert "of the int8 file (default: the method finds its own size)" in text
    assert "--seed SEEDS [SEEDS ...] runs (default: [0])" in text


@pytest.mark.parametrize("missing", ["--teacher", "--data", "--epochs"])
def test_what_has_no_default_is_required(missing, capsys):
    words = required_words()
    place = words.index(missing)
    with pytest.raises(SystemExit, match="2"):
        cli.main(words[:place] + words[place + 2 :])
    assert f"required: {missing}" in capsys.readouterr().err
