"""The whole walk in one call: distil, prune, compare, export."""

import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_kddp.arguments import checked_path
from keras_kddp.compression.checks import Preflight, preflight
from keras_kddp.compression.conclusion import concluded
from keras_kddp.compression.results import Compression
from keras_kddp.compression.run_directory import bytes_of_run
from keras_kddp.compression.run_identity import identity_of
from keras_kddp.compression.run_in_progress import (
    RunInProgress,
    check_beginning,
    run_in_progress,
    run_to_return,
)
from keras_kddp.compression.run_record import RunRecord
from keras_kddp.compression.training import Recipe
from keras_kddp.compression.trainings import train_checked
from keras_kddp.distillation.checks import Teacher
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.callback import DynamicPruning


def compress(
    teacher: Teacher,
    student: keras.Model,
    train: Any,
    validation: Any,
    *,
    test: Any = None,
    epochs: int,
    batch_size: int = 128,
    optimizer: Any = "adam",
    loss: Any = None,
    temperature: float = 4.0,
    student_loss_weight: float = 0.1,
    pruning: DynamicPruning | None = None,
    l1: float = 1e-2,
    budget: Budget | None = None,
    controls: Sequence[str] = (),
    seed: int = 0,
    run_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Compression:
    """Distils a student with dynamic pruning and measures what came out.

    The teacher's outputs are computed once, in memory. Every control trains
    with the same epochs, batches, optimizer, seed and teacher; without one all
    learn from the labels alone. Shows one bar per run on standard error. Warns
    of a teacher near chance.

    Seeds the global random states of Python, NumPy and the backend.

    Args:
        teacher: Trained classifier, logits or softmax; it is only read.
            `"self"`: the student is first trained on the labels, without a
            penalty, and teaches then. None: nobody teaches, which needs
            `student_loss_weight=1`.
        student: A built Sequential or Functional model of the same inputs and
            outputs; it is only read. Its weights are where all runs start.
            To prune some layers only, pass `prepare(student, layers=...)`.
        train: `(x, y)` or `(x, y, sample_weight)` arrays, `y` class numbers;
            or a finite iterable of such batches, which is read once.
        validation: Examples as for `train`; losses and metrics on them are
            logged, and a `max_accuracy_drop` is judged on them.
        test: Examples as for `train`, which accuracies are reported on. None:
            those of `validation`.
        epochs: Passes over the training data, of each run.
        batch_size: Examples per step.
        optimizer: A name, or an optimizer that each run gets a copy of, made
            from its config.
        loss: Hard loss of `(y, outputs)`. None: cross-entropy on class
            numbers.
        temperature: Of the soft targets.
        student_loss_weight: Share of the hard loss, in [0, 1].
        pruning: Schedule and criterion; only read, what was removed is in the
            result. None: `DynamicPruning()`.
        l1: Charge for a mean activity of 1; see `prepare`. It replaces what a
            prepared student has.
        budget: What the student must fit; see `Budget`. Its reference
            `"student"` is the student distilled without a penalty: it is
            trained first, and the pruned one starts from its weights.
        controls: Names of further students to train for comparison:
            `"kd"` (no penalty), `"same_size"` (widths of the result, from
            scratch), `"same_size_labels"` (these widths, without teacher), and
            `"random"`, `"magnitude"`, `"contribution"` (the distilled student
            is cut to these widths half-way). With teacher=None all of them
            learn from the labels, so that the two of the same size are one.
        seed: Of shuffling, Dropout and new weights.
        run_dir: Where to leave `student.keras`, the student as it started
            (`before.keras`), `student_float32.tflite`, `student_int8.tflite`,
            `summary.json`, `removals.json` and, where TFLM runs the student,
            the bundle `micro`; of a student that taught itself
            `teacher.keras` too. None: nowhere. What is trained meanwhile is
            kept in `run_dir.unfinished`, whatever ends the process.
        overwrite: Put the run in the place of an earlier one in `run_dir`, or
            of one that was broken off.
        resume: Go on with the run of these very arguments, data and versions
            that was broken off in `run_dir`; begin it where there is none.
            On TensorFlow the result is that of a run without a break, to the
            bit. A run that was finished with `resume=True` is returned
            without training.

    Returns:
        The compact student and the numbers; see `Compression`.

    Raises:
        ValueError: If models, data and arguments do not fit together, or
            `run_dir` holds something else, or a run that is neither to be
            overwritten nor gone on with; before anything is trained.
        OSError: If `run_dir` cannot be written to; before as well.
        ExportError: If the student cannot be converted.
        RuntimeError: If a student that is to teach itself loses its loss.

    Example:
        ```python
        found = keras_kddp.compress(
            teacher, student, (x, y), (x_val, y_val), test=(x_test, y_test),
            epochs=24, controls=["kd", "same_size"], run_dir="runs/mine",
        )
        found.student.summary()
        ```
    """
    if run_dir is not None:
        checked_path("run_dir", run_dir, "runs/mine")
        check_beginning(run_dir, resume=resume, overwrite=overwrite)
    elif resume or overwrite:
        raise ValueError(
            "`resume` and `overwrite` are for what is in a `run_dir`. Received "
            "run_dir=None. Name a directory, or leave them out."
        )
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        loss=loss,
        temperature=temperature,
        student_loss_weight=student_loss_weight,
        seed=seed,
    )
    checked = preflight(
        teacher,
        student,
        {"train": train, "validation": validation, "test": test},
        recipe,
        pruning=pruning or DynamicPruning(),
        budget=budget,
        l1=l1,
        controls=controls,
        is_exported=run_dir is not None,
    )
    if run_dir is None:
        return compress_checked(checked, teacher, None)
    record = RunRecord(identity_of(checked, teacher))
    if resume and (run := run_to_return(run_dir, record)):
        return compress_checked(checked, teacher, run)
    with run_in_progress(
        run_dir,
        record,
        resume=resume,
        overwrite=overwrite,
        bytes_needed=bytes_of_run(
            student, teacher if isinstance(teacher, str) else None
        ),
    ) as run:
        found = compress_checked(checked, teacher, run)
        if resume:
            run.keep_stages()
    return found


def compress_checked(
    checked: Preflight, teacher: Teacher, run: RunInProgress | None
) -> Compression:
    """Distils, prunes, compares and exports what was checked before.

    Args:
        checked: From `preflight`, for this run alone.
        teacher: As `train_checked` takes it.
        run: Where it is made and kept; None: nothing is left.

    Returns:
        The compact student and the numbers.

    Raises:
        ValueError: If the teacher's outputs are not finite.
        OSError: If the run cannot be written.
        ExportError: If the student cannot be converted.
    """
    trained = train_checked(checked, teacher, run)
    return concluded(checked, trained, run)
