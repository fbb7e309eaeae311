"""How a command ends when it is interrupted, and what it says then."""

import os
import signal
import subprocess
import sys
import time

import pytest

from keras_kddp.cli import commands as cli
from keras_kddp.cli.interruption import ending_on_signals

SIGNALS = [signal.SIGINT, signal.SIGTERM]

DEAF = """
import sys, time
from keras_kddp.cli import interruption

interruption._PATIENCE = float(sys.argv[1])
with interruption.ending_on_signals(lambda: "last words"):
    while True:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_what_runs_and_is_told(number, capsys):
    with pytest.raises(KeyboardInterrupt):
        with ending_on_signals(lambda: "last words"):
            os.kill(os.getpid(), number)
            time.sleep(10)
    assert capsys.readouterr().err == "\nkddp: last words\n"


def test_an_interrupt_that_became_another_error_is_one_still(capsys):
    with pytest.raises(KeyboardInterrupt):
        with ending_on_signals(lambda: "last words"):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            except KeyboardInterrupt:
                raise RuntimeError("of a callback") from None
    assert capsys.readouterr().err == "\nkddp: last words\n"


class Complaining:
    """Raises when it is deleted, as a half written archive does."""

    def __del__(self):
        raise ValueError("half written")


def test_what_is_broken_off_complains_unheard(capsys):
    def work():
        broken_off = Complaining()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        return broken_off

    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt):
        with ending_on_signals(lambda: "last words"):
            work()
    assert sys.unraisablehook is hook
    assert capsys.readouterr().err == "\nkddp: last words\n"


def test_other_errors_are_left_as_they_are(capsys):
    with pytest.raises(RuntimeError, match="of its own"):
        with ending_on_signals(lambda: "last words"):
            raise RuntimeError("of its own")
    assert capsys.readouterr().err == ""


def test_handlers_are_restored():
    mine = [signal.getsignal(number) for number in SIGNALS]
    with ending_on_signals(str):
        inside = [signal.getsignal(number) for number in SIGNALS]
    assert inside != mine
    assert [signal.getsignal(number) for number in SIGNALS] == mine
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("patience", "told"), [(0.3, 1), (60, 2)])
def test_what_does_not_listen_is_ended_hard(number, patience, told):
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF, str(patience)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    for _ in range(told):
        process.send_signal(number)
        if told > 1:
            time.sleep(0.3)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "\nkddp: last words\n"


def test_a_command_without_a_run_just_says_so(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_load_explain", lambda: interrupted)
    assert cli.main(["explain", "digits_student"]) == 130
    assert capsys.readouterr().err == "\nkddp: interrupted\n"
