"""`kddp compress --resume`: what it goes on with, and what it refuses."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from keras_kddp.atomic_files import parts_of
from keras_kddp.atomic_files.lock import holding
from keras_kddp.cli import commands as cli
from keras_kddp.compression.config import CompressionConfig
from keras_kddp.compression.run_record import RunRecord, file_sums
from keras_kddp.models import digits_student

JOB = CompressionConfig(
    teacher="digits_teacher",
    student="digits_student",
    data="digits",
    out="run",
    epochs=3,
)
CODE = """
from pathlib import Path

Path("it_ran").touch()
"""


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begun(folder, job=JOB, follows_from=None, **changes):
    """Leaves what a run leaves that was broken off at once."""
    with holding(folder / "run"):
        parts = parts_of(folder / "run")
        parts.mkdir()
    entries = None if job is None else {**job.as_dict(), **changes}
    RunRecord(follows_from or {}, entries).write(parts)
    return parts


def refusal(capsys, *words):
    """Returns the one line of a command that ends with exit code 2."""
    assert cli.main(["compress", "--resume", *map(str, words)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_what_is_there_instead_of_a_run_in_progress_is_named(inside, capsys):
    (inside / "notes").mkdir()
    (inside / "notes" / "todo.txt").touch()
    (inside / "file").touch()
    for name, found in (
        ("nowhere", "Received: nothing. Begin a run with --out."),
        ("notes", "Received: a folder with todo.txt. Begin"),
        ("file", "Received: a file. Begin"),
        ("notes/none", "Received: nothing. Begin"),
    ):
        assert found in refusal(capsys, name)


def test_the_folder_beside_the_run_directory_is_not_it(inside, capsys):
    begun(inside)
    message = refusal(capsys, "run.unfinished")
    assert "Received: the folder beside a run directory" in message
    assert message.endswith("Name 'run'.")


def test_a_call_of_compress_is_gone_on_with_by_another(inside, capsys):
    begun(inside, job=None)
    message = refusal(capsys, "run")
    assert "a call of keras_kddp.compress has begun" in message
    assert "with resume=True" in message


def test_a_finished_run_is_said_to_be_finished(inside, capsys):
    (inside / "run" / "seed-3").mkdir(parents=True)
    (inside / "run" / "seed-3" / "summary.json").write_text("{}")
    assert cli.main(["compress", "--resume", "run"]) == 0
    assert capsys.readouterr().out == "The run in run is finished.\n"


@pytest.mark.parametrize(
    "others", [["--epochs", "3"], ["--overwrite"], ["--out=run"], ["more"]]
)
def test_nothing_stands_beside_resume(others, inside, capsys):
    begun(inside)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compress", *others, "--resume", "run"])
    message = capsys.readouterr().err
    assert "takes everything from the run in progress" in message
    assert others[0] in message


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_code_of_a_run_is_run_only_where_it_is_trusted(name, inside, capsys):
    (inside / "strange_code.py").write_text(CODE)
    begun(inside, **{name: "strange_code:make"})
    message = refusal(capsys, "run")
    assert f"The {name} of a run" in message
    assert "'strange_code:make', code that would be run" in message
    assert "--trust-code" in message
    assert not (inside / "it_ran").exists()
    assert "strange_code:make" in refusal(capsys, "run", "--trust-code")
    assert (inside / "it_ran").exists()
    sys.modules.pop("strange_code")


def test_data_of_a_run_are_fetched_only_where_it_is_trusted(
    inside, capsys, monkeypatch
):
    import tensorflow_datasets as tfds

    asked = []

    def load(name, *, download, **options):
        asked.append((name, download))
        raise RuntimeError("nothing is there")

    monkeypatch.setattr(tfds, "load", load)
    begun(inside, data="tfds:huggingface:strange/code")
    assert "Give --trust-code" in refusal(capsys, "run")
    assert asked == []
    shutil.rmtree(inside / "run.unfinished")
    begun(inside, data="tfds:mnist")
    assert "Give --trust-code" in refusal(capsys, "run")
    refusal(capsys, "run", "--trust-code")
    assert asked == [("mnist", False), ("mnist", True)]


def test_a_model_file_must_be_the_one_that_the_run_began_with(inside, capsys):
    digits_student(4).save("student.keras")
    sums = file_sums("student.keras")
    begun(inside, follows_from=sums, student="student.keras")
    digits_student(5).save("student.keras")
    message = refusal(capsys, "run")
    assert "file student.keras was 'sha256 " in message
    os.remove("student.keras")
    assert "and is 'no file'" in refusal(capsys, "run")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": "3"}, "Received: epochs='3', of another type. Begin"),
        ({"epochs": 0}, "epochs=0 (it must be a whole number from 1 to 1000"),
        ({"epochs": None}, "epochs=None"),
        ({"data": 3}, "data=3"),
        ({"seeds": 0}, "seeds=0"),
        ({"seeds": [[0]]}, "seeds=[[0]]"),
        ({"others": 1}, "others=1, which is unknown"),
        (
            {"teacher_learning_rate": -1.0},
            "teacher_learning_rate=-1.0 (it must be a finite number > 0",
        ),
        ({"student": {"a": 1}}, "student={'a': 1}"),
    ],
)
def test_a_damaged_job_is_refused(changes, named, inside, capsys):
    begun(inside, **changes)
    message = refusal(capsys, "run")
    assert "must have the entries of a CompressionConfig" in message
    assert named in message


def test_a_job_without_an_entry_is_refused():
    job = JOB.as_dict()
    del job["data"]
    with pytest.raises(ValueError, match=r"Received: none of \['data'\]"):
        CompressionConfig.of_job(job)


def test_a_job_is_read_as_it_was_written():
    job = CompressionConfig(
        **{**JOB.as_dict(), "seeds": [1, 2], "teacher_learning_rate": 1e-3}
    )
    again = CompressionConfig.of_job(json.loads(json.dumps(job.as_dict())))
    assert again == CompressionConfig(
        **{**job.as_dict(), "controls": ["kd", "same_size"]}
    )


WHEN = {
    "training": "parts/*/*.checkpoint",
    "converting": "new/student.keras",
}


def interrupted(folder, number, pattern):
    """Returns a command that gets a signal once a file is there.

    Its temporary folder is one of its own.
    """
    (folder / "tmp").mkdir()
    program = (
        "import sys; from keras_kddp.cli import main; "
        "from keras_kddp.distillation.checkpoints import resumable; "
        "resumable.SECONDS_BETWEEN = 0; sys.exit(main(sys.argv[1:]))"
    )
    words = "compress --teacher digits_teacher --student digits_student "
    words += "--data digits --epochs 3 --teacher-epochs 2 --out run --controls"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words.split()],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        start_new_session=True,
    )
    while not [*(folder / "run.unfinished").glob(pattern)]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    told = time.monotonic()
    process.send_signal(number)
    said = process.communicate(timeout=60)
    return process, said, time.monotonic() - told


@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGTERM, "training"),
        pytest.param(signal.SIGINT, "training", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "converting", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "converting", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_says_how_to_go_on(number, when, tmp_path):
    process, (_, errors), seconds = interrupted(tmp_path, number, WHEN[when])
    assert process.returncode == 130
    assert seconds < 15
    assert "Traceback" not in errors
    last = errors.splitlines()[-1]
    place = tmp_path / "run.unfinished"
    assert last == (
        f"kddp: interrupted; what it has trained is kept in '{place}'. Go on "
        "with: kddp compress --resume run"
    )
    # One that was ended hard leaves `new`, which the next start removes.
    assert {x.name for x in place.iterdir()} - {"new"} == {"lock", "parts"}
    until = time.monotonic() + 20  # its guard cleans up behind it
    while leftovers := what_is_left(tmp_path / "tmp", process.pid):
        assert time.monotonic() < until, leftovers
        time.sleep(0.05)


def what_is_left(temporary, session):
    """Returns temporary files, and whether a process of a session lives."""
    # TensorFlow removes its generated files itself, unless it is ended hard.
    found = [*temporary.glob("[!_]*")]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, 0)
        found.append(session)
    return found


def test_where_an_error_comes_from_may_be_asked_for(inside, capsys):
    words = ["compress", "--resume", "nowhere"]
    for asked in (["--traceback", *words], [*words, "--traceback"]):
        assert cli.main(asked) == 2
        first, *_, last = capsys.readouterr().err.splitlines()
        assert first.startswith("Traceback")
        assert "nothing" in last


@pytest.mark.parametrize("command", ["demo", "export"])
def test_only_compress_goes_on(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([command, "--resume", "run"])
    assert "invalid choice" in capsys.readouterr().err
