"""Processes that are killed while they train, and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

PROGRAM = """
import sys
import keras
import numpy as np
from classifiers import CROSSENTROPY
from resumed_runs import X, Y, pruning, student, values

import keras_kddp
from keras_kddp.distillation.checkpoints import resumable

resumable.SECONDS_BETWEEN = 0.0
folder, result = sys.argv[1:]
keras.utils.set_random_seed(3)
teacher = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
distiller = keras_kddp.Distiller(teacher, keras_kddp.prepare(student()))
rate = keras.optimizers.schedules.CosineDecay(0.02, 160)
distiller.compile(
    keras.optimizers.AdamW(rate), CROSSENTROPY, metrics=["accuracy"]
)
log = keras.callbacks.LambdaCallback(
    on_epoch_end=lambda epoch, logs: print(epoch, flush=True)
)
history = distiller.fit(
    X,
    Y,
    epochs=80,
    batch_size=24,
    validation_data=(X, Y),
    verbose=0,
    callbacks=[
        keras_kddp.ResumableCheckpoint(folder),
        log,
        pruning(
            budget=keras_kddp.Budget(max_parameters=300),
            warmup_epochs=8,
            ramp_epochs=8,
            finetune_epochs=40,
            minimum_change=0.2,
        ),
    ],
)
arrays = {f"a{i}": x for i, (_, x) in enumerate(values(distiller))}
np.savez(
    result,
    **arrays,
    **{name: np.array(x) for name, x in history.history.items()},
)
"""


def start(*paths):
    """Starts the program."""
    tests = Path(__file__).parents[1]
    places = [str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *map(str, paths)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )


def last_epoch(process):
    """Waits for a process, and returns the first epoch that it ran."""
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return int(shown.split()[0])


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again_comes_to_the_same(tmp_path):
    whole, parted = tmp_path / "whole.npz", tmp_path / "parted.npz"
    assert last_epoch(start(tmp_path / "none", whole)) == 0
    draw = np.random.default_rng(0)

    for _ in range(3):
        process = start(tmp_path / "checkpoints", parted)
        begun = int(process.stdout.readline())
        for _ in range(int(draw.integers(2, 20))):
            process.stdout.readline()
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert begun < 79
    assert last_epoch(start(tmp_path / "checkpoints", parted)) > begun

    assert not (tmp_path / "checkpoints").exists()
    with np.load(whole) as expected, np.load(parted) as found:
        assert found.files == expected.files
        assert len(expected["parameters"]) == 80
        assert expected["parameters"][-1] <= 300
        for name in expected.files:
            np.testing.assert_array_equal(found[name], expected[name], name)
