"""The guarantees of `docs/when_things_go_wrong.md` name tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "when_things_go_wrong.md").read_text("utf-8")
GUARANTEES = [
    line
    for line in PAGE.split("## Exit codes")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| What is")
]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`( \(slow)?")
NAMED = sorted({each.groups() for each in TEST.finditer(PAGE)})


def functions_of(path):
    """Returns name -> whether it is marked slow, of a file's functions."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    marks = [x for x in tree.body if ast.unparse(x).startswith("pytestmark")]
    is_slow = any("mark.slow" in ast.unparse(mark) for mark in marks)
    return {
        node.name: is_slow
        or "pytest.mark.slow" in map(ast.unparse, node.decorator_list)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize(("path", "name", "slow"), NAMED)
def test_a_test_that_the_page_names_exists(path, name, slow):
    found = functions_of(path)

    assert found[name] is bool(slow)


@pytest.mark.parametrize("row", GUARANTEES, ids=lambda row: row[2:40])
def test_every_guarantee_names_a_test(row):
    assert TEST.search(row)
