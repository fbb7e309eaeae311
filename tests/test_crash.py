"""One run of the command that is killed again and again, and goes on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from compared_runs import assert_same_run

KILLS = 22
# The command, but each epoch is kept, however short it is.
PROGRAM = """
import sys
from keras_kddp.cli import main
from keras_kddp.distillation.checkpoints import resumable

resumable.SECONDS_BETWEEN = 0.0
sys.exit(main(sys.argv[1:]))
"""
WORDS = [
    *("compress", "--teacher", "digits_teacher"),
    *("--student", "digits_student", "--data", "digits", "--epochs", "8"),
    *("--teacher-epochs", "3", "--l1", "0.05", "--batch-size", "64"),
    *("--learning-rate", "0.005", "--seed", "0", "1"),
    *("--controls", "kd", "same_size", "same_size_labels", "random"),
]


def start(*words):
    """Returns the process of the command."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def ended(process, code=0):
    """Returns what a process said that came to its end."""
    said, _ = process.communicate(timeout=600)
    assert process.returncode == code, said
    return said


def steps(run: Path):
    """Returns how many checkpoints and files a run in progress has written."""
    place = run.with_name(f"{run.name}.unfinished")
    written = {}
    for folder, _, names in os.walk(place):  # files come and go meanwhile
        for path in (Path(folder, name) for name in names):
            if path.suffix == ".checkpoint":
                number = int(path.stem)
                written[folder] = max(number, written.get(folder, 0))
            elif "new" in path.parts:
                written[path] = 1
    return sum(written.values())


def steps_until_end(process, run):
    """Returns how many steps a run consists of, while it is made."""
    most = 0
    while process.poll() is None:
        most = max(most, steps(run))
        time.sleep(0.02)
    return most


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    with start(*WORDS, "--out", whole) as process:
        most = steps_until_end(process, whole)
        # 1: so short a training may leave classes that int8 cannot tell apart.
        code = process.returncode
        assert code in (0, 1), process.stdout.read()
    random = np.random.default_rng(0)
    goals = sorted(random.integers(0, int(0.9 * most), KILLS))
    words, places = [*WORDS, "--out", run], []
    for goal in goals:
        with start(*words) as process:
            if steps(run) >= goal:  # it is further: somewhere at its start
                time.sleep(random.uniform(0, 10))
            while steps(run) < goal and process.poll() is None:
                time.sleep(0.02)
            time.sleep(random.uniform(0, 0.5))
            assert process.poll() is None, process.stdout.read()
            process.kill()
        assert not run.exists()
        places.append(steps(run))
        if (tmp_path / "run.unfinished/parts/run.json").is_file():
            words = ["compress", "--resume", run]
    print(f"\nkilled after so many of {most} steps:", places)
    ended(start(*words), code)
    assert_same_run(run, whole)
    assert not (tmp_path / "run.unfinished").exists()
    assert "is finished" in ended(start("compress", "--resume", run))
