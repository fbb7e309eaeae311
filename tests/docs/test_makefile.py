"""What the Makefile says of the tests is so."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_parts_of_the_slow_tests_have_each_of_them_once():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^SLOW_(\w+) := (.*)$", text, re.MULTILINE))
    assert parts.pop("all") == "tests"
    folders = " ".join(parts.values()).split()

    marked = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.slow" in path.read_text(encoding="utf-8")
    ]

    assert len(marked) > 10
    for name in marked:
        assert sum(name.startswith(f"{folder}/") for folder in folders) == 1
    for part in parts:
        assert f"PART={part}" in text


def test_both_backends_run_the_same_tests_which_are_there():
    printed = subprocess.run(
        ["make", "--dry-run", "test-backends"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    commands = dict(re.findall(r"KERAS_BACKEND=(\w+)(.*(?:\n  .*)*)", printed))
    named = {
        backend: re.findall(r"tests/\S+\.py", command)
        for backend, command in commands.items()
    }

    assert named["jax"] == named["torch"] and len(named["jax"]) > 5
    assert all((ROOT / name).is_file() for name in named["jax"])
    for backend, command in commands.items():
        assert f"not slow and not no_{backend}" in command
