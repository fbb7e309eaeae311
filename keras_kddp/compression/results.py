"""What a compression found, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from keras_kddp.compression.answers import Answers
from keras_kddp.compression.choices import SELF
from keras_kddp.compression.run_summary import CONTROL_ENTRIES, RunSummary
from keras_kddp.compression.verdicts import Judged, verdicts
from keras_kddp.export import Agreement, MicroArtifact, TFLiteArtifact
from keras_kddp.profiling import ModelProfile
from keras_kddp.pruning.certificates import Removal


@dataclass(frozen=True, eq=False)
class StudentResult:
    """A trained student, measured.

    Attributes:
        model: Plain Keras.
        accuracy: Share of right answers on the test split, in [0, 1].
        units: Declared units of the layers that pruning is for.
        live_units: Those that fired on training examples.
        profile: Parameters, multiply-accumulates, activation memory.
        answers: Which of its answers on the test split are right.
    """

    model: keras.Model
    accuracy: float
    units: int
    live_units: int
    profile: ModelProfile
    answers: Answers


@dataclass(frozen=True, eq=False)
class RunFiles:
    """The files that a run wrote, and how they agree with Keras.

    Attributes:
        directory: Where it is.
        float32: `student_float32.tflite`.
        int8: `student_int8.tflite`.
        micro: `micro/`, a bundle for microcontrollers; None where tflite-micro
            is not here or cannot run the student.
        agreement: Both on every runtime that is here against Keras, over the
            whole test split.
    """

    directory: Path
    float32: TFLiteArtifact
    int8: TFLiteArtifact
    agreement: Agreement
    micro: MicroArtifact | None = None

    def moved(self, directory: Path) -> "RunFiles":
        """Returns the files as they are after their directory was moved."""

        def there(path: Path) -> Path:
            return directory / path.relative_to(self.directory)

        rows = [
            replace(row, path=there(row.path)) for row in self.agreement.rows
        ]
        micro = self.micro
        if micro is not None:
            micro = replace(
                micro,
                directory=there(micro.directory),
                tflite=replace(micro.tflite, path=there(micro.tflite.path)),
            )
        return RunFiles(
            directory=directory,
            float32=replace(self.float32, path=there(self.float32.path)),
            int8=replace(self.int8, path=there(self.int8.path)),
            agreement=replace(self.agreement, rows=tuple(rows)),
            micro=micro,
        )


@dataclass(frozen=True, eq=False)
class Compression:
    """What `keras_kddp.compress` found.

    Attributes:
        result: The student that was distilled with dynamic pruning.
        teacher_answers: Which of its answers are right, on the same split as
            the students'; None without a teacher.
        history: Logs of its epochs: name -> one number per epoch.
        before: Profile of the student as it started.
        removals: What was removed, and when.
        units_before: Declared units, at the start, of the layers that pruning
            is for.
        controls: Name -> the student of each control.
        split_sizes: Number of examples by split.
        seed: Of weights, shuffling and Dropout.
        seconds: How long training and measuring took, without the checks
            before and the export behind.
        start: The student as it started, plain Keras.
        teacher_sha256: Hash of the teacher's weights and layers; None where its
            layers have no configuration, and without a teacher.
        taught_by: `"labels"` alone, `"self"` (the student itself, trained
            without a penalty); None: a teacher that was given.
        files: The run directory; None where none was asked for.
    """

    result: StudentResult
    teacher_answers: Answers | None
    history: Mapping[str, list[float]]
    before: ModelProfile
    removals: tuple[Removal, ...]
    units_before: int
    controls: Mapping[str, StudentResult]
    split_sizes: Mapping[str, int]
    seed: int
    seconds: float
    start: keras.Model
    teacher_sha256: str | None
    taught_by: str | None = None
    files: RunFiles | None = None

    @property
    def student(self) -> keras.Model:
        """The compact student, plain Keras."""
        return self.result.model

    @property
    def teacher_accuracy(self) -> float | None:
        """Share of right answers of the teacher, on the students' split.

        None without a teacher.
        """
        found = self.teacher_answers
        return None if found is None else found.accuracy

    @property
    def judged(self) -> Judged:
        """The answers of all models to the split that they are judged on."""
        return Judged(
            teacher=self.teacher_answers,
            pruned=self.result.answers,
            controls={n: each.answers for n, each in self.controls.items()},
            split="test" if "test" in self.split_sizes else "validation",
            is_own_teacher=self.taught_by == SELF,
        )

    @property
    def verdicts(self) -> tuple[str, ...]:
        """How the models compare, a sentence each with its standard error."""
        return verdicts([self.judged])

    @property
    def after(self) -> ModelProfile:
        """Profile of the compact student."""
        return self.result.profile

    def summary(self) -> dict[str, Any]:
        """Returns the numbers, as `summary.json` has them."""
        return self.run_summary().as_dict()

    def run_summary(self) -> RunSummary:
        """Returns the numbers as a value."""
        controls: dict[str, Any] = {
            CONTROL_ENTRIES[name]: control.accuracy
            for name, control in self.controls.items()
        }
        return RunSummary(
            teacher_accuracy=self.teacher_accuracy,
            kddp_accuracy=self.result.accuracy,
            units_before=self.units_before,
            units_after=self.result.units,
            live_units_after=self.result.live_units,
            parameters_before=self.before.parameters,
            parameters_after=self.after.parameters,
            macs_before=self.before.macs,
            macs_after=self.after.macs,
            split_sizes=dict(self.split_sizes),
            seed=self.seed,
            seconds=self.seconds,
            verdicts=self.verdicts,
            teacher_sha256=self.teacher_sha256,
            taught_by=self.taught_by,
            **controls,
            **self._file_numbers(),
        )

    def _file_numbers(self) -> dict[str, Any]:
        """Returns what was measured of the files, by entry of the summary."""
        if self.files is None:
            return {}
        micro = self.files.micro
        int8 = self.files.agreement.row(self.files.int8.path)
        return {
            "int8_accuracy": int8.accuracy,
            "int8_agreement": int8.top1_agreement,
            "tflite_float32_bytes": self.files.float32.num_bytes,
            "tflite_int8_bytes": self.files.int8.num_bytes,
            "arena_bytes": micro and micro.measured_arena_bytes,
        }
