"""Processes that crash, stop, loop, and outlive nobody."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_kddp.export.runtimes import process
from keras_kddp.export.workers import guard
from keras_kddp.export.workers.worker import Worker
from keras_kddp.export.workers.worker_process import TimeLimitError, WorkerError

ROOT = Path(__file__).parents[2]
PATIENCE = 10  # seconds that a test waits for what takes far less

# In C, with the lock of the interpreter held: no thread, no signal gets in.
IN_C = "sum(itertools.repeat(0))"
HANDLER = """
import itertools, os, signal, sys, time

def answer(do, report):
    exec(do)
    return {"pid": os.getpid()}
"""


@pytest.fixture
def worker(tmp_path):
    """Yields a worker that executes the statements it is asked to do."""
    handler = tmp_path / "handler.py"
    handler.write_text(HANDLER)
    worker = Worker(handler)
    yield worker
    worker.close()


def runs(pid):
    """Returns whether a process is there, and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(holds):
    """Waits until a condition holds, and fails if it does not."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "do",
    [
        "while True: pass",
        "time.sleep(1000)",
        IN_C,
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "os.close(1); os.fork(); time.sleep(1000)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)",
        "print('x' * 1000000); time.sleep(1000)",
    ],
    ids=["loop", "sleep", "in C", "stopped", "forked", "deaf", "talking"],
)
def test_what_never_ends_is_killed_and_said(worker, do):
    pid = worker.ask({"do": ""})["pid"]

    with pytest.raises(TimeLimitError, match=r"^it did not end in 0\.3 s"):
        worker.ask({"do": do}, time_limit=0.3)

    assert worker.pid is None
    assert not runs(pid)
    assert worker.ask({"do": ""}, time_limit=60)["pid"] != pid


def test_signs_of_life_are_waited_for(worker):
    do = "for _ in range(9): time.sleep(0.1); report()"

    assert worker.ask({"do": do}, time_limit=0.7)["error"] is None


def test_what_the_handler_says_on_the_way_is_handed_on(worker):
    said = []

    worker.ask(
        {"do": "report({'a': 1}); report(); report({'a': 2})"}, said.append
    )

    assert said == [{"a": 1}, {"a": 2}]


def test_no_limit_is_no_limit(worker):
    assert worker.ask({"do": "time.sleep(0.6)"})["error"] is None


def test_loading_does_not_count(tmp_path):
    handler = tmp_path / "handler.py"
    handler.write_text("import time; time.sleep(0.6)" + HANDLER)
    worker = Worker(handler)

    assert worker.ask({"do": ""}, time_limit=0.3)["error"] is None

    worker.close()


def test_a_start_that_never_ends_is_said(tmp_path):
    handler = tmp_path / "handler.py"
    handler.write_text("import time; time.sleep(1000)")
    worker = Worker(handler, loading_limit=0.3)

    with pytest.raises(WorkerError, match=r"its start did not end in 0\.3 s"):
        worker.ask({})

    assert worker.pid is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("while :; do :; done", "its start did not end in 0.3 s"),
        ("exec sleep 1000", "its start did not end in 0.3 s"),
        ("exec >&-; exec sleep 1000", "its process ended with SIGKILL"),
        ("echo hello; exec sleep 1000", "said 'hello' instead of a reply"),
        ("echo '[1]'; exec sleep 1000", "said '[1]' instead of a reply"),
        ("exit 3", "its process ended with exit code 3"),
    ],
)
def test_an_interpreter_that_is_no_python_is_absent_in_time(
    script, reason, tmp_path, monkeypatch
):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(process, "_LOADING", 0.3)

    absence = process.failure_of(str(python), "tflite-runtime")

    assert absence.startswith("it cannot be loaded (")
    assert reason in absence
    process.worker_of(str(python)).close()


def test_a_request_that_nobody_reads_ends(worker):
    pid = worker.ask({"do": ""})["pid"]
    os.kill(pid, signal.SIGSTOP)

    with pytest.raises(TimeLimitError, match=r"did not end in 0\.3 s"):
        worker.ask({"do": "#" * 1_000_000}, time_limit=0.3)


def test_a_long_request_arrives_whole(worker):
    do = f"assert len('{'x' * 1_000_000}') == 1_000_000"

    assert worker.ask({"do": do}, time_limit=60)["error"] is None


def test_a_death_in_the_middle_is_told_though_a_fork_goes_on(worker):
    do = "os.fork() or time.sleep(1000); os._exit(3)"

    with pytest.raises(WorkerError, match="ended with exit code 3"):
        worker.ask({"do": do}, time_limit=60)


def test_many_time_limits_leave_nothing_open(worker):
    worker.ask({"do": ""})
    worker.close()
    before = sorted(os.listdir("/dev/fd"))

    for _ in range(8):
        with pytest.raises(TimeLimitError):
            worker.ask({"do": "time.sleep(1000)"}, time_limit=0.02)

    assert sorted(os.listdir("/dev/fd")) == before


def test_the_end_of_a_thread_ends_no_worker(worker):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pid = pool.submit(worker.ask, {"do": ""}).result()["pid"]

    assert worker.ask({"do": ""})["pid"] == pid


def test_two_threads_wait_for_each_other_without_a_limit(worker):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        replies = [
            pool.submit(worker.ask, {"do": "time.sleep(0.4)"}, time_limit=0.7)
            for _ in range(2)
        ]

    assert [reply.result()["error"] for reply in replies] == [None, None]


# --- orphans --------------------------------------------------------------

PARENT = """
import json, os, signal, sys, threading, time, types
PATIENCE = 12
for number in (signal.SIGHUP, signal.SIGQUIT):  # ignored under nohup
    signal.signal(number, signal.SIG_DFL)
