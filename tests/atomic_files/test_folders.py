"""Folders that are one value: what is theirs, who writes, what is refused."""

import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from keras_kddp.atomic_files import (
    TargetError,
    changing_folder,
    check_target,
    exchange,
    lock,
    obstacles,
    recovered,
    write_manifest,
    writing_folder,
)
from keras_kddp.atomic_files.lock import holding

BEFORE = Path(__file__).parents[1] / "written_before" / "run"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(target, text="old", *, kind="run", overwrite=True):
    with writing_folder(target, kind, overwrite=overwrite) as unfinished:
        new = unfinished.new
        (new / "summary.json").write_text(text)
        (new / "assets").mkdir()
        (new / "micro").mkdir()
        (new / "micro" / "main.cc").write_text(text)
        write_manifest(new / "micro", "bundle")


@pytest.fixture
def run(tmp_path):
    write(tmp_path / "run")
    return tmp_path / "run"


def check(target, **options):
    return check_target(target, "run", **{"overwrite": True, **options})


# What is there once it is complete.


def test_a_folder_is_there_once_it_is_complete(tmp_path):
    target = tmp_path / "a" / "b" / "folder"

    with writing_folder(target, "run", overwrite=False) as unfinished:
        (unfinished.new / "one").touch()
        assert names(target.parent) == ["folder.unfinished"]

    assert names(target) == [".keras_kddp.json", "one"]
    assert names(target.parent) == ["folder"]


def test_a_failure_leaves_nothing_not_even_the_folders_above(tmp_path):
    target = tmp_path / "a" / "b" / "folder"

    with pytest.raises(KeyboardInterrupt):
        with writing_folder(target, "run", overwrite=False) as unfinished:
            (unfinished.new / "one").touch()
            raise KeyboardInterrupt

    assert names(tmp_path) == []


def test_an_empty_folder_is_taken_and_keeps_its_permissions(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)

    write(tmp_path / "run", overwrite=False)

    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert names(tmp_path) == ["run"]


def test_a_run_is_replaced_as_a_whole_where_that_is_asked_for(run):
    (run.parent / "link").symlink_to(run)
    write(run.parent / "link", "new")

    assert (run / "summary.json").read_text() == "new"
    assert (run.parent / "link").is_symlink()
    with pytest.raises(
        TargetError, match="holds a run directory already. Give"
    ):
        write(run, "newer", overwrite=False)
    assert (run / "micro" / "main.cc").read_text() == "new"


def test_a_link_to_a_folder_that_is_not_there_yet_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "run")

    write(tmp_path / "link")

    assert names(tmp_path / "disk") == ["run"]
    assert recovered(tmp_path / "link") == tmp_path / "link"


# What nobody of us has written.


def a_file(run):
    (run / "notes.txt").write_text("mine")


def an_edited_source(run):
    (run / "micro" / "main.cc").write_text("mine")


def a_folder(run):
    (run / "mine").mkdir()


def a_folder_in_a_known_one(run):
    (run / "assets" / "mine").mkdir()


def a_link(run):
    (run / "link").symlink_to(run.parent)


def a_link_for_a_file(run):
    (run / "summary.json").rename(run.parent / "elsewhere")
    (run / "summary.json").symlink_to(run.parent / "elsewhere")


def a_folder_for_a_file(run):
    (run / "summary.json").unlink()
    (run / "summary.json").mkdir()


def a_pipe(run):
    os.mkfifo(run / "pipe")


def another_value(run):
    write(run / "my own run")


def no_list(run):
    (run / ".keras_kddp.json").unlink()


def a_damaged_list(run):
    (run / ".keras_kddp.json").write_text('{"kind": "run"')


def a_list_too_deep(run):
    (run / ".keras_kddp.json").write_text("[" * 100_000)


def a_list_of_later(run):
    content = json.loads((run / ".keras_kddp.json").read_text())
    (run / ".keras_kddp.json").write_text(json.dumps(content | {"version": 2}))


def a_writer_inside(run):
    (run / "micro.unfinished").mkdir()
    (run / "micro.unfinished" / "notes.txt").write_text("mine")


