"""A compression as the command line asks for it: from texts to tables."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
from rich.console import Console

from keras_kddp.arguments import check_share
from keras_kddp.atomic_files import writable_directory
from keras_kddp.compression.checks import (
    check_budget,
    check_options,
    checked_splits,
)
from keras_kddp.compression.comparison_table import comparison_table
from keras_kddp.compression.compress import compress
from keras_kddp.compression.controls import reinitialized
from keras_kddp.compression.model_sources import is_trained, load_model
from keras_kddp.compression.results import Compression
from keras_kddp.compression.run_directory import annotate_run
from keras_kddp.compression.training import (
    Recipe,
    cosine_adamw,
    default_loss,
    fresh,
    train_supervised,
)
from keras_kddp.data.datasets import Dataset, load_dataset
from keras_kddp.data.splits import as_split
from keras_kddp.distillation.soft_targets import SoftTargets
from keras_kddp.export.tflite.to_tflite import check_conversion
from keras_kddp.layers.preparation import prepare
from keras_kddp.progress import EpochProgress, epoch_bars
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.callback import DynamicPruning


@dataclass(frozen=True)
class Job:
    """A compression in the words of the command line.

    Attributes:
        data: See `keras_kddp.datasets.load_dataset`.
        teacher: See `keras_kddp.model_sources.load_model`; a file is taken as
            it is, anything else is trained first.
        student: The same; it is trained in any case.
        out: Run directory; of several seeds it holds one a seed.
        epochs: Passes over the training data, of each run.
        teacher_epochs: Of the teacher; None: as many; 0: it comes trained.
        batch_size: Examples a step.
        learning_rate: At the start, of AdamW on a cosine to 0.
        teacher_learning_rate: The teacher's; None: the same.
        temperature: Of the soft targets.
        student_loss_weight: Share of the labels.
        l1: Charge for a mean activity of 1.
        layers: Those to prune; None: all that can be.
        finetune_epochs: Last epochs without penalty; None: a third.
        minimum_units: So many units stay in every layer.
        unit_multiple: What widths are rounded down to where that pays.
        max_parameters: Budget of the student; see `keras_kddp.Budget`.
        max_macs: The same, in multiply-accumulates.
        max_bytes: The same, of the int8 file.
        max_arena_bytes: The same, of its memory on TFLM.
        max_accuracy_drop: The same, in accuracy on validation.
        reference: What that is compared with.
        controls: Names of controls to train beside.
        seeds: One run each; the first is the teacher's too.
    """

    data: str
    teacher: str
    student: str
    out: str
    epochs: int
    teacher_epochs: int | None = None
    batch_size: int = 128
    learning_rate: float = 2e-3
    teacher_learning_rate: float | None = None
    temperature: float = 4.0
    student_loss_weight: float = 0.1
    l1: float = 1e-2
    layers: Sequence[str] | None = None
    finetune_epochs: int | None = None
    minimum_units: int = 1
    unit_multiple: int = 1
    max_parameters: int | None = None
    max_macs: int | None = None
    max_bytes: int | None = None
    max_arena_bytes: int | None = None
    max_accuracy_drop: float | None = None
    reference: str = "student"
    controls: Sequence[str] = ("kd", "same_size")
    seeds: Sequence[int] = (0,)


def run_job(job: Job, console: Console | None = None) -> list[Compression]:
    """Trains what a job needs, and writes and prints what came out.

    Args:
        job: The job.
        console: Where the table goes; None: standard output.

    Returns:
        One compression a seed.

    Raises:
        ValueError: For bad input, before anything is trained.
        OSError: If a file cannot be read, or `out` not be written to.
        RuntimeError: If an exported file disagrees with Keras.
    """
    console = console or Console()
    data = load_dataset(job.data)
    # Once, and before the teacher: Keras counts the names it gives to layers.
    student = load_model(job.student)
    teacher = fresh(lambda: load_model(job.teacher), job.seeds[0])
    _check(job, teacher, student, data)
    out = writable_directory(job.out)
    if not is_trained(job.teacher):
        teacher = _trained_teacher(job, teacher, data)
        teacher.save(out / "teacher.keras")
    found = [
        _compressed(job, seed, teacher, student, data, out)
        for seed in job.seeds
    ]
    title = f"{job.data}: accuracy on {len(data.test):,} test examples"
    console.print(comparison_table(title, found))
    runs = [each.files for each in found if each.files is not None]
    for each, files in zip(found, runs, strict=True):
        console.print(str(files.agreement), highlight=False, soft_wrap=True)
        console.print(
            f"{each.seconds:.0f} seconds. The run is in {files.directory}."
        )
    differing = [str(r.directory) for r in runs if not r.agreement.passed]
    if differing:
        raise RuntimeError(
            "The exported files must compute what Keras computes. Received "
            f"others in {', '.join(differing)}; the table above says by how "
            "much."
        )
    return found


def _check(
    job: Job, teacher: keras.Model, student: keras.Model, data: Dataset
) -> None:
    """Raises for what `compress` would refuse after the teacher's training."""
    checked_splits(teacher, student, data.train, data.validation, data.test)
    check_conversion(student, data.train.x)
    if len(set(job.seeds)) < len(job.seeds):
        raise ValueError(
            "The seeds must be different: each has a run of its own. Received: "
            f"{list(job.seeds)}."
        )
    check_share(job.student_loss_weight)
    SoftTargets(job.temperature)
    pruning = _pruning(job)
    check_options(pruning, job.controls, job.epochs, job.batch_size)
    prepared = prepare(student, job.l1, job.layers)
    check_budget(pruning, prepared, as_split("train", data.train))


