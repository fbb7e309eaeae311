"""Test results: looked at once, for a commit whose defaults are frozen."""

import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from comparison.cells import FOLDER, Cell, CellStore
from comparison.data import load
from comparison.plan import Plan
from comparison.statistics import outcome
from comparison.teachers import predictions_of_split
from comparison.worker import hidden_path

ROOT = Path(__file__).parents[2]


def final_path(data: str) -> Path:
    """Returns where the test results of a data set are recorded."""
    return FOLDER / data / "final.json"


def forget_unanswered(store: CellStore) -> None:
    """Has runs trained anew whose answers to test examples are not here."""
    store.keep(lambda cell: hidden_path(cell["data"], cell["key"]).exists())


def read_tests(data: str, plans: Sequence[Plan]) -> None:
    """Marks what all runs answered to test examples, and records it.

    Args:
        data: Name of the data.
        plans: Of all its students, finished.

    Raises:
        SystemExit: If runs are missing, the commit is not what is here, or
            the test results were looked at before.
    """
    path = final_path(data)
    if path.exists():
        told = json.loads(path.read_text())
        raise SystemExit(
            f"The test split of {data} was looked at on {told['date']}, for "
            f"commit {told['commit']}. It is looked at once: a method that was "
            "changed after that needs data that nobody has seen."
        )
    missing = sum(len(plan.missing()) for plan in plans)
    if missing:
        raise SystemExit(
            f"All runs must be there first. Received {missing} missing ones. "
            "Run it without --final."
        )
    if _git("status", "--porcelain"):
        raise SystemExit(
            "The test split is looked at for one commit. Received changes "
            "that are not committed. Commit code and runs first."
        )
    labels = load(data).test.y
    content = {
        "commit": _git("rev-parse", "HEAD"),
        "date": datetime.now(UTC).date().isoformat(),
        "teacher": outcome(predictions_of_split(data, "test") == labels),
        "runs": {
            cell["key"]: outcome(
                np.load(hidden_path(data, cell["key"])) == labels
            )
            for plan in plans
            for cell in plan.cells()
        },
    }
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def with_tests(data: str, cells: Sequence[Cell]) -> tuple[list[Cell], Any]:
    """Returns cells with their test results, and the teacher's.

    Args:
        data: Name of the data.
        cells: Finished runs.

    Returns:
        The cells as they are and None, where nobody has looked.
    """
    path = final_path(data)
    if not path.exists():
        return list(cells), None
    content = json.loads(path.read_text())
    runs = content["runs"]
    found = [{**c, "test": runs[c["key"]]} for c in cells if c["key"] in runs]
    return found, content["teacher"]


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
