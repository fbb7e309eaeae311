"""What a comparison keeps of its runs, and which of them still hold."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from comparison import cells
from comparison.training import narrowed
from comparison_spec import SPEC

from keras_kddp.models import digits_student
from keras_kddp.profiling import profile

OWN = (
    *("data", "views", "students", "training", "methods", "cuts"),
    *("slimming", "worker"),
)
PEERS = ("twins", "torch_training", "torch_pruning", "peers")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "FOLDER", tmp_path)
    return cells.CellStore("digits")


def test_a_finished_run_is_found_again_in_its_line(store, tmp_path):
    store.add(SPEC, {"units": 16})
    store.add(replace(SPEC, seed=1), {"units": 17})

    found = cells.CellStore("digits").find(SPEC)

    assert found["units"] == 16
    assert found["machine"]["cores"] >= 1
    lines = (tmp_path / "digits" / "mlp.jsonl").read_text().splitlines()
    assert [json.loads(line)["units"] for line in lines] == [16, 17]


def test_a_line_that_was_broken_off_is_told_and_spoils_no_other(
    store, tmp_path, capsys
):
    path = tmp_path / "digits" / "mlp.jsonl"
    for seed in (0, 1):
        store.add(replace(SPEC, seed=seed), {"units": 16})
    path.write_text(path.read_text()[:-40])  # killed, or no space left

    again = cells.CellStore("digits")
    again.add(replace(SPEC, seed=2), {"units": 16})
    found = cells.CellStore("digits")

    seeds = [s for s in range(3) if found.find(replace(SPEC, seed=s))]
    assert seeds == [0, 2]
    assert "line 2 is no finished run" in capsys.readouterr().err
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"epochs": 16},
        {"size": 1},
        {"recipe": {"learning_rate": 0.002}},
        {"options": {"temperature": 2.0}},
        {"teacher": "def"},
        {"precision": "mixed_bfloat16"},
        {"backend": "jax"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_run_of_other_settings_is_not_used(store, change):
    store.add(SPEC, {"units": 16})

    assert store.find(replace(SPEC, **change)) is None


def test_the_long_run_of_one_length_may_be_the_short_one_of_another(store):
    store.add(SPEC, {"units": 16})

    assert store.find(replace(SPEC, length="long"))["length"] == "long"


METHOD = """\
import math

SCALE = 2

def score(x):
    \"\"\"Words.\"\"\"
    return SCALE * math.sqrt(x)
"""


def changed(old, new):
    """Returns the only file, with something else in it."""
    assert old in METHOD
    return {"data/one.py": METHOD.replace(old, new)}


def hash_of(sources, root, monkeypatch):
    """Returns the hash of files, written by their name."""
    for file, text in sources.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    monkeypatch.setattr(cells.keras_kddp, "__file__", str(root / "x.py"))
    monkeypatch.setattr(cells, "__file__", str(root / "benchmarks" / "x.py"))
    return cells.method_hash()


@pytest.mark.parametrize(
    ("files", "is_same"),
    [
        pytest.param({"data/one.py": METHOD}, True, id="the same"),
        pytest.param({"pruning/rooms/two.py": METHOD}, True, id="a move"),
        pytest.param(
            {
                **changed("SCALE = 2", ""),
                "layers/two.py": '"""Numbers."""\n\nSCALE = 2\n',
            },
            True,
            id="a split",
        ),
        pytest.param(
            {"data/one.py": METHOD.replace("SCALE = 2", "") + "SCALE = 2\n"},
            True,
            id="another order",
        ),
        pytest.param(
            {"data/one.py": "from a import b\n" + METHOD}, True, id="an import"
        ),
        pytest.param(
            changed("    return", "    # Why.\n    return"),
            True,
            id="a comment",
        ),
        pytest.param(changed("Words", "Other words"), True, id="a docstring"),
        pytest.param(
            {"data/one.py": METHOD, "export/two.py": METHOD.replace("2", "3")},
            True,
            id="what no result follows from",
        ),
        pytest.param(changed("SCALE * m", "m"), False, id="a formula"),
        pytest.param(changed("= 2", "= 3"), False, id="a number"),
        pytest.param(
            changed("    return", "    if x < 0: x = 0\n    return"),
            False,
            id="a branch",
        ),
    ],
)
def test_the_hash_follows_what_can_change_a_number(
    files, is_same, tmp_path, monkeypatch
):
    before = hash_of({"data/one.py": METHOD}, tmp_path / "1", monkeypatch)

    after = hash_of(files, tmp_path / "2", monkeypatch)

    assert (after == before) is is_same


@pytest.mark.parametrize("name", [*OWN, *PEERS])
def test_the_hash_follows_what_trains_and_it_is_there(
    name, tmp_path, monkeypatch
):
    assert (Path(cells.__file__).parent / f"{name}.py").is_file()

    before = hash_of({}, tmp_path, monkeypatch)
    file = f"benchmarks/{name}.py"

    assert hash_of({file: METHOD}, tmp_path, monkeypatch) != before


def test_a_model_is_narrowed_to_given_widths():
    narrow = narrowed(digits_student(), {"hidden": 16})

    assert profile(narrow).parameters == profile(digits_student(16)).parameters