def _pruning(job: Job) -> DynamicPruning:
    limits = {
        name: getattr(job, name)
        for name in (
            "max_parameters",
            "max_macs",
            "max_bytes",
            "max_arena_bytes",
            "max_accuracy_drop",
        )
    }
    if job.reference != "student" and job.max_accuracy_drop is None:
        raise ValueError(
            "`reference` must stand beside a `max_accuracy_drop`. Received: "
            f"reference={job.reference!r} alone. Say how far the accuracy may "
            "fall, or leave it out."
        )
    has_limit = any(limit is not None for limit in limits.values())
    return DynamicPruning(
        finetune_epochs=job.finetune_epochs,
        minimum_units=job.minimum_units,
        unit_multiple=job.unit_multiple,
        budget=(
            Budget(**limits, reference=job.reference) if has_limit else None
        ),
    )


def _trained_teacher(
    job: Job, teacher: keras.Model, data: Dataset
) -> keras.Model:
    epochs = job.epochs if job.teacher_epochs is None else job.teacher_epochs
    if epochs == 0:
        return teacher
    recipe = Recipe(
        epochs=epochs,
        batch_size=job.batch_size,
        optimizer=_optimizer(
            job, job.teacher_learning_rate or job.learning_rate, epochs, data
        ),
        loss=default_loss(teacher),
        seed=job.seeds[0],
    )
    with epoch_bars(Console(stderr=True)) as bars:
        bar = EpochProgress(bars, "teacher", epochs)
        return train_supervised(
            teacher, data.train, data.validation, recipe, [bar]
        )


def _optimizer(
    job: Job, learning_rate: float, epochs: int, data: Dataset
) -> keras.optimizers.Optimizer:
    return cosine_adamw(
        learning_rate,
        epochs=epochs,
        batch_size=job.batch_size,
        examples=len(data.train),
    )


def _compressed(
    job: Job,
    seed: int,
    teacher: keras.Model,
    student: keras.Model,
    data: Dataset,
    out: Path,
) -> Compression:
    if not is_trained(job.student):
        student = reinitialized(student, seed)
    directory = out if len(job.seeds) == 1 else out / f"seed-{seed}"
    found = compress(
        teacher,
        prepare(student, job.l1, job.layers),
        data.train,
        data.validation,
        test=data.test,
        epochs=job.epochs,
        batch_size=job.batch_size,
        optimizer=_optimizer(job, job.learning_rate, job.epochs, data),
        temperature=job.temperature,
        student_loss_weight=job.student_loss_weight,
        pruning=_pruning(job),
        l1=job.l1,
        controls=job.controls,
        seed=seed,
        run_dir=directory,
    )
    annotate_run(directory, job=asdict(replace(job, seeds=[seed])))
    return found
