"""Each state that a kill or a full disk leaves is the old or the new value."""

import shutil
from functools import partial

import pytest
from interrupted import (
    full,
    killed,
    states,
    watched_exchange,
    without_exchange,
)

from keras_kddp.atomic_files import (
    changing_folder,
    folders,
    manifest,
    reading_folder,
    recovered,
    replacing,
    unfinished_at,
    write_manifest,
    write_text,
    writing_folder,
)
from keras_kddp.atomic_files.exchange import finish
from keras_kddp.atomic_files.lock import holding
from keras_kddp.atomic_files.ownership import strangers

OLD = {"summary.json": "old", "student.keras": "old", "micro/model.cc": "old"}
NEW = {"summary.json": "new", "student.keras": "new", "seed-0/a/b": "new"}
ADDED = OLD | {"student_int4.tflite": "new"}


def fill(folder, content):
    """Writes files, a folder of its own list where the name has one."""
    for name, text in content.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name in ("micro", "seed-0"):
        if (folder / name).is_dir():
            write_manifest(folder / name, "bundle")


def content_of(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".keras_kddp.json"
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(target, content, **options):
    with writing_folder(target, "run", overwrite=True, **options) as unfinished:
        fill(unfinished.new, content)


def add(target):
    with changing_folder(target, "run") as copy:
        (copy / "student_int4.tflite").write_text("new")


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch):
    """Leaves it to the system when the disk gets what was written."""
    monkeypatch.setattr(manifest.os, "fsync", lambda _: None)


@pytest.fixture(params=["exchange", "two renames"])
def swap(request, monkeypatch):
    """Puts the new value in place at once, or in two steps."""
    if request.param == "exchange":
        watched_exchange(monkeypatch)
    else:
        without_exchange(monkeypatch)
    return request.param


@pytest.fixture
def place(tmp_path):
    """Returns a folder in which an old run can be put again and again."""
    write(tmp_path / "old", OLD)

    def fresh():
        shutil.rmtree(tmp_path / "place", ignore_errors=True)
        (tmp_path / "place").mkdir()
        shutil.copytree(tmp_path / "old", tmp_path / "place" / "run")
        return tmp_path / "place" / "run"

    return fresh


@pytest.mark.parametrize("stop", [killed, full])
@pytest.mark.parametrize(
    ("act", "result"),
    [(lambda target: write(target, NEW), NEW), (add, ADDED)],
    ids=["written", "added to"],
)
def test_every_state_of_a_replacement_is_the_old_or_the_new_run(
    act, result, stop, swap, place
):
    target, found = place(), []
    for _ in states(target.parent, partial(act, target), stop=stop):
        left = reading_folder(target, content_of)
        assert left in (OLD, result)
        assert strangers(target, "run") == []
        found.append(left)
        write(target, NEW)  # the next writer is not held up
        assert content_of(target) == NEW
        assert names(target.parent) == ["run"]
        place()

    assert content_of(target) == result
    assert OLD in found
    if stop is killed:
        assert result in found
        assert len(found) > 20


@pytest.mark.parametrize("stop", [killed, full])
def test_every_state_of_a_first_run_is_none_or_the_complete_one(stop, tmp_path):
    target, found = tmp_path / "a" / "b" / "run", []
    for _ in states(tmp_path, lambda: write(target, NEW), stop=stop):
        found.append(content_of(target) if recovered(target).exists() else None)
        write(target, NEW)
        assert names(target.parent) == ["run"]
        shutil.rmtree(tmp_path / "a")

    assert found.count(None) > 10
    assert all(each in (None, NEW) for each in found)


def test_what_a_full_disk_leaves_is_the_old_run_alone(place):
    target = place()
    for _ in states(target.parent, lambda: write(target, NEW), stop=full):
        assert names(target.parent) == ["run"]
        assert content_of(target) == OLD


def test_a_full_disk_is_told_in_one_sentence(tmp_path):
    with full(tmp_path, 4):
        with pytest.raises(OSError, match="must have room for '.*run'. Receiv"):
            write(tmp_path / "run", NEW)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Can't write data (errno = 28, error message = '...')"),
        OSError("8000 requested and 4096 written"),
        ValueError("UNKNOWN: No space left on device"),
    ],
    ids=["h5py", "numpy", "tensorflow"],
)
def test_a_full_disk_is_recognized_in_what_libraries_say(error, tmp_path):
    with pytest.raises(OSError, match="Received a full one: what was there"):
        with writing_folder(tmp_path / "run", "run", overwrite=False):
            raise error