STRANGERS = {
    a_file: "notes.txt",
    an_edited_source: "micro/main.cc",
    a_folder: "mine",
    a_folder_in_a_known_one: "assets/mine",
    a_link: "link",
    a_link_for_a_file: "summary.json",
    a_folder_for_a_file: "summary.json",
    a_pipe: "pipe",
    another_value: "my own run",
    no_list: "assets",
    a_damaged_list: ".keras_kddp.json",
    a_list_too_deep: ".keras_kddp.json",
    a_list_of_later: ".keras_kddp.json",
    a_writer_inside: "micro.unfinished",
}


def tree(folder):
    """Returns what a folder holds, to the inode."""
    return {
        path: (path.lstat().st_ino, path.is_file() and path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("put", STRANGERS, ids=lambda put: put.__name__)
def test_what_no_run_wrote_is_never_replaced(put, run):
    put(run)
    before = tree(run.parent)

    with pytest.raises(TargetError) as caught:
        write(run, "new")

    assert "holds something else, or changed files: " in str(caught.value)
    assert STRANGERS[put] in str(caught.value)
    assert tree(run.parent) == before


@pytest.mark.parametrize(
    "put",
    [each for each in STRANGERS if "list" not in each.__name__],
    ids=lambda put: put.__name__,
)
def test_what_no_run_wrote_stays_the_same_file_where_files_are_added(put, run):
    put(run)
    name = STRANGERS[put]
    before = tree(run)

    with changing_folder(run, "run") as copy:
        (copy / "student_int4.tflite").write_text("new")

    assert (run / "student_int4.tflite").read_text() == "new"
    after = tree(run)
    for path, (inode, content) in before.items():
        assert after[path][1] == content or path.name == ".keras_kddp.json"
        if path == run / name and not path.is_dir():
            assert after[path][0] == inode
    with pytest.raises(TargetError, match=name):
        write(run, "newer")


def test_a_stranger_is_not_written_over_by_what_is_added(run):
    (run / "student_int4.tflite").write_text("mine")

    with pytest.raises(TargetError, match="int4.tflite' must be free, or as a"):
        with changing_folder(run, "run") as copy:
            (copy / "student_int4.tflite").unlink()
            (copy / "student_int4.tflite").write_text("new")

    assert (run / "student_int4.tflite").read_text() == "mine"
    assert names(run.parent) == ["run"]


@contextlib.contextmanager
def replaced(run):
    with writing_folder(run, "run", overwrite=True):
        yield


@contextlib.contextmanager
def added_to(run):
    with changing_folder(run, "run"):
        yield


@pytest.mark.parametrize("verb", [replaced, added_to])
def test_what_comes_while_a_run_is_written_is_not_lost(verb, run):
    with pytest.raises(TargetError, match=r"changed files: notes.txt\. Move"):
        with verb(run):
            a_file(run)

    assert (run / "notes.txt").read_text() == "mine"
    assert (run / "summary.json").read_text() == "old"


def test_a_stranger_that_is_edited_while_files_are_added_is_not_lost(run):
    a_file(run)

    with pytest.raises(TargetError, match="notes.txt' must be free, or as a"):
        with changing_folder(run, "run"):
            (run / "edited").write_text("mine, and newer")
            (run / "edited").replace(run / "notes.txt")  # as editors do

    assert (run / "notes.txt").read_text() == "mine, and newer"


def test_a_cache_is_never_written_over(tmp_path):
    write(tmp_path / "cache", kind="teacher_cache")

    with pytest.raises(TargetError, match="holds a TeacherCache already. Rem"):
        write(tmp_path / "cache", kind="teacher_cache", overwrite=False)


def test_many_strangers_are_counted(run):
    for name in "abcde":
        (run / name).touch()

    with pytest.raises(TargetError, match="files: a, b, c and 2 more"):
        check(run)


def test_a_value_of_another_kind_is_refused(run):
    with pytest.raises(TargetError, match="a SavedModel with its card as it"):
        check_target(run, "saved_model", overwrite=True)


def test_a_part_of_a_run_may_be_replaced_alone(run):
    with writing_folder(run / "micro", "bundle", overwrite=True) as unfinished:
        (unfinished.new / "main.cc").write_text("newer")

    write(run, "new")

    assert (run / "micro" / "main.cc").read_text() == "new"


def test_what_a_killed_writer_left_in_a_run_goes_with_it(run):
    with holding(run / "micro"):
        pass  # as after a kill: its folder is left
    (run / ".keras_kddp_x1").mkdir()  # of versions before

    write(run, "new")

    assert names(run) == [".keras_kddp.json", "assets", "micro", "summary.json"]


# Folders of versions before, which have no list.


def test_a_run_of_before_is_replaced(tmp_path):
    shutil.copytree(BEFORE, tmp_path / "run")

    write(tmp_path / "run", "new")

    assert (tmp_path / "run" / "summary.json").read_text() == "new"


def test_several_runs_of_before_are_replaced(tmp_path):
    for seed in (0, 1):
        shutil.copytree(BEFORE, tmp_path / "run" / f"seed-{seed}")
    (tmp_path / "run" / "teacher.keras").touch()

    write(tmp_path / "run", "new")

    assert (tmp_path / "run" / "summary.json").read_text() == "new"


@pytest.mark.parametrize(
    "name", ["notes.txt", "micro/notes.txt", "student.h5", "qat/notes.txt"]
)
def test_a_run_of_before_with_more_in_it_is_refused(name, tmp_path):
    run = Path(shutil.copytree(BEFORE, tmp_path / "run"))
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("mine")

    with pytest.raises(TargetError, match=f"changed files: {name}"):
        check(run)


def test_a_students_file_alone_is_no_run_of_before(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "student.keras").write_text("my own")

    with pytest.raises(TargetError, match=r"changed files: student.keras\."):
        check(tmp_path / "run")


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        (
            "saved_model",
            [
                *("card.json", "README.md", "saved_model.pb", "assets/words"),
                *("variables/variables.index", "fingerprint.pb"),
            ],
        ),
        ("bundle", ["model.cc", "model.h", "main.cc", "README.md"]),
        ("teacher_cache", ["key.json", "outputs_0.npy", "outputs_1.npy"]),
    ],
)
def test_other_folders_of_before_are_known(kind, files, tmp_path):
    for name in files:
        path = tmp_path / "old" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    check_target(tmp_path / "old", kind, overwrite=True)
    (tmp_path / "old" / "more.txt").touch()
    with pytest.raises(TargetError, match=r"changed files: more.txt\."):
        check_target(tmp_path / "old", kind, overwrite=True)