package = types.ModuleType("keras_kddp.export")  # without TensorFlow
package.__path__ = [sys.argv[1] + "/keras_kddp/export"]
sys.modules["keras_kddp.export"] = package
from pathlib import Path
from keras_kddp.export.workers import guard
from keras_kddp.export.workers.worker import Worker

signal.signal(signal.SIGINT, signal.default_int_handler)
_, _, folder, request, time_limit = sys.argv
worker = Worker(Path(folder, "handler.py"))
pids = [worker.ask({"do": ""})["pid"]]

def note(state):
    print(json.dumps(pids + state["forks"]), flush=True)

{before}
with guard.temporary_folder() as place:
    (place / "file").write_text("x")
    worker.ask(
        {"do": "open(os.environ['TMPDIR'] + '/x', 'w').close();" + request},
        note,
        time_limit=float(time_limit),
    )
    {after}
"""
TELL = "report({'forks': []});"
FORK = """
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        sum(itertools.repeat(0))
    children.append(child)
report({'forks': children})
os.waitpid(children[0], 0)
"""


@pytest.fixture
def start_parent(tmp_path):
    """Returns what starts a process that asks a worker."""
    started = []

    def start(request, *, before="", after="", tell=TELL, time_limit=1000):
        (tmp_path / "handler.py").write_text(HANDLER)
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        code = PARENT.replace("{before}", before).replace("{after}", after)
        given = [str(ROOT), str(tmp_path), tell + request, str(time_limit)]
        parent = subprocess.Popen(
            [sys.executable, "-c", code, *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)},
            text=True,
        )
        started.append(parent)
        return parent

    yield start
    for parent in started:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def heard(parent):
    """Returns the pids of a parent's worker and of its forks."""
    return json.loads(parent.stdout.readline())


def check_nothing_is_left(folder, pids):
    wait_until(lambda: not any(map(runs, pids)))
    wait_until(lambda: not any((folder / "scratch").iterdir()))


def test_a_stopped_parent_is_not_dead(start_parent):
    parent = start_parent("time.sleep(0.8)", time_limit=0.9)
    pids = heard(parent)

    parent.send_signal(signal.SIGSTOP)
    time.sleep(0.6)  # it does not count what it sleeps through
    assert all(map(runs, pids))
    parent.send_signal(signal.SIGCONT)

    assert parent.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "name", ["KILL", "TERM", "INT", "HUP", "QUIT", "SEGV", "ABRT"]
)
def test_no_signal_to_the_parent_leaves_anything(name, start_parent, tmp_path):
    parent = start_parent(IN_C)
    pids = heard(parent)
    assert all(map(runs, pids))

    parent.send_signal(signal.Signals[f"SIG{name}"])

    parent.wait(PATIENCE)
    check_nothing_is_left(tmp_path, pids)