@pytest.mark.parametrize("words", ["mine", "a GPU was requested and is busy"])
def test_another_error_is_left_as_it_is(words, tmp_path):
    with pytest.raises(ValueError, match=f"^{words}$"):
        with writing_folder(tmp_path / "run", "run", overwrite=False):
            raise ValueError(words)

    assert names(tmp_path) == []


def test_finished_parts_outlive_a_kill_and_a_failure_and_no_success(tmp_path):
    target = tmp_path / "run"

    def training():
        with writing_folder(
            target, "run", overwrite=False, keeps_parts=True
        ) as unfinished:
            part = unfinished.parts / "teacher.keras"
            seen.append(part.exists())
            if not part.exists():
                part.write_text("hours of work")
                raise KeyboardInterrupt
            fill(unfinished.new, NEW)

    seen = []
    with pytest.raises(KeyboardInterrupt):
        training()
    assert names(tmp_path) == ["run.unfinished"]
    for _ in states(tmp_path, training):
        if target.exists():
            break  # killed while it tidied up

    assert seen == [False] + [True] * (len(seen) - 1)
    assert content_of(target) == NEW
    write(target, NEW, keeps_parts=True)
    assert names(tmp_path) == ["run"]


def test_parts_stay_until_a_run_has_succeeded(place):
    target = place()
    part = target.parent / "run.unfinished" / "parts" / "teacher.keras"
    with pytest.raises(KeyboardInterrupt):
        with writing_folder(
            target, "run", overwrite=True, keeps_parts=True
        ) as unfinished:
            (unfinished.parts / part.name).write_text("hours of work")
            raise KeyboardInterrupt

    add(target)  # an export of the run that is still there
    assert content_of(target) == ADDED
    assert part.read_text() == "hours of work"
    assert unfinished_at(target) == part.parents[1]

    write(target, NEW, keeps_parts=True)
    assert names(target.parent) == ["run"]
    assert unfinished_at(target) is None


def between_renames(target, monkeypatch):
    """Leaves what a kill between two renames leaves."""
    without_exchange(monkeypatch)
    for _ in states(target.parent, lambda: write(target, NEW)):
        if not target.exists():
            return
        shutil.rmtree(target.parent / "run.unfinished", ignore_errors=True)
    raise AssertionError("there were no two renames")


def test_a_reader_finishes_what_was_killed_between_two_renames(
    place, monkeypatch
):
    target = place()
    between_renames(target, monkeypatch)
    assert names(target.parent) == ["run.unfinished"]

    assert content_of(recovered(target)) == NEW
    assert names(target.parent) == ["run"]


def test_a_torn_new_value_gives_way_to_the_old_one(place, monkeypatch):
    target = place()
    between_renames(target, monkeypatch)
    new = target.parent / "run.unfinished" / "new"
    (new / "student.keras").write_text("torn by a power cut")

    assert content_of(recovered(target)) == OLD


def test_a_reader_without_rights_reads_what_is_whole(place, monkeypatch):
    target = place()
    between_renames(target, monkeypatch)

    with full(target.parent, 1):  # nothing can be written or moved
        found = recovered(target)

    assert content_of(found) == NEW
    assert found == target.parent / "run.unfinished" / "new"


def test_a_reader_waits_for_a_writer_between_its_renames(place, monkeypatch):
    target = place()
    between_renames(target, monkeypatch)
    with holding(target) as held:
        monkeypatch.setattr(
            folders.time, "sleep", lambda _: finish(held, target)
        )
        assert recovered(target) == target

    assert content_of(target) == NEW


def test_a_reader_reads_again_what_was_replaced_meanwhile(place):
    target, calls = place(), []

    def read(folder):
        summary = (folder / "summary.json").read_text()
        if not calls:
            write(target, NEW)
        calls.append(folder)
        return summary, (folder / "student.keras").read_text()

    assert reading_folder(target, read) == ("new", "new")
    assert len(calls) == 2


def test_what_a_reader_raises_comes_out(place):
    def read(folder):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        reading_folder(place(), read)


def test_a_file_is_old_or_new_in_every_state(tmp_path):
    target = tmp_path / "model.h5"
    write_text(target, "old")
    for _ in states(tmp_path, lambda: write_text(target, "new")):
        assert target.read_text() in ("old", "new")
        write_text(target, "old")
        assert names(tmp_path) == ["model.h5"]

    assert target.read_text() == "new"


def test_a_full_disk_leaves_the_old_file(tmp_path):
    target = tmp_path / "model.h5"
    write_text(target, "old")
    for _ in states(tmp_path, lambda: write_text(target, "new"), stop=full):
        assert target.read_text() == "old"
        assert names(tmp_path) == ["model.h5"]
    with full(tmp_path, 4), pytest.raises(OSError, match="must have room for"):
        with replacing(target) as new:
            new.write_text("new")
