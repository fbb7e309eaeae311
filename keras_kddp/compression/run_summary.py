"""The numbers of a run, as `summary.json` has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from keras_kddp.compression.typed_entries import wrong_entry
from keras_kddp.data.outside_files import read_json

VERSION = 2
"""Of what `summary.json` holds; 0: written before it was numbered.

Up to 1 the `data` of a job had another meaning; see `load_dataset`.
"""


@dataclass(frozen=True)
class RunSummary:
    """The numbers of a run; None is what a run does not have.

    Accuracies and agreements are shares in [0, 1], on the test split, or on
    that of validation where there is no test.

    Attributes:
        version: Of the entries; 0 in a file that does not say so.
        teacher_accuracy: The teacher's.
        kd_accuracy: Of the control `"kd"`.
        kd_same_size_accuracy: Of the control `"same_size"`.
        labels_same_size_accuracy: Of the control `"same_size_labels"`.
        random_removal_accuracy: Of the control `"random"`.
        magnitude_removal_accuracy: Of the control `"magnitude"`.
        contribution_removal_accuracy: Of the control `"contribution"`.
        kddp_accuracy: Of the pruned student.
        int8_accuracy: Of its int8 file.
        int8_agreement: Share of its int8 answers that are the student's.
        tflite_float32_bytes: Size of the float32 file.
        tflite_int8_bytes: Size of the int8 file.
        arena_bytes: Memory that TFLM was measured to need.
        units_before: Declared units, at the start, of the layers that pruning
            is for.
        units_after: Those that stayed.
        live_units_after: Those of them that fired on training examples.
        parameters_before: Of the student as it started.
        parameters_after: Of the pruned student.
        macs_before: Multiply-accumulates of the student as it started.
        macs_after: Those of the pruned student.
        split_sizes: Number of examples by split.
        seed: Of weights, shuffling and Dropout.
        seconds: How long training and measuring took.
        verdicts: How the models stand to each other, in words.
        input_range: Smallest and largest number of the training inputs.
        data_notes: What was done to the data of the job, a sentence each.
        history: Of a fine-tuning: loss and accuracy by name, one per epoch.
        teacher_sha256: Of the teacher's weights and layers; see
            `keras_kddp.distillation.teacher.outputs.fingerprint`.
        taught_by: `"labels"` where there was no teacher, `"self"` where the
            student itself was it, unpruned; None: a teacher that was given.
        job: The configuration; see `CompressionConfig`.
        others: Entries that this version does not know.
    """

    version: int = VERSION
    teacher_accuracy: float | None = None
    kd_accuracy: float | None = None
    kd_same_size_accuracy: float | None = None
    labels_same_size_accuracy: float | None = None
    random_removal_accuracy: float | None = None
    magnitude_removal_accuracy: float | None = None
    contribution_removal_accuracy: float | None = None
    kddp_accuracy: float | None = None
    int8_accuracy: float | None = None
    int8_agreement: float | None = None
    tflite_float32_bytes: int | None = None
    tflite_int8_bytes: int | None = None
    arena_bytes: int | None = None
    units_before: int | None = None
    units_after: int | None = None
    live_units_after: int | None = None
    parameters_before: int | None = None
    parameters_after: int | None = None
    macs_before: int | None = None
    macs_after: int | None = None
    split_sizes: Mapping[str, int] | None = None
    seed: int | None = None
    seconds: float | None = None
    verdicts: Sequence[str] | None = None
    input_range: tuple[float, float] | None = None
    data_notes: Sequence[str] | None = None
    history: Sequence[Mapping[str, float]] | None = None
    teacher_sha256: str | None = None
    taught_by: str | None = None
    job: Mapping[str, Any] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns the entries as the file has them, flat.

        What is measured of files is there even as None, where there are files.
        """
        kept = _OF_FILES if self.tflite_int8_bytes is not None else ()
        values = {name: getattr(self, name) for name in _NAMES}
        return {
            name: value
            for name, value in values.items()
            if value is not None or name in kept
        } | dict(self.others)

    @property
    def reads_data_as_before(self) -> bool:
        """Whether `data` of the job has the meaning of version 0 and 1."""
        return self.version < 2

    def of_job(self, name: str, default: Any = None) -> Any:
        """Returns an entry of the configuration, if there is one."""
        return (self.job or {}).get(name, default)


CONTROL_ENTRIES = {
    "kd": "kd_accuracy",
    "same_size": "kd_same_size_accuracy",
    "same_size_labels": "labels_same_size_accuracy",
    "random": "random_removal_accuracy",
    "magnitude": "magnitude_removal_accuracy",
    "contribution": "contribution_removal_accuracy",
}
"""Where the accuracy of each control stands, by its name."""

_NAMES = tuple(x.name for x in fields(RunSummary) if x.name != "others")
_OF_FILES = ("int8_accuracy", "int8_agreement", "arena_bytes")


def read_summary(path: Path) -> RunSummary:
    """Returns the summary in a file, of this version or of one before.

    Args:
        path: A `summary.json`.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not JSON, of a newer version, or an entry has
            another type than it is written with.
    """
    entries = read_json(path)
    version = entries.get("version") if isinstance(entries, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise ValueError(
            f"'{path}' must be of version {VERSION} or below. Received version "
            f"{str(version)[:20]}: a newer keras-kddp wrote it. Install that "
            "one."
        )
    wrong = wrong_entry(entries, RunSummary)
    if wrong is not None:
        raise ValueError(
            f"'{path}' must be the summary of a run, a JSON object. Received: "
            f"{wrong}."
        )
    known = {name: entries[name] for name in _NAMES if name in entries}
    others = {n: value for n, value in entries.items() if n not in _NAMES}
    found = RunSummary(**{"version": 0, **known}, others=others)
    if found.input_range is not None:
        low, high = found.input_range
        found = replace(found, input_range=(low, high))
    return found
