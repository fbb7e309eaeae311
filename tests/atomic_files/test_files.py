"""Files are complete or not there, whatever happens meanwhile."""

import json
import os
from pathlib import Path

import pytest

from keras_kddp.atomic_files import (
    replacing,
    write_json,
    write_text,
    writing_folder,
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
    with writing_folder(tmp_path / "folder", "run", overwrite=False):
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


def test_a_file_keeps_the_permissions_that_it_had(tmp_path):
    target = tmp_path / "private"
    write_text(target, "old")
    target.chmod(0o600)

    write_text(target, "new")

    assert target.stat().st_mode & 0o777 == 0o600


def test_what_a_link_points_at_is_written_and_the_link_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link.h5"
    for name in ("there", "not yet there"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / "folder" / name)
        with replacing(link) as new:
            assert new.name == "link.h5"
            new.write_text("new")

        assert link.is_symlink()
        assert (tmp_path / "folder" / name).read_text() == "new"
    assert names(tmp_path / "folder") == ["not yet there", "there"]


def test_links_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "lost").symlink_to(tmp_path / "no disk" / "file")

    with pytest.raises(OSError, match="links that lead back to themselves"):
        write_text(tmp_path / "loop", "")
    with pytest.raises(
        OSError, match="a link to .*no disk.file.* is not there"
    ):
        write_text(tmp_path / "lost", "")

    assert names(tmp_path) == ["loop", "lost"]


def test_a_file_has_one_writer_at_a_time(tmp_path):
    target = tmp_path / "file"
    with replacing(target) as new:
        with pytest.raises(BlockingIOError, match="one writer at a time"):
            write_text(target, "second")
        new.write_text("first")

    assert target.read_text() == "first"


def test_the_name_of_a_new_file_is_brought_onto_the_disk(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def noting(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    write_text(tmp_path / "notes.txt", "text")
    assert synced[-1] == str(tmp_path)
