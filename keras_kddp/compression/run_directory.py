"""The folder of a run: what is read, written, and replaced as a whole."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_kddp.atomic_files import (
    Unfinished,
    changing_folder,
    check_changeable,
    check_place,
    check_target,
    reading_folder,
    sum_of,
    unfinished_at,
    write_json,
    write_manifest,
    writing_folder,
)
from keras_kddp.atomic_files.lock import is_held
from keras_kddp.compression.config import CompressionConfig
from keras_kddp.compression.model_sources import model_file
from keras_kddp.compression.run_names import RunNames
from keras_kddp.compression.run_record import what_goes_on
from keras_kddp.compression.run_summary import RunSummary, read_summary
from keras_kddp.distillation.checks import Teacher
from keras_kddp.pruning.certificates import Removal

_STUDENT_BYTES = 4 + 4 + 1 + 1 + 7
"""Per weight of the student: in its file, as float32, as int8, and in a bundle
as bytes and as C text."""

_TEACHER_BYTES = 4
"""Per weight of a teacher that the run trains."""


class Run(NamedTuple):
    """What a run directory holds.

    Attributes:
        student: The compact student, plain Keras.
        files: Paths of its .tflite files, sorted.
        summary: The numbers.
        student_sum: SHA-256 of the student's file.
    """

    student: keras.Model
    files: list[Path]
    summary: RunSummary
    student_sum: str


@dataclass(frozen=True)
class RunDirectory(RunNames):
    """The folder of a run, whether it is there yet or not."""

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> "RunDirectory":
        """Returns the run directory of a path."""
        return cls(Path(path))

    # Reading.

    def read(self) -> Run:
        """Returns what the directory holds.

        Raises:
            OSError: If student, summary or files are missing.
            ValueError: If one is damaged.
        """
        return reading_folder(
            self.path, lambda path: RunDirectory(path)._read()
        )

    def _read(self) -> Run:
        """Returns what the directory holds while nobody replaces it."""
        files = sorted(filter(Path.is_file, self.path.glob("*.tflite")))
        needed = [self.student_file, self.summary_file]
        if not files or not all(each.is_file() for each in needed):
            raise FileNotFoundError(
                f"'{self.path}' must hold {self.student_file.name}, "
                f"{self.summary_file.name} and .tflite files. Received a "
                "directory without. Name what `kddp compress --out` or `kddp "
                f"demo --out` wrote.{self._told_of_parts()}"
            )
        return Run(
            model_file(self.student_file),
            files,
            read_summary(self.summary_file),
            sum_of(self.student_file),
        )

    def _told_of_parts(self) -> str:
        """Returns a sentence on a run that has not ended, if there is one."""
        place = unfinished_at(self.path)
        if place is None:
            return ""
        told = f" A run that has not ended has left its parts in '{place}'."
        if is_held(place):
            return f"{told} It is being made: wait for its end."
        again = what_goes_on(self.path)
        return f"{told} Go on with: {again}" if again else told

    # Writing.

    def write_student(self, student: keras.Model) -> None:
        """Writes the compact student.

        Raises:
            OSError: If it cannot be written.
        """
        student.save(self.student_file)

    def write_teacher(self, teacher: keras.Model) -> None:
        """Writes the teacher that the run has trained.

        Raises:
            OSError: If it cannot be written.
        """
        teacher.save(self.teacher_file)

    def write_summary(self, summary: RunSummary) -> None:
        """Writes the numbers, in a file that is complete or not there.

        Raises:
            OSError: If it cannot be written.
        """
        write_json(self.summary_file, summary.as_dict())

    def write_configuration(
        self, config: CompressionConfig, data_notes: Sequence[str] = ()
    ) -> None:
        """Adds what the run was asked to do to its summary.

        Args:
            config: Of this run alone.
            data_notes: What was done to the data, a sentence each.

        Raises:
            OSError: If there is no summary, or it cannot be written.
        """
        summary = read_summary(self.summary_file)
        if data_notes:
            summary = replace(summary, data_notes=list(data_notes))
        self.write_summary(replace(summary, job=config.as_dict()))

    def write_removals(self, removals: Sequence[Removal]) -> None:
        """Writes the removals, in a file that is complete or not there.

        Raises:
            OSError: If it cannot be written.
        """
        write_json(self.removals_file, [*map(_as_dict, removals)])

    # As a whole.

    def check_place(self) -> None:
        """Finds what would keep any run from being here, whatever is here.

        Raises:
            ValueError: If there can be no run directory of this name.
            OSError: If it cannot be written, or another run is at it.
        """
        check_place(self.path)

    def check_target(self, *, overwrite: bool, bytes_needed: int = 0) -> None:
        """Finds all that would keep a run from being written here.

        Args:
            overwrite: Whether an earlier run may be replaced.
            bytes_needed: Room that must be free on its disk.

        Raises:
            TargetError: If it is, or holds, something else, or an earlier run
                that is not to be overwritten.
            OSError: If it cannot be written, or another run is at it.
        """
        check_target(
            self.path, "run", overwrite=overwrite, bytes_needed=bytes_needed
        )

    def check_changeable(self) -> None:
        """Finds all that would keep files from being added here.

        Raises:
            TargetError: If it cannot be replaced as a whole.
            OSError: If it cannot be written, or a writer is at it.
        """
        check_changeable(self.path)

    @contextlib.contextmanager
    def writing(
        self, *, overwrite: bool, bytes_needed: int = 0
    ) -> Iterator["UnfinishedRun"]:
        """Yields what becomes this run as a whole, when all has succeeded.

        Args:
            overwrite: Whether an earlier run may be replaced.
            bytes_needed: Room that must be free on its disk.

        Raises:
            TargetError: See `check_target`.
            OSError: If it cannot be written; what was here is as it was.
        """
        with writing_folder(
            self.path,
            "run",
            overwrite=overwrite,
            keeps_parts=True,
            bytes_needed=bytes_needed,
        ) as unfinished:
            directory = RunDirectory(unfinished.new, self.path)
            yield UnfinishedRun(directory, unfinished)

    @contextlib.contextmanager
    def changing(self, run: Run) -> Iterator["RunDirectory"]:
        """Yields a copy to add files to, which replaces this run as a whole.

        Args:
            run: What was read from here.

        Raises:
            ValueError: If another run is here by now.
            TargetError: If something would be lost that no run has written.
            OSError: If it cannot be written; what was here is as it was.
        """
        with changing_folder(self.path, "run") as folder:
            copy = RunDirectory(folder, self.path)
            if sum_of(copy.student_file) != run.student_sum:
                raise ValueError(
                    f"'{self.path}' must hold the student that was read from "
                    "it. Received another: a new run has replaced it "
                    "meanwhile. Start the command again."
                )
            yield copy

    def seal(self) -> None:
        """Lists the files of a finished run that is part of another folder.

        Raises:
            OSError: If they cannot be read, or the list not be written.
        """
        write_manifest(self.path, "run")


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that is being written.

    Attributes:
        directory: Empty; its files are written to it.
        unfinished: The folder that it is in.
    """

    directory: RunDirectory
    unfinished: Unfinished

    @property
    def parts(self) -> Path:
        """A folder for what outlives a run that fails or is killed."""
        return self.unfinished.parts


def bytes_of_run(student: keras.Model, teacher: Teacher = None) -> int:
    """Returns about how many bytes a run directory takes.

    Args:
        student: As it starts: it only gets smaller.
        teacher: The one that the run trains; None: none.
    """
    size = _STUDENT_BYTES * student.count_params()
    if teacher is not None:
        trained = student if isinstance(teacher, str) else teacher
        size += _TEACHER_BYTES * trained.count_params()
    return int(size)


def _as_dict(removal: Removal) -> Mapping[str, Any]:
    """Returns a removal as JSON can hold it."""
    certificates = [each.as_dict() for each in removal.certificates]
    return {**removal._asdict(), "certificates": certificates}
