"""Files and folders are complete or not there, whatever happens meanwhile."""

import json
import os
from pathlib import Path

import pytest

from keras_kddp import atomic_files
from keras_kddp.atomic_files import (
    copy_files,
    making_folder,
    replacing,
    replacing_folder,
    writable_directory,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_there_once_it_is_complete(tmp_path):
    target = tmp_path / "model.h5"
    target.write_text("old")

    with replacing(target) as new:
        assert new.suffix == ".h5"  # of which tf_keras makes its format
        new.write_text("ne")
        assert target.read_text() == "old"
        new.write_text("new")

    assert target.read_text() == "new"
    assert names(tmp_path) == ["model.h5"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file(kind, tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    with pytest.raises(kind), replacing(target) as new:
        new.write_text("half")
        raise kind

    assert target.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    write_text(tmp_path / "ours", "")
    with making_folder(tmp_path / "folder"):
        (tmp_path / "usual folder").mkdir()

    for ours, usual in (("ours", "usual"), ("folder", "usual folder")):
        mode = (tmp_path / ours).stat().st_mode
        assert mode == (tmp_path / usual).stat().st_mode


@pytest.mark.parametrize("place", ["missing/file", "file/file", "folder"])
def test_a_place_without_room_for_a_file_is_refused(place, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    with (
        pytest.raises(OSError, match="must be a file in an existing, writable"),
        replacing(tmp_path / place),
    ):
        raise AssertionError("nothing may be written")


def test_a_directory_that_takes_no_files_is_refused():
    with pytest.raises(OSError, match="existing, writable.*path='/proc/file'"):
        write_text(Path("/proc/file"), "")
    with pytest.raises(OSError, match="/proc"):
        writable_directory("/proc")


def test_text_is_utf_8_and_json_is_read_again(tmp_path):
    write_text(tmp_path / "text", "Şener\n")
    write_json(tmp_path / "file.json", {"a": [1, None]})

    assert (tmp_path / "text").read_bytes() == "Şener\n".encode()
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text) == {"a": [1, None]}
    assert text.endswith("\n")


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "file.json", 1)

    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "file.json", {"a": object()})

    assert (tmp_path / "file.json").read_text() == "1\n"


@pytest.mark.parametrize("verb", [making_folder, replacing_folder])
def test_a_folder_is_there_once_it_is_complete(verb, tmp_path):
    target = tmp_path / "a" / "b" / "folder"

    with verb(target) as new:
        (new / "one").touch()
        assert not target.exists()

    assert names(target) == ["one"]
    assert names(target.parent) == ["folder"]


@pytest.mark.parametrize("verb", [making_folder, replacing_folder])
def test_a_failure_leaves_no_folder(verb, tmp_path):
    with pytest.raises(KeyboardInterrupt), verb(tmp_path / "folder") as new:
        (new / "one").touch()
        raise KeyboardInterrupt

    assert names(tmp_path) == []


def test_an_empty_folder_is_made_and_no_other(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()

    with making_folder(tmp_path / "empty") as new:
        (new / "one").touch()
    with pytest.raises(OSError, match="full"), making_folder(tmp_path / "full"):
        pass

    assert names(tmp_path / "empty") == ["one"]
    assert names(tmp_path / "full") == ["thesis.txt"]
    assert names(tmp_path) == ["empty", "full"]


def test_a_folder_is_replaced_with_all_it_holds(tmp_path):
    target = tmp_path / "folder"
    for name in ("one", "two"):
        with replacing_folder(target) as new:
            (new / name).touch()

    assert names(target) == ["two"]
    assert names(tmp_path) == ["folder"]


def test_the_former_folder_comes_back_where_the_new_cannot_be_put(
    tmp_path, monkeypatch
):
    target, real = tmp_path / "folder", os.replace
    with replacing_folder(target) as new:
        (new / "former").touch()

    def failing(source, destination):
        if source.name == "new":
            raise KeyboardInterrupt
        real(source, destination)

    monkeypatch.setattr(atomic_files.os, "replace", failing)
    with pytest.raises(KeyboardInterrupt), replacing_folder(target) as new:
        (new / "later").touch()

    assert names(target) == ["former"]
    assert names(tmp_path) == ["folder"]


def test_files_are_copied_among_others(tmp_path):
    source, target = tmp_path / "source", tmp_path / "a" / "target"
    for folder, name, text in (
        (source, "one", "new"),
        (source, "two", "new"),
        (target, "one", "old"),
        (target, "other", "old"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    copy_files(source, target)

    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "one": "new",
        "two": "new",
        "other": "old",
    }


def test_no_file_is_replaced_where_one_cannot_be(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("one", "three", "two"):
        (source / name).write_text("new")
    target.mkdir()
    (target / "one").write_text("old")
    (target / "two").mkdir()

    with pytest.raises(IsADirectoryError, match="two"):
        copy_files(source, target)

    assert names(target) == ["one", "two"]
    assert (target / "one").read_text() == "old"


def test_a_writable_directory_is_made_and_left_empty(tmp_path):
    found = writable_directory(str(tmp_path / "a" / "b"))

    assert found == tmp_path / "a" / "b"
    assert names(found) == []


def test_a_file_is_no_writable_directory(tmp_path):
    (tmp_path / "file").touch()
    for place in ("file", "file/folder"):
        with pytest.raises(OSError, match="file"):
            writable_directory(tmp_path / place)
