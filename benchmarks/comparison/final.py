"""Test results: looked at once, for a commit whose defaults are frozen."""

import hashlib
import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from comparison.cells import FOLDER, Cell, CellStore, Spec
from comparison.data import load
from comparison.plan import CHOOSING_SEEDS, Plan
from comparison.statistics import outcome
from comparison.teachers import predictions_of_split

ROOT = Path(__file__).parents[2]

ANSWERS = ROOT / "runs" / "comparison" / "test"
"""Where answers to test examples wait for `--final`, unread."""


def final_path(data: str) -> Path:
    """Returns where the test results of a data set are recorded."""
    return FOLDER / data / "final.json"


def hidden_path(data: str, key: str) -> Path:
    """Returns where the answers of a run to test examples wait."""
    return ANSWERS / data / f"{key}.npy"


def hide(spec: Spec, predicted: np.ndarray) -> str:
    """Writes predicted classes of test examples; returns the file's hash."""
    path = hidden_path(spec.data, spec.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, predicted)
    partial.replace(path)
    return _hash(path)


def is_answered(cell: Cell) -> bool:
    """Says whether the answers of a run to test examples are here.

    Those of the same run with other code may lie in their place. The first
    cells tell no hash; theirs are believed.
    """
    path = hidden_path(cell["data"], cell["key"])
    return path.exists() and cell.get("hidden") in (None, _hash(path))


def forget_unanswered(store: CellStore) -> None:
    """Has runs trained anew whose answers to test examples are not here.

    Those that something is chosen from are never tested.
    """
    store.keep(lambda cell: cell["seed"] in CHOOSING_SEEDS or is_answered(cell))


def check_first_look(data: str) -> None:
    """Checks that nobody has looked, and what is here is one commit.

    Raises:
        SystemExit: If it is not so.
    """
    if final_path(data).exists():
        raise SystemExit(
            f"{looked_at(data)} It is looked at once: a method that was "
            "changed after that needs data that nobody has seen."
        )
    if _git("status", "--porcelain"):
        raise SystemExit(
            "The test split is looked at for one commit. Received changes "
            "that are not committed. Commit code and runs first."
        )


def looked_at(data: str) -> str:
    """Returns whether the test split was looked at, in a sentence."""
    path = final_path(data)
    if not path.exists():
        return "The test split has not been looked at."
    told = json.loads(path.read_text())
    return (
        f"The test split was looked at on {told['date']}, for commit "
        f"{told['commit']}."
    )


def read_tests(data: str, plans: Sequence[Plan]) -> None:
    """Marks what all runs answered to test examples, and records it.

    Args:
        data: Name of the data.
        plans: Of all its students, finished.

    Raises:
        SystemExit: If runs are missing, the commit is not what is here, or
            the test results were looked at before.
    """
    missing = sum(len(plan.missing()) for plan in plans)
    if missing:
        raise SystemExit(
            f"All runs must be there first. Received {missing} missing ones. "
            "Run it with --final again, and with neither --report-only nor "
            "--students, until there are none."
        )
    check_first_look(data)
    labels = load(data).test.y
    content = {
        "commit": _git("rev-parse", "HEAD"),
        "date": datetime.now(UTC).date().isoformat(),
        "teacher": outcome(predictions_of_split(data, "test") == labels),
        "runs": {
            cell["key"]: {
                **outcome(np.load(hidden_path(data, cell["key"])) == labels),
                "method_hash": cell["method_hash"],
            }
            for plan in plans
            for cell in plan.cells()
        },
    }
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    partial = final_path(data).with_suffix(".partial")
    partial.write_text(text)
    partial.replace(final_path(data))


def with_tests(data: str, cells: Sequence[Cell]) -> tuple[list[Cell], Any]:
    """Returns cells with their test results, and the teacher's.

    Args:
        data: Name of the data.
        cells: Finished runs.

    Returns:
        Those of the code that was tested; the cells as they are and None,
        where nobody has looked, or at other code only.
    """
    path = final_path(data)
    if not path.exists():
        return list(cells), None
    content = json.loads(path.read_text())
    runs = content["runs"]
    found = [
        {**cell, "test": runs[cell["key"]]}
        for cell in cells
        if cell["key"] in runs
        and cell["method_hash"] == runs[cell["key"]]["method_hash"]
    ]
    return (found, content["teacher"]) if found else (list(cells), None)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _git(*words: str) -> str:
    command = ["git", *words]
    try:
        done = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"--final records a commit, and git tells of none here: {error}"
        ) from None
    return done.stdout.strip()
