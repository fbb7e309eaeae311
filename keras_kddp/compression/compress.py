"""The whole walk in one call: distil, prune, compare, export."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
from rich.console import Console

from keras_kddp.arguments import check_share
from keras_kddp.atomic_files import writable_directory
from keras_kddp.compression.checks import (
    _is_relative_to_student,
    check_budget,
    check_options,
    checked_splits,
    with_budget,
)
from keras_kddp.compression.controls import CONTROLS, SAMPLES, train_control
from keras_kddp.compression.results import Compression, StudentResult
from keras_kddp.compression.run_directory import write_run
from keras_kddp.compression.training import (
    Comparison,
    Recipe,
    accuracy,
    default_loss,
    train_distilled,
)
from keras_kddp.data.splits import Split
from keras_kddp.distillation.soft_targets import SoftTargets
from keras_kddp.distillation.teacher.cache import TeacherCache
from keras_kddp.export.tflite.to_tflite import check_conversion
from keras_kddp.layers.penalized_models import prepared_layers
from keras_kddp.layers.preparation import finalize, prepare
from keras_kddp.profiling import profile
from keras_kddp.progress import EpochProgress, epoch_bars
from keras_kddp.pruning.activity import activity_on, sampled
from keras_kddp.pruning.budget.accuracy_guard import check_judgeable
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.callback import DynamicPruning
from keras_kddp.surgery.graph import ChannelGraph


def compress(
    teacher: keras.Model,
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
) -> Compression:
    """Distils a student with dynamic pruning and measures what came out.

    The teacher's outputs are computed once, in memory. Every control trains
    with the same epochs, batches, optimizer, seed and teacher. Shows a bar a
    run on standard error.

    Seeds the global random states of Python, NumPy and the backend.

    Args:
        teacher: Trained classifier, logits or softmax; it is only read.
        student: A built Sequential or Functional model of the same inputs and
            outputs; it is only read. Its weights are where all runs start.
            To prune some layers only, pass `prepare(student, layers=...)`.
        train: `(x, y)` or `(x, y, sample_weight)` arrays, `y` class numbers;
            or a finite iterable of such batches, which is read once.
        validation: The same; its losses and metrics are logged, and a
            `max_accuracy_drop` is judged on it.
        test: The same; what accuracies are reported on. None: validation.
        epochs: Passes over the training data, of each run.
        batch_size: Examples a step.
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
            scratch), `"same_size_labels"` (the same, without teacher), and
            `"random"`, `"magnitude"`, `"contribution"` (the distilled student
            is cut to these widths half-way).
        seed: Of shuffling, Dropout and new weights.
        run_dir: Where to leave `student.keras`, `student_float32.tflite`,
            `student_int8.tflite` and `summary.json`. None: nowhere.

    Returns:
        The compact student and the numbers; see `Compression`.

    Raises:
        ValueError: If models, data and arguments do not fit together; before
            anything is trained.
        OSError: If `run_dir` cannot be written to; before as well.
        ExportError: If the student cannot be converted.

    Example:
        ```python
        found = keras_kddp.compress(
            teacher, student, (x, y), (x_val, y_val), test=(x_test, y_test),
            epochs=24, controls=["kd", "same_size"], run_dir="runs/mine",
        )
        found.student.summary()
        ```
    """
    started = time.monotonic()
    pruning = (pruning or DynamicPruning()).replaced()
    check_options(pruning, controls, epochs, batch_size)
    if budget is not None and pruning.budget is not None:
        raise ValueError(
            "`budget` must be given once. Received it and "
            "pruning=DynamicPruning(budget=...). Leave one out."
        )
    pruning = with_budget(pruning, budget)
    splits = checked_splits(teacher, student, train, validation, test)
    prepared = prepare(student, l1=l1)
    layers = prepared_layers(ChannelGraph(prepared))
    preflight = check_budget(pruning, prepared, splits["train"])
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        loss=default_loss(student) if loss is None else loss,
        temperature=temperature,
        student_loss_weight=student_loss_weight,
        seed=seed,
    )
    check_share(student_loss_weight)
    SoftTargets(temperature)  # says now if it is out of range
    trained_by = recipe.fresh_optimizer()  # says if there is none of this name
    if pruning.budget is not None:
        check_judgeable(pruning.budget, student, trained_by)
    directory = None
    if run_dir is not None:
        check_conversion(student, *(split.x for split in splits.values()))
        directory = writable_directory(run_dir)
    common = Comparison(
        student,
        _with_teacher(teacher, splits["train"]),
        _with_teacher(teacher, splits["validation"]),
        recipe,
    )
    judged = splits.get("test", splits["validation"])
    with epoch_bars(Console(stderr=True)) as bars:

        def bar(description: str) -> EpochProgress:
            return EpochProgress(bars, description, epochs)

        def control(name: str, pruned: keras.Model) -> keras.Model:
            shown = [bar(CONTROLS[name])]
            return train_control(name, common, pruned, layers, shown)

        trained = {}
        if _is_relative_to_student(pruning.budget):
            trained["kd"] = control("kd", student)
            reached = accuracy(trained["kd"], splits["validation"])
            limits = replace(pruning.budget, reference=reached)
            pruning = with_budget(pruning, limits)
            prepared = prepare(trained["kd"], l1=l1, layers=layers)
        pruning.preflight = preflight
        compact, history = train_distilled(
            prepared, common, [pruning, bar("student, dynamic pruning")]
        )
        trained = {
            name: trained[name] if name in trained else control(name, compact)
            for name in controls
        }
    rows = splits["train"].x
    compression = Compression(
        result=_measured(compact, layers, rows, judged),
        teacher_accuracy=accuracy(teacher, judged),
        history=history,
        before=profile(finalize(student)),
        removals=tuple(pruning.removals),
        units_before=_count_units(student, layers),
        controls={
            name: _measured(model, layers, rows, judged)
            for name, model in trained.items()
        },
        split_sizes={name: len(split) for name, split in splits.items()},
        seed=seed,
        seconds=round(time.monotonic() - started, 1),
    )
    if directory is not None:
        compression = write_run(compression, directory, rows, judged)
    return compression


def _with_teacher(teacher: keras.Model, split: Split) -> Split:
    cache = TeacherCache(teacher, split.x)
    return replace(split, x=cache.pack(split.x))


def _count_units(model: keras.Model, layers: Sequence[str]) -> int:
    units = ChannelGraph(model).units
    return sum(len(units[name]) for name in layers)


def _measured(
    model: keras.Model, layers: Sequence[str], rows: Any, judged: Split
) -> StudentResult:
    graph = ChannelGraph(model)
    activity = activity_on(graph, sampled(graph, rows, SAMPLES))
    return StudentResult(
        model=model,
        accuracy=accuracy(model, judged),
        units=_count_units(model, layers),
        live_units=sum(int(activity[name].live.sum()) for name in layers),
        profile=profile(model),
    )
