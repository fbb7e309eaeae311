"""Checkpoints on disk: whole, or known to be damaged."""

import hashlib
import io
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_kddp.distillation.checkpoints.files import (
    Stored,
    check_folder,
    checkpoint_files,
    make_writable,
    newest_checkpoint,
    next_number,
    remove_checkpoints,
    write_checkpoint,
)


def write(folder, value):
    stored = Stored({"value": value}, [np.full((2, 3), value), np.array(value)])
    return write_checkpoint(folder, next_number(folder), stored)


def test_a_checkpoint_holds_what_was_written(tmp_path):
    write(tmp_path, 0.1 + 0.2)

    meta, arrays = newest_checkpoint(tmp_path)

    assert meta == {"value": 0.1 + 0.2}
    assert [x.shape for x in arrays] == [(2, 3), ()]
    assert arrays[0][1, 2] == arrays[1] == 0.1 + 0.2


def test_the_last_two_are_kept(tmp_path):
    for value in (1, 2, 3):
        write(tmp_path, value)

    names = [path.name for path in checkpoint_files(tmp_path)]
    assert names == ["00000002.checkpoint", "00000003.checkpoint"]
    assert newest_checkpoint(tmp_path).meta == {"value": 3}


def test_a_checkpoint_that_ends_anywhere_is_passed_over(tmp_path):
    write(tmp_path, 1)
    content = write(tmp_path, 2).read_bytes()
    newest = checkpoint_files(tmp_path)[-1]

    for length in range(0, len(content), 41):
        newest.write_bytes(content[:length])
        with pytest.warns(UserWarning, match="is damaged: the run goes on"):
            assert newest_checkpoint(tmp_path).meta == {"value": 1}


def test_a_checkpoint_with_a_flipped_bit_is_passed_over(tmp_path):
    write(tmp_path, 1)
    content = write(tmp_path, 2).read_bytes()
    newest = checkpoint_files(tmp_path)[-1]

    for place in range(0, len(content), 41):
        flipped = bytes([content[place] ^ 4])
        newest.write_bytes(content[:place] + flipped + content[place + 1 :])
        with pytest.warns(UserWarning, match="is damaged: the run goes on"):
            assert newest_checkpoint(tmp_path).meta == {"value": 1}


def test_only_damaged_checkpoints_are_refused(tmp_path):
    for value in (1, 2):
        write(tmp_path, value).write_bytes(b"torn")

    with pytest.raises(ValueError, match="Received only damaged ones"):
        newest_checkpoint(tmp_path)


def forged(arrays, method=zipfile.ZIP_STORED):
    """Returns a checkpoint with a right sum, of headers without numbers."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, (shape, numbers) in arrays.items():
            header = io.BytesIO()
            described = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(header, described)
            archive.writestr(f"{name}.npy", header.getvalue() + numbers)
    body = content.getvalue()
    return b"keras_kddp checkpoint 1\n" + hashlib.sha256(body).digest() + body


META = ((2,), b"{}")
FORGED = {
    "shape": forged({"meta": META, "a0": ((10**12,), b"")}),
    "bomb": forged(
        {"meta": META, "a0": ((2**29,), bytes(2**29))}, zipfile.ZIP_DEFLATED
    ),
    "deep": forged({"meta": ((10**5,), b"[" * 10**5)}),
    "list": forged({"meta": ((2,), b"[]")}),
    "none": forged({"a0": META}),
    "names": forged({"meta": META, "a1": META}),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_checkpoint_is_passed_over(kind, tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2).write_bytes(FORGED[kind])

    with pytest.warns(UserWarning, match="is damaged: the run goes on"):
        assert newest_checkpoint(tmp_path).meta == {"value": 1}


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left.*make room, and start"):
        write(tmp_path, 2)

    assert [x.name for x in tmp_path.iterdir()] == ["00000001.checkpoint"]
    assert newest_checkpoint(tmp_path).meta == {"value": 1}


def test_another_failure_than_a_full_disk_has_another_way_out(
    tmp_path, monkeypatch
):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError, match="denied.*have it writable"):
        write(tmp_path, 1)


def test_a_checkpoint_that_was_not_finished_counts_for_nothing(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "00000002.checkpoint.unfinished").write_bytes(b"half")

    check_folder(tmp_path)
    assert newest_checkpoint(tmp_path).meta == {"value": 1}
    remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    "name", ["notes.txt", "best.checkpoint", "1.checkpoint.txt", "1"]
)
def test_a_folder_with_other_things_is_refused(tmp_path, name):
    write(tmp_path, 1)
    (tmp_path / name).write_text("mine")

    with pytest.raises(ValueError, match=re.escape(f"with ['{name}']")):
        check_folder(tmp_path)

    remove_checkpoints(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")

    with pytest.raises(NotADirectoryError, match="which is a file"):
        check_folder(path)


def test_a_folder_that_is_not_there_has_no_checkpoint(tmp_path):
    check_folder(tmp_path / "none")
    assert newest_checkpoint(tmp_path / "none") is None
    remove_checkpoints(tmp_path / "none")


def test_what_a_trial_to_write_may_leave_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    make_writable(tmp_path)
    assert [*tmp_path.iterdir()]
    check_folder(tmp_path)
    assert checkpoint_files(tmp_path) == []
