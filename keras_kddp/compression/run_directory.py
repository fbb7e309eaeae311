"""The folder of a run: what each file is called, read, written, cleared."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_kddp.atomic_files import write_json
from keras_kddp.compression.choices import QUANTIZATION_NAMES
from keras_kddp.compression.config import CompressionConfig
from keras_kddp.compression.model_sources import model_file
from keras_kddp.compression.run_summary import RunSummary, read_summary
from keras_kddp.export.micro.to_microcontroller import BUNDLE_FILES
from keras_kddp.pruning.certificates import Removal

_BUNDLES = {
    "none": "micro_float32",
    "int8": "micro",
    "int16x8": "micro_int16x8",
}


class Run(NamedTuple):
    """What a run directory holds.

    Attributes:
        student: The compact student, plain Keras.
        files: Paths of its .tflite files, sorted.
        summary: The numbers.
    """

    student: keras.Model
    files: list[Path]
    summary: RunSummary


@dataclass(frozen=True)
class RunDirectory:
    """The folder of a run, whether it is there yet or not.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> "RunDirectory":
        """Returns the run directory of a path."""
        return cls(Path(path))

    # Names.

    @property
    def student_file(self) -> Path:
        """The compact student, plain Keras."""
        return self.path / "student.keras"

    @property
    def before_file(self) -> Path:
        """The student as it started, for what compares with it."""
        return self.path / "before.keras"

    @property
    def teacher_file(self) -> Path:
        """The teacher, where the run has trained it."""
        return self.path / "teacher.keras"

    @property
    def summary_file(self) -> Path:
        """The numbers; it is written last, and complete or not there."""
        return self.path / "summary.json"

    @property
    def removals_file(self) -> Path:
        """The removals, with the evidence for every unit that left."""
        return self.path / "removals.json"

    def tflite_file(self, quantization: str) -> Path:
        """Returns the path of the .tflite file of a quantization.

        Args:
            quantization: As `keras_kddp.export.to_tflite` takes it.
        """
        return self.path / f"student_{QUANTIZATION_NAMES[quantization]}.tflite"

    def bundle(self, quantization: str = "int8") -> Path:
        """Returns the folder of the bundle for microcontrollers.

        Args:
            quantization: As `keras_kddp.export.to_microcontroller` takes it.
        """
        return self.path / _BUNDLES[quantization]

    def saved_model(self, features: str | None = None) -> Path:
        """Returns the folder of a SavedModel.

        Args:
            features: The layer that it ends at; None: it is the whole student.
        """
        return self.path / ("saved_model" if features is None else "features")

    @property
    def quantization_aware(self) -> "RunDirectory":
        """The run directory of the student that was fine-tuned for int8."""
        return RunDirectory(self.path / "qat")

    def of_seed(self, seed: int) -> "RunDirectory":
        """Returns the run directory of one of several seeds."""
        return RunDirectory(self.path / f"seed-{seed}")

    # Reading.

    def read(self) -> Run:
        """Returns what the directory holds.

        Raises:
            OSError: If student, summary or files are missing.
            ValueError: If one is damaged.
        """
        files = sorted(filter(Path.is_file, self.path.glob("*.tflite")))
        needed = [self.student_file, self.summary_file]
        if not files or not all(each.is_file() for each in needed):
            raise FileNotFoundError(
                f"'{self.path}' must hold {self.student_file.name}, "
                f"{self.summary_file.name} and .tflite files. Received a "
                "directory without. Name what `kddp compress --out` or `kddp "
                "demo --out` wrote."
            )
        student = model_file(self.student_file)
        return Run(student, files, read_summary(self.summary_file))

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

    # Clearing.

    def clear(self) -> None:
        """Removes what was exported from a student that was here before.

        Student, summary and removals are written over; what is not of a run
        stays.
        """
        tuned = self.quantization_aware._results()
        for file in (*self._exports(), *tuned, self.before_file):
            file.unlink(missing_ok=True)
        for folder in (self.saved_model(), self.saved_model("any layer")):
            if (folder / "card.json").is_file():
                shutil.rmtree(folder)

    def _exports(self) -> list[Path]:
        """Returns the paths of all files that devices take."""
        files = [*map(self.tflite_file, QUANTIZATION_NAMES)]
        files += [file.with_suffix(".json") for file in files]
        bundles = [*map(self.bundle, _BUNDLES)]
        return files + [
            folder / name for folder in bundles for name in BUNDLE_FILES
        ]

    def _results(self) -> list[Path]:
        """Returns the paths of what a fine-tuning for int8 leaves."""
        int8 = self.tflite_file("int8")
        described = int8.with_suffix(".json")
        return [self.student_file, self.summary_file, int8, described]


def _as_dict(removal: Removal) -> Mapping[str, Any]:
    """Returns a removal as JSON can hold it."""
    certificates = [each.as_dict() for each in removal.certificates]
    return {**removal._asdict(), "certificates": certificates}