def test_a_saved_model_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "saved_model.pb").touch()

    with pytest.raises(TargetError, match="changed files: saved_model.pb"):
        check_target(tmp_path / "old", "saved_model", overwrite=True)


# One writer at a time.


def test_a_second_writer_is_refused_and_the_first_is_whole(run):
    with writing_folder(run, "run", overwrite=True) as unfinished:
        for second in (check, lambda target: write(target, "second")):
            with pytest.raises(
                BlockingIOError, match="one writer at a time"
            ) as e:
                second(run)
            assert f"process {os.getpid()} since 2" in str(e.value)
        (unfinished.new / "first").touch()

    assert names(run) == [".keras_kddp.json", "first"]


def test_a_part_of_what_is_being_written_is_refused(run):
    with writing_folder(run, "run", overwrite=True):
        with pytest.raises(BlockingIOError, match="run' must have one writer"):
            check(run / "micro")


def test_a_run_whose_part_is_being_written_is_not_replaced(run):
    with holding(run / "micro"):
        with pytest.raises(TargetError, match="micro.unfinished"):
            write(run, "new")


def test_a_writer_that_was_killed_holds_nothing(tmp_path):
    script = (
        "import os, sys, signal\n"
        "from keras_kddp.atomic_files import writing_folder\n"
        "with writing_folder(sys.argv[1], 'run', overwrite=True) as found:\n"
        "    (found.new / 'half').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], check=False
    )
    assert done.returncode == -9
    assert names(tmp_path) == ["run.unfinished"]

    write(tmp_path / "run")

    assert names(tmp_path) == ["run"]


def test_a_process_that_was_copied_leaves_the_lock_to_the_original(tmp_path):
    script = (
        "import os, sys, time, signal\n"
        "from keras_kddp.atomic_files import writing_folder\n"
        "with writing_folder(sys.argv[1], 'run', overwrite=True) as found:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os.close(1)\n"
        "        time.sleep(60)\n"
        "    print(child, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        check=False,
        stdout=subprocess.PIPE,
    )
    try:
        write(tmp_path / "run")
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)

    assert names(tmp_path) == ["run"]


