"""The teacher of a run, and no other that stands where it stood."""

import warnings
from pathlib import Path

import keras

from keras_kddp.compression.choices import LABELS
from keras_kddp.compression.model_sources import is_trained, model_file
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.compression.run_summary import RunSummary
from keras_kddp.distillation.teacher.outputs import fingerprint


def teacher_sha256(teacher: keras.Model) -> str | None:
    """Returns the hash that a run knows its teacher by.

    None where a custom layer has no configuration: no file can hold it.
    """
    try:
        return fingerprint([teacher])
    except NotImplementedError:
        return None


def run_teacher(
    directory: RunDirectory, summary: RunSummary
) -> keras.Model | None:
    """Returns the teacher that a run learned from.

    Out of the run's directory, out of the one around it (of several seeds), or
    out of the file that it names.

    Args:
        directory: Of the run.
        summary: Its numbers.

    Returns:
        The teacher. None where the labels alone taught and, with a warning,
        where there is no file.

    Raises:
        ValueError: If none of the files is the teacher of this very run, or a
            run of before, which has no hash of it, names a file outside of
            its directory.
    """
    if summary.taught_by == LABELS:
        return None
    around = RunDirectory(directory.path.absolute().parent)
    named = Path(summary.of_job("teacher", ""))
    wanted = summary.teacher_sha256
    places = [directory.teacher_file]
    if wanted is not None:
        places.append(around.teacher_file)
    if is_trained(named.name):
        places.append(named)
    files = [path for path in places if path.is_file()]
    if wanted is None:
        return _unchecked(directory, files)
    for path in files:
        teacher = model_file(path)
        if teacher_sha256(teacher) == wanted:
            return teacher
    if files:
        raise ValueError(
            f"The teacher of '{directory.path}' must be the one that the run "
            f"learned from, of SHA-256 {wanted[:16]}... Received another in "
            f"{[*map(str, files)]}. Put the file back, or run kddp compress "
            "again."
        )
    _warn_of_none(directory)
    return None


def _unchecked(
    directory: RunDirectory, files: list[Path]
) -> keras.Model | None:
    """Returns the teacher of a run whose summary has no hash of it."""
    if not files:
        _warn_of_none(directory)
        return None
    if files[0] != directory.teacher_file:
        raise ValueError(
            f"The teacher of '{directory.path}' must be the one that the run "
            f"learned from. Received '{files[0]}', and a summary of an earlier "
            "version without its SHA-256, so that this cannot be checked. If "
            f"it is the one, copy it to '{directory.teacher_file}'."
        )
    warnings.warn(
        f"'{files[0]}' is taken for the teacher of the run: its summary is of "
        "an earlier version, without the SHA-256 to check it by.",
        stacklevel=4,
    )
    return model_file(files[0])


def _warn_of_none(directory: RunDirectory) -> None:
    warnings.warn(
        f"'{directory.path}' has no teacher, neither as teacher.keras nor as "
        "the file that it names: the labels alone teach.",
        stacklevel=4,
    )
