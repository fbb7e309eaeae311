"""The folder of a run: what each file in it is called."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from keras_kddp.compression.choices import QUANTIZATION_NAMES

_BUNDLES = {
    "none": "micro_float32",
    "int8": "micro",
    "int16x8": "micro_int16x8",
}


@dataclass(frozen=True)
class RunNames:
    """Where the files of a run are.

    Attributes:
        path: The folder.
        becomes: The folder that it will be when it is finished; None: it is
            there already.
    """

    path: Path
    becomes: Path | None = None

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
    def quantization_aware(self) -> Self:
        """The run directory of the student that was fine-tuned for int8."""
        return self._in("qat")

    def of_seed(self, seed: int) -> Self:
        """Returns the run directory of one of several seeds."""
        return self._in(f"seed-{seed}")

    @property
    def final_path(self) -> Path:
        """The folder of the finished run."""
        return self.path if self.becomes is None else self.becomes

    def _in(self, name: str) -> Self:
        """Returns a run directory in this one."""
        final = self.becomes and self.becomes / name
        return type(self)(self.path / name, final)