def test_what_is_locked_while_it_is_removed_is_made_again(
    tmp_path, monkeypatch
):
    real, stale = lock._is_current, []

    def removed_meanwhile(descriptor, place):
        if not stale:
            stale.append(place)
            (place / "lock").unlink()
            place.rmdir()
        return real(descriptor, place)

    monkeypatch.setattr(lock, "_is_current", removed_meanwhile)
    write(tmp_path / "run")

    assert names(tmp_path) == ["run"]
    assert stale


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl = SimpleNamespace(LOCK_SH=1, LOCK_EX=2, LOCK_NB=4, flock=flock)
    monkeypatch.setitem(sys.modules, "fcntl", fcntl)

    with pytest.raises(OSError, match="must lock files.*No locks available"):
        write(tmp_path / "run")


@pytest.mark.parametrize("name", ["a file", "a folder", "a link", "a lock"])
def test_another_thing_of_the_name_of_the_unfinished_is_refused(name, tmp_path):
    place = tmp_path / "run.unfinished"
    if name == "a file":
        place.write_text("mine")
    elif name == "a link":
        place.symlink_to(tmp_path)
    else:
        place.mkdir()
        (place / ("lock" if name == "a lock" else "new")).write_text("mine")

    with pytest.raises(TargetError, match="run.unfinished' must be free"):
        check(tmp_path / "run")
    assert os.path.lexists(place)


@pytest.mark.parametrize("name", ["parts", "new", "lock", "parts/pruned"])
def test_a_place_with_a_link_in_it_is_refused(name, tmp_path):
    other, place = tmp_path / "other", tmp_path / "run.unfinished"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with holding(tmp_path / "run"):
        (place / "parts").mkdir()
        (place / "parts" / "run.json").touch()
    if name == "parts":
        shutil.rmtree(place / "parts")
    (place / name).unlink(missing_ok=True)
    (place / name).symlink_to(other)

    with pytest.raises(TargetError, match="run.unfinished' must be free"):
        write(tmp_path / "run")
    assert names(other) == ["notes.txt"]
    assert (other / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["qat", "micro_int16x8", "saved_model", "student_int8.json"]
)
def test_nothing_is_added_through_a_link(name, run, tmp_path):
    (tmp_path / "other").mkdir()
    (run / name).symlink_to(tmp_path / "other")

    with pytest.raises(TargetError, match="which would be written over"):
        with changing_folder(run, "run"):
            pass
    assert names(tmp_path) == ["other", "run"]
    assert (run / name).is_symlink()


def test_a_pipe_for_a_lock_is_refused(tmp_path):
    (tmp_path / "run.unfinished").mkdir()
    os.mkfifo(tmp_path / "run.unfinished" / "lock")

    with pytest.raises(TargetError, match="run.unfinished' must be free"):
        write(tmp_path / "run")


def test_a_list_that_names_a_device_is_not_complete(tmp_path):
    place = tmp_path / "run.unfinished"
    for name in ("old", "new"):
        (place / name).mkdir(parents=True)
    (place / "old" / "summary.json").write_text("old")
    content = {"version": 1, "kind": "run", "folders": [], "values": {}}
    content["files"] = {"/dev/zero": "endless"}
    (place / "new" / ".keras_kddp.json").write_text(json.dumps(content))

    assert recovered(tmp_path / "run") == place / "old"


@pytest.mark.parametrize("kind", ["evil", ["run"]])
def test_a_list_with_an_unknown_kind_is_refused(kind, run):
    path = run / ".keras_kddp.json"
    content = json.loads(path.read_text())
    content["values"] = {"micro": kind}
    path.write_text(json.dumps(content))

    with pytest.raises(TargetError, match="holds something else"):
        check(run)


# What keeps a folder from being written.


def test_the_working_directory_and_those_above_it_are_refused(run, monkeypatch):
    monkeypatch.chdir(run / "micro")
    for target in (".", "..", run, run.parent, "/"):
        with pytest.raises(TargetError, match="must not be the working direct"):
            check(target)


def test_a_place_where_a_disk_is_mounted_is_refused():
    with pytest.raises(TargetError, match="a disk is mounted. Choose a folder"):
        check("/proc")


@pytest.mark.parametrize("target", ["file", "file/run", "file/a/run"])
def test_a_file_in_the_way_is_refused(target, tmp_path):
    (tmp_path / "file").write_text("mine")

    with pytest.raises(OSError, match="Received a (file|path through a file)"):
        check(tmp_path / target)

    assert (tmp_path / "file").read_text() == "mine"


