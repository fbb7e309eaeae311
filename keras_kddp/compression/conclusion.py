"""What trained students come to: measured, compared, exported."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import keras

from keras_kddp.compression.checks import Preflight
from keras_kddp.compression.choices import SELF
from keras_kddp.compression.controls import SAMPLES
from keras_kddp.compression.finished_run import write_run
from keras_kddp.compression.results import Compression, StudentResult
from keras_kddp.compression.returned_run import with_files
from keras_kddp.compression.run_in_progress import RunInProgress
from keras_kddp.compression.run_teacher import teacher_sha256
from keras_kddp.compression.stages import Clock
from keras_kddp.compression.training import answers_of
from keras_kddp.data.splits import Split
from keras_kddp.layers.preparation import finalize
from keras_kddp.model_io import Arrays
from keras_kddp.profiling import profile
from keras_kddp.pruning.activity import activity_on, sampled
from keras_kddp.pruning.certificates import Removal
from keras_kddp.surgery.graph import ChannelGraph


class TrainedStudents(NamedTuple):
    """What the training of a compression gives.

    Attributes:
        teacher: What taught them; None: the labels alone.
        taught_by: As `Compression` has it.
        compact: The pruned student, plain.
        history: Logs of its epochs.
        removals: What was removed from it, and when.
        controls: The students to compare it with, by name.
        clock: Counted how long all that took.
    """

    teacher: keras.Model | None
    taught_by: str | None
    compact: keras.Model
    history: dict[str, list[float]]
    removals: tuple[Removal, ...]
    controls: dict[str, keras.Model]
    clock: Clock


def concluded(
    checked: Preflight,
    trained: TrainedStudents,
    run: RunInProgress | None,
) -> Compression:
    """Measures, compares and exports what was trained.

    Args:
        checked: From `preflight`.
        trained: From `train_checked`.
        run: Where it is made; None: nothing is left.

    Returns:
        The compact student and the numbers.

    Raises:
        OSError: If the run cannot be written.
        ExportError: If the student cannot be converted.
    """
    # As after a training: what a former start has trained draws no numbers.
    keras.utils.set_random_seed(checked.recipe.seed)
    with trained.clock as clock:
        compression = _compression(checked, trained)
        clock.note()
    compression = replace(compression, seconds=round(clock.seconds, 1))
    if run is None:
        return compression
    rows, judged = checked.splits["train"].x, checked.judged
    if run.is_finished:
        return with_files(compression, run.directory, rows, judged)
    if trained.teacher is not None and trained.taught_by == SELF:
        run.directory.write_teacher(trained.teacher)
    return write_run(compression, run.directory, rows, judged)


def _compression(checked: Preflight, trained: TrainedStudents) -> Compression:
    teacher = trained.teacher
    rows, judged = checked.splits["train"].x, checked.judged

    def measured(model: keras.Model) -> StudentResult:
        return _measured(model, checked.layers, rows, judged)

    start = finalize(checked.student)
    return Compression(
        result=measured(trained.compact),
        teacher_answers=teacher and answers_of(teacher, judged),
        history=trained.history,
        before=profile(start),
        removals=trained.removals,
        units_before=_count_units(checked.student, checked.layers),
        controls={n: measured(x) for n, x in trained.controls.items()},
        split_sizes={n: len(split) for n, split in checked.splits.items()},
        seed=checked.recipe.seed,
        seconds=0.0,
        start=start,
        teacher_sha256=teacher and teacher_sha256(teacher),
        taught_by=trained.taught_by,
    )


def _count_units(model: keras.Model, layers: Sequence[str]) -> int:
    """Returns how many units some layers have declared."""
    units = ChannelGraph(model).units
    return sum(len(units[name]) for name in layers)


def _measured(
    model: keras.Model, layers: Sequence[str], rows: Arrays, judged: Split
) -> StudentResult:
    """Returns a trained student with its numbers."""
    graph = ChannelGraph(model)
    activity = activity_on(graph, sampled(graph, rows, SAMPLES))
    found = answers_of(model, judged)
    return StudentResult(
        model=model,
        accuracy=found.accuracy,
        units=_count_units(model, layers),
        live_units=sum(int(activity[name].live.sum()) for name in layers),
        profile=profile(model),
        answers=found,
    )
