"""All that a compression trains: a teacher of its own, students, controls."""

from collections.abc import Callable
from dataclasses import replace

import keras
from rich.console import Console

from keras_kddp.compression.checks import Preflight, is_relative_to_student
from keras_kddp.compression.choices import (
    CONTROLS,
    LABELS,
    OWN_TEACHER,
    PRUNED,
    SELF,
)
from keras_kddp.compression.conclusion import TrainedStudents
from keras_kddp.compression.controls import train_control
from keras_kddp.compression.run_in_progress import RunInProgress
from keras_kddp.compression.stages import Stage, Stages
from keras_kddp.compression.teaching import (
    warn_of_poor_teacher,
    with_teacher,
)
from keras_kddp.compression.training import (
    Setting,
    accuracy,
    train_distilled,
    train_supervised,
)
from keras_kddp.distillation.checks import Teacher
from keras_kddp.distillation.loss_guard import LossGuard
from keras_kddp.layers.preparation import finalize, prepare
from keras_kddp.progress import EpochProgress, epoch_bars
from keras_kddp.pruning.callback import DynamicPruning


def train_checked(
    checked: Preflight, teacher: Teacher, run: RunInProgress | None
) -> TrainedStudents:
    """Trains the pruned student and its controls, with a bar per run.

    Args:
        checked: From `preflight`, for this run alone.
        teacher: Trained by now; "self" is trained here, first; None: the
            labels alone teach.
        run: Where it is kept, and goes on; None: nothing is left.

    Returns:
        The students and their logs.

    Raises:
        ValueError: If the teacher's outputs are not finite.
        RuntimeError: If the loss of a student that is to teach is lost.
        OSError: If what is trained cannot be kept.
    """
    stages = Stages() if run is None else run.stages
    with stages.clock, epoch_bars(Console(stderr=True)) as bars:

        def bar(description: str) -> EpochProgress:
            return EpochProgress(bars, description, checked.recipe.epochs)

        taught_by = None if teacher is not None else LABELS
        if isinstance(teacher, str):
            taught_by = SELF
            stage = stages.stage("teacher")
            teacher = _own_teacher(checked, bar(OWN_TEACHER), stage)
        is_own = taught_by == SELF
        train, validation = (
            with_teacher(
                teacher,
                checked.splits[name],
                None
                if run is None
                else run.outputs_folder(name, is_shared=not is_own),
            )
            for name in ("train", "validation")
        )
        if teacher is not None and (checked.is_first or is_own):
            warn_of_poor_teacher(
                train, validation, checked.student, is_student=is_own
            )
        setting = Setting(checked.student, train, validation, checked.recipe)

        def control(name: str, pruned: keras.Model) -> keras.Model:
            own = [bar(CONTROLS[name]), LossGuard(f"'{CONTROLS[name]}'")]
            stage = stages.stage(name)
            return train_control(
                name, setting, pruned, checked.layers, own, stage
            )

        prepared, pruning, done = _start(checked, control)
        compact, history = train_distilled(
            prepared, setting, [pruning, bar(PRUNED)], stages.stage("pruned")
        )
        controls = {
            name: done[name] if name in done else control(name, compact)
            for name in checked.controls
        }
    return TrainedStudents(
        teacher=teacher,
        taught_by=taught_by,
        compact=compact,
        history=history,
        removals=tuple(pruning.removals),
        controls=controls,
        clock=stages.clock,
    )


def _own_teacher(
    checked: Preflight, bar: EpochProgress, stage: Stage
) -> keras.Model:
    """Returns the student trained on the labels, by the rules of all others.

    Plain: a file of it holds no optimizer, and no loss, which need not be one
    that Keras can write.
    """
    trained = train_supervised(
        finalize(checked.student),
        checked.splits["train"],
        checked.splits["validation"],
        checked.recipe,
        [bar, LossGuard("the teacher", is_fatal=True)],
        stage,
    )
    return finalize(trained)


def _start(
    checked: Preflight, control: Callable[[str, keras.Model], keras.Model]
) -> tuple[keras.Model, DynamicPruning, dict[str, keras.Model]]:
    """Returns what dynamic pruning starts with.

    A budget that is relative to the student has it distilled first, and starts
    from its weights.

    Args:
        checked: From `preflight`.
        control: Trains a control of a name and a pruned student.

    Returns:
        The student with its penalties, the callback, and the controls that
        are trained by now.
    """
    pruning = checked.pruning.for_another_run()
    budget = pruning.budget
    if not is_relative_to_student(budget):
        pruning.preflight = checked.pruned
        return checked.prepared, pruning, {}
    distilled = control("kd", checked.student)
    reached = accuracy(distilled, checked.splits["validation"])
    # Without the preflight: int8 files change a little with the weights.
    pruning = pruning.for_another_run(replace(budget, reference=reached))
    prepared = prepare(distilled, l1=checked.l1, layers=checked.layers)
    return prepared, pruning, {"kd": distilled}
