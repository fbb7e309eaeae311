"""What the Makefile says of the tests is so."""

import re
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
