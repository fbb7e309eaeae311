"""Damaged and hostile files: no crash, no hang, no code, nothing lost.

1,700 cases in three minutes, each kind in processes of their own with a
limit of memory and of time. To see one kind:

    pytest -m slow tests/fuzz/test_fuzz_files.py -k tflite
"""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from small_datasets import arrays, write_idx

import keras_kddp as kddp
from keras_kddp.export import to_tflite

PROGRAM = Path(__file__).with_name("files_program.py")
CASES = {
    "keras": 400,
    "tflite": 400,
    "data": 300,
    "spec": 150,
    "summary": 250,
    "cache": 200,
}
BATCH = 400
SECONDS = 500  # for a batch
STRANGER = """
from pathlib import Path
import keras
Path({canary!r}).touch()

class Run(keras.layers.Layer):
    pass

def run(*_):
    return None
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns a folder of whole files."""
    folder = tmp_path_factory.mktemp("whole")
    inputs = keras.Input((4, 3, 1))
    x = keras.layers.Conv2D(2, 2, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    model.save(folder / "model.keras")
    to_tflite(model, folder / "model.tflite")
    np.savez(folder / "data.npz", **arrays())
    write_idx(folder, arrays())
    before = Path(__file__).parents[1] / "written_before" / "run"
    summary = json.loads((before / "summary.json").read_text())
    (folder / "summary.json").write_text(
        json.dumps(summary | {"teacher_sha256": "0" * 64, "data_notes": ["x"]})
    )
    x = np.random.default_rng(0).random((6, 4, 3, 1)).astype("float32")
    kddp.TeacherCache(model, x, path=folder / "cache")
    return folder


def sums_of(folder):
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_no_file_crashes_hangs_runs_or_loses_anything(kind, whole, tmp_path):
    around = tmp_path / "a" / "b"
    inside = around / "work"
    inside.mkdir(parents=True)
    (around / "kept.txt").write_text("mine")
    (tmp_path / "kept.txt").write_text("mine")
    modules = tmp_path / "modules"
    modules.mkdir()
    canary = str(tmp_path / "ran")
    (modules / "stranger.py").write_text(STRANGER.format(canary=canary))
    paths = [modules, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    paths.append(Path(kddp.__file__).parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "TFDS_DATA_DIR": str(tmp_path / "tfds"),
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }
    before = sums_of(whole)

    found = []
    for first in range(0, CASES[kind], BATCH):
        count = min(BATCH, CASES[kind] - first)
        done = subprocess.run(
            [
                *(sys.executable, PROGRAM, kind),
                *map(str, (first, count, whole)),
            ],
            cwd=inside,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )
        lines = [*map(json.loads, done.stdout.splitlines())]
        said = [each for each in lines if "said" in each]
        assert len(said) == count, (lines[-1:], done.returncode, done.stderr)
        found += said

    wrong = [each for each in found if each["said"].startswith("WRONG")]
    assert wrong == []
    refused = Counter(each["said"].split(":")[0] for each in found)["refused"]
    assert refused > 0.3 * len(found)  # what is changed is changed
    said = [each["said"] for each in found if each["said"] != "read"]
    assert min(map(len, said)) > 60  # each says what is wrong
    assert not Path(canary).exists()
    assert sums_of(whole) == before
    left = {path.name for path in (*tmp_path.iterdir(), *around.iterdir())}
    assert left <= {"a", "b", "kept.txt", "modules", "work", "tfds"}
    for place in (around, tmp_path):
        assert (place / "kept.txt").read_text() == "mine"