@pytest.mark.parametrize(
    ("request_", "tell"),
    [
        ("os.kill(os.getpid(), signal.SIGSTOP)", TELL),
        ("time.sleep(1000)", TELL),
        (FORK, ""),
    ],
    ids=["stopped", "waiting", "forked"],
)
def test_no_state_of_a_worker_survives_its_parent(
    request_, tell, start_parent, tmp_path
):
    parent = start_parent(request_, tell=tell)
    pids = heard(parent)

    parent.kill()

    parent.wait(PATIENCE)
    check_nothing_is_left(tmp_path, pids)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "time.sleep(1000)"),
        ("", "os._exit(0)"),
        ("", "os.execv('/bin/sh', ['sh', '-c', 'exit 0'])"),
        ("", "sys.exit(1)"),
        ("", "pass"),
        ("os.kill(guard._GUARDED._guard.popen.pid, signal.SIGTERM)", ""),
        ("if os.fork() == 0: time.sleep(PATIENCE); os._exit(0)", ""),
        (
            "import multiprocessing as m\n"
            "m.get_context('fork').Process(target=time.sleep, args=(PATIENCE,))"
            ".start()",
            "",
        ),
    ],
    ids=[
        "idle",
        "exit",
        "exec",
        "error",
        "end",
        "guarded",
        "fork",
        "multiprocessing",
    ],
)
def test_no_end_of_the_parent_leaves_anything(
    before, after, start_parent, tmp_path
):
    request_ = "" if after else IN_C
    parent = start_parent(request_, before=before, after=after)
    pids = heard(parent)

    if not after or "1000" in after:
        parent.kill()

    parent.wait(PATIENCE)
    check_nothing_is_left(tmp_path, pids)


def test_a_thread_that_asks_at_the_end_keeps_nothing(start_parent, tmp_path):
    before = (
        "threading.Thread(target=lambda: worker.ask({'do': "
        '\'report({"forks": []}); import itertools; '
        "sum(itertools.repeat(0))'}, note), daemon=True).start()\n"
        "time.sleep(0.5); sys.exit()"
    )
    parent = start_parent("", before=before)
    pids = heard(parent)

    assert parent.wait(PATIENCE) == 0
    check_nothing_is_left(tmp_path, pids)


def test_a_guard_that_was_killed_is_replaced(worker):
    first = worker.ask({"do": ""})["pid"]
    old = guard._GUARDED._guard.popen
    old.kill()
    old.wait()

    with guard.temporary_folder():
        assert guard._GUARDED._guard.popen.pid != old.pid
        assert first in guard._GUARDED._things

    assert worker.ask({"do": ""})["pid"] == first


def test_a_temporary_folder_is_gone_afterwards():
    with guard.temporary_folder() as folder:
        (folder / "file").write_text("x")
        assert folder.name.startswith("keras_kddp_")

    assert not folder.exists()


def test_a_worker_leaves_no_folder(worker):
    worker.ask({"do": ""})
    folder = Path(worker._process._folder)
    assert folder.is_dir()

    worker.close()

    assert not folder.exists()


def test_a_worker_whose_folder_was_cleaned_away_is_replaced(worker):
    first = worker.ask({"do": ""})["pid"]
    Path(worker._process._folder).rmdir()

    reply = worker.ask({"do": "import tempfile; tempfile.TemporaryFile()"})

    assert reply["error"] is None
    assert reply["pid"] != first


def test_a_program_that_never_ends_is_killed():
    sleep = [sys.executable, "-c", "print('hello'); import time; time.sleep(9)"]

    assert guard.run_group(sleep, 0.5)[0] is None
    assert guard.run_group([sys.executable, "-c", "print(3)"], 60) == (0, "3\n")
    assert guard.run_group(["sh", "-c", "echo x >&2; exit 4"], None) == (
        4,
        "x\n",
    )
