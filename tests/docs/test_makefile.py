"""What the Makefile says of the tests is so."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def printed_by_make(*arguments: str) -> str:
    """Returns the commands that make would run."""
    return subprocess.run(
        ["make", "--dry-run", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def slow_tests(*arguments: str) -> list[str]:
    """Returns what make would run the slow tests of."""
    printed = printed_by_make("test-slow", *arguments)
    command = re.findall(r"pytest.* -m slow(.*(?:\n  .*)*)", printed)[0]
    return re.findall(r"(?<=[ =])tests\S*", command)


def test_the_parts_of_the_slow_tests_have_each_of_them_once():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    parts = re.findall(r"^SLOW_(\w+) :=", text, re.MULTILINE)
    parts.remove("all")
    folders = sum((slow_tests(f"PART={part}") for part in parts), [])

    marked = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.slow" in path.read_text(encoding="utf-8")
    ]

    assert len(marked) > 10
    for name in marked:
        around = [name, *map(str, Path(name).parents)]
        assert sum(folder in around for folder in folders) == 1, name
    for part in parts:
        assert f"PART={part}" in text


def test_what_needs_the_peers_runs_beside_them_alone():
    printed = printed_by_make("test-slow")
    first, second = re.findall(
        r"(\S+)/bin/python -m pytest.* -m slow(.*(?:\n  .*)*)", printed
    )
    peers = slow_tests("PART=bench")

    assert "tests/benchmarks/test_peers.py" in peers
    assert first[0] == ".venv"
    assert re.findall(r"--ignore=(\S+)", first[1]) == peers
    assert second[0] == ".venv-bench"
    assert second[1].split()[-len(peers) :] == peers
    for name in peers:
        assert (ROOT / name).is_file()


def test_both_backends_run_the_same_tests_which_are_there():
    printed = printed_by_make("test-backends")
    commands = dict(re.findall(r"KERAS_BACKEND=(\w+)(.*(?:\n  .*)*)", printed))
    named = {
        backend: re.findall(r"tests/\S+\.py", command)
        for backend, command in commands.items()
    }

    assert named["jax"] == named["torch"] and len(named["jax"]) > 5
    assert all((ROOT / name).is_file() for name in named["jax"])
    for backend, command in commands.items():
        assert f"not slow and not no_{backend}" in command


@pytest.mark.parametrize("part", ["oldest", "all"])
def test_the_slow_tests_run_the_core_on_the_oldest_versions(part):
    printed = printed_by_make("test-slow", f"PART={part}")
    (command,) = re.findall(
        r"venv-oldest/bin/python -m pytest(.*\n.*)", printed
    )
    named = re.findall(r"tests/\S+", command)

    assert "tests/distillation/test_exact_swap.py" in named
    assert all((ROOT / name).exists() for name in named)
    assert (" -m slow" in printed) == (part == "all")
    assert "PART=oldest" in printed_by_make("help")


def test_the_oldest_versions_are_bounds_of_all_that_is_asked_for():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    asked_for = [*project["dependencies"], *sum(extras.values(), [])]
    unbounded = {x for x in asked_for if ">=" not in x}
    (installed,) = re.findall(
        r"--resolution lowest-direct[^']*'\.\[([^]]*)\]'",
        printed_by_make("--always-make", ".venv-oldest/.installed"),
    )

    assert all(x.startswith("keras-kddp[") for x in unbounded)
    # Backends, benchmark and linters have environments of their own.
    apart = {"all", "bench", "dev", "jax", "torch"}
    assert {*installed.split(",")} == {*extras} - apart