def test_links_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "one")
    (tmp_path / "lost").symlink_to(tmp_path / "no disk" / "run")

    for target in ("one", "one/run"):
        with pytest.raises(OSError, match="links that lead back to themselves"):
            check(tmp_path / target)
    with pytest.raises(FileNotFoundError, match="a link to .*no disk"):
        check(tmp_path / "lost")


@pytest.mark.parametrize("inside", [".", "run", "run/micro"])
def test_folders_without_the_right_to_write_are_refused(
    inside, run, monkeypatch
):
    closed = (run.parent / inside).resolve()
    monkeypatch.setattr(
        obstacles.os, "access", lambda path, _: Path(path) != closed
    )

    with pytest.raises(PermissionError, match="which you cannot. Change its"):
        check(run)


def test_a_place_that_takes_no_folder_is_refused():
    for target in ("/proc/run", "/proc/runs/run"):
        with pytest.raises(OSError, match="where a folder can be made. Recei"):
            write(Path(target))


def test_a_name_that_others_cannot_read_is_refused(tmp_path):
    for name in ("a\0b", "r\udcfcn"):
        with pytest.raises(ValueError, match="must be UTF-8 without a zero"):
            check(f"{tmp_path}/{name}")


def test_a_name_that_leaves_none_for_what_is_made_is_refused(tmp_path):
    check(tmp_path / ("n" * 244))
    with pytest.raises(OSError, match="short enough .*Received 256 bytes"):
        check(tmp_path / ("n" * 245))


def test_a_working_directory_that_was_removed_is_named(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for target in ("run", tmp_path / "run"):
        with pytest.raises(FileNotFoundError, match="Received one that was re"):
            check(target)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EBUSY])
def test_what_cannot_be_renamed_is_refused_before_anything_is_written(
    number, run, monkeypatch
):
    real = os.rename

    def rename(source, target):
        if Path(source) == run:
            raise OSError(number, os.strerror(number))
        real(source, target)

    monkeypatch.setattr(exchange.os, "rename", rename)
    with (
        pytest.raises(TargetError, match="one that cannot be renamed"),
        writing_folder(run, "run", overwrite=True),
    ):
        pytest.fail("it was begun")
    assert (run / "summary.json").read_text() == "old"
    assert names(run.parent) == ["run"]


def test_a_disk_that_renames_onto_what_is_filled_loses_nothing(
    run, monkeypatch
):
    real = os.rename

    def rename(source, target):
        shutil.rmtree(target, ignore_errors=True)
        real(source, target)

    monkeypatch.setattr(exchange.os, "rename", rename)
    with (
        pytest.raises(ZeroDivisionError),
        writing_folder(run, "run", overwrite=True),
    ):
        assert (run / "summary.json").read_text() == "old"
        raise ZeroDivisionError
    assert (run / "summary.json").read_text() == "old"
    assert names(run.parent) == ["run"]


def test_too_little_room_is_refused(tmp_path):
    with pytest.raises(OSError, match="About 1,.* bytes must be free for"):
        check(tmp_path / "run", bytes_needed=10**18)
    assert names(tmp_path) == []


# How a value is put in place.


class Library:
    """A C library whose exchange fails."""

    def __init__(self, number):
        self.number = number

    def renameat2(self, *_):
        ctypes.set_errno(self.number)
        return -1


@pytest.mark.parametrize(
    "library",
    [object(), Library(errno.ENOSYS), Library(errno.EINVAL)],
    ids=["without a function", "of an old system", "on a file system without"],
)
def test_where_two_folders_cannot_be_exchanged_there_are_two_renames(
    library, run, monkeypatch
):
    monkeypatch.setattr(exchange.ctypes, "CDLL", lambda *_, **__: library)

    write(run, "new")

    assert (run / "summary.json").read_text() == "new"
    assert names(run.parent) == ["run"]


def test_an_exchange_that_fails_leaves_what_was_there(run, monkeypatch):
    monkeypatch.setattr(
        exchange.ctypes, "CDLL", lambda *_, **__: Library(errno.EIO)
    )

    with pytest.raises(OSError, match="Input/output error"):
        write(run, "new")

    assert (run / "summary.json").read_text() == "old"
    assert names(run.parent) == ["run"]
