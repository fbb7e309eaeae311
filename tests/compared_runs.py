"""Two run directories that must hold the same, to the bit."""

import json
from pathlib import Path

import keras
import numpy as np


def assert_same_run(found: Path, expected: Path) -> None:
    """Checks models, removals, numbers and files; not how long it took."""
    names = [
        sorted(
            str(x.relative_to(run))
            for x in run.rglob("*")
            # Checkpoints are numbered as often as they were written.
            if x.is_file() and "stages" not in x.relative_to(run).parts
        )
        for run in (found, expected)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        one, other = found / name, expected / name
        if one.suffix == ".keras":
            assert_same_model(one, other)
        elif one.name == "summary.json":
            assert numbers(one) == numbers(other)
        elif one.suffix in (".tflite", ".cc", ".h") or one.name in (
            "removals.json",
        ):
            assert one.read_bytes() == other.read_bytes(), name


def assert_same_model(found: Path, expected: Path) -> None:
    """Checks configuration and weights of two model files."""
    one, other = map(keras.models.load_model, (found, expected))
    assert one.get_config() == other.get_config()
    for mine, yours in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), yours.numpy())


def numbers(summary: Path) -> dict:
    """Returns what a summary says, but for the time and the place."""
    found = json.loads(summary.read_text("utf-8"))
    assert found.pop("seconds") > 0
    job = found.get("job", {})
    job.pop("out", None)
    return found
