"""One run writes into a folder of checkpoints at a time."""

import contextlib
import os
import re
import subprocess
import sys
import threading

import keras
import pytest
from known_activity import fit, make_distiller
from resumed_runs import EndAt, EndedError

from keras_kddp import ResumableCheckpoint
from keras_kddp.atomic_files.folder_lock import FolderLock
from keras_kddp.distillation.checkpoints import resumable
from keras_kddp.distillation.checkpoints.files import check_folder

REFUSED = r"must have one writer at a time.*process \d+ since .* writes"
HOLD = """
import os, sys
from pathlib import Path
from keras_kddp.atomic_files.folder_lock import FolderLock

FolderLock(Path(sys.argv[1]), lambda: True).take()
if sys.argv[2:] and not os.fork():
    sys.stdin.read()
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def at_every_epoch(monkeypatch):
    """Writes a checkpoint after each epoch."""
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN", 0.0)


@contextlib.contextmanager
def held_elsewhere(folder, *arguments):
    """Yields a process that holds a folder; it ends in the end."""
    command = [sys.executable, "-c", HOLD, str(folder), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def refused_elsewhere(folder):
    """Returns what another process is told that wants to have a folder."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.stderr


def during(action):
    """Returns a callback that does something as the second epoch begins."""
    return keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: action() if epoch == 1 else None
    )


def run(folder, *others, **arguments):
    """Returns the number of epochs of a run that ended well."""
    checkpoint = ResumableCheckpoint(folder, **arguments)
    logs = fit(make_distiller(rate=0.5), checkpoint, *others)
    return len(logs["loss"])


def ended(folder):
    """Leaves the checkpoints of a run that an exception has ended."""
    with pytest.raises(EndedError):
        run(folder, EndAt(2))


def leave(folder):
    """Has this process hold a folder no more."""
    lock = FolderLock(folder, lambda: False)
    lock.take()
    lock.release()


def content(folder):
    return {x.name: x.read_bytes() for x in folder.iterdir()}


def test_a_folder_that_another_process_holds_is_refused(tmp_path):
    folder = tmp_path / "checkpoints"
    ended(folder)
    leave(folder)

    with held_elsewhere(folder):
        before = content(folder)
        assert "lock" in before
        with pytest.raises(BlockingIOError, match=REFUSED):
            run(folder)
        assert content(folder) == before

    assert run(folder) == 4  # a process that died holds nothing
    assert not folder.exists()


def test_a_run_holds_its_folder_while_it_trains(tmp_path):
    folder, told = tmp_path / "checkpoints", []
    assert run(folder, during(lambda: told.append(refused_elsewhere(folder))))

    assert re.search(f"BlockingIOError: .*{REFUSED}", told[0])
    assert f"process {os.getpid()} since" in told[0]
    with held_elsewhere(folder):
        pass  # it is free again


def test_two_threads_are_two_runs(tmp_path):
    folder, told = tmp_path / "checkpoints", []

    def second():
        try:
            run(folder)
        except BlockingIOError as error:
            told.append(str(error))

    def begin():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    assert run(folder, during(begin)) == 4
    assert re.search(REFUSED, told[0])


def test_a_run_that_an_exception_ended_is_no_obstacle(tmp_path):
    folder = tmp_path / "checkpoints"
    try:
        run(folder, EndAt(2))
    except EndedError:
        assert run(folder) == 4  # while the traceback keeps the first


@pytest.mark.parametrize("keep", [True, False])
def test_nothing_is_left_of_the_lock(tmp_path, keep):
    folder = tmp_path / "checkpoints"
    run(folder, keep=keep)
    names = [x.name for x in folder.iterdir()] if keep else []
    assert ("lock" in names, folder.exists()) == (False, keep)


def test_a_run_that_is_refused_leaves_no_lock(tmp_path):
    folder = tmp_path / "checkpoints"
    ended(folder)
    with pytest.raises(ValueError, match="go on as it began"):
        fit(make_distiller(rate=0.25), ResumableCheckpoint(folder))
    assert all(x.suffix == ".checkpoint" for x in folder.iterdir())


def test_a_copy_of_the_process_does_not_hold_the_folder(tmp_path):
    with held_elsewhere(tmp_path, "fork") as process:
        process.terminate()  # its copy lives on, and waits for the pipe
        process.wait()
        leave(tmp_path)


def test_what_a_killed_run_leaves_is_no_strange_file(tmp_path):
    with held_elsewhere(tmp_path):
        pass
    assert (tmp_path / "lock").exists()
    check_folder(tmp_path)


def test_a_lock_of_somebody_else_is_a_strange_file(tmp_path):
    (tmp_path / "lock").write_text("mine")
    with pytest.raises(ValueError, match=r"Received: .* with \['lock'\]"):
        check_folder(tmp_path)
