"""A compression as the command line asks for it: from texts to tables."""

import keras
from rich.console import Console

from keras_kddp.compression.checks import Preflight, preflight
from keras_kddp.compression.comparison_table import (
    comparison_table,
    verdict_list,
)
from keras_kddp.compression.conclusion import concluded
from keras_kddp.compression.config import CompressionConfig
from keras_kddp.compression.config_checks import check_config
from keras_kddp.compression.controls import reinitialized
from keras_kddp.compression.model_sources import (
    is_trained,
    load_model,
    teacher_named,
)
from keras_kddp.compression.results import Compression
from keras_kddp.compression.run_directory import bytes_of_run
from keras_kddp.compression.run_identity import identity_of
from keras_kddp.compression.run_in_progress import (
    RunInProgress,
    check_beginning,
    run_in_progress,
)
from keras_kddp.compression.run_record import RunRecord, file_sums
from keras_kddp.compression.stages import Stage
from keras_kddp.compression.training import (
    Recipe,
    cosine_adamw,
    default_loss,
    train_supervised,
)
from keras_kddp.compression.trainings import train_checked
from keras_kddp.compression.verdicts import verdicts
from keras_kddp.data.datasets import Dataset, load_dataset
from keras_kddp.distillation.checks import Teacher
from keras_kddp.distillation.loss_guard import LossGuard
from keras_kddp.layers.preparation import prepare
from keras_kddp.progress import EpochProgress, epoch_bars
from keras_kddp.pruning.budget.budget import Budget
from keras_kddp.pruning.callback import DynamicPruning


def run_job(
    config: CompressionConfig,
    console: Console | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    is_trusted: bool = True,
) -> list[Compression]:
    """Trains what a configuration asks for; writes and prints what came out.

    Args:
        config: The configuration.
        console: Where the table goes; None: standard output.
        overwrite: Put the run in the place of an earlier one.
        resume: Go on with this run where it was broken off.
        is_trusted: The data are named by the user; see `load_dataset`.

    Returns:
        One compression per seed.

    Raises:
        ValueError: For bad input, before anything is trained; if `out` holds
            something else, or an earlier run that is not to be overwritten.
        OSError: If a file cannot be read, or `out` not be written to.
        RuntimeError: If the teacher's loss becomes NaN or infinite, or an
            exported file disagrees with Keras.
    """
    check_config(config)
    check_beginning(config.out, resume=resume, overwrite=overwrite)
    data = load_dataset(config.data, is_trusted=is_trusted)
    # Once, and before the teacher: Keras counts the names it gives to layers.
    student = load_model(config.student)
    teacher: Teacher = teacher_named(config.teacher, config.seeds[0])
    checked = _preflight(config, teacher, student, data)
    record = RunRecord(
        file_sums(config.teacher, config.student)
        | identity_of(checked, teacher),
        config.as_dict(),
    )
    with run_in_progress(
        config.out,
        record,
        resume=resume,
        overwrite=overwrite,
        bytes_needed=len(config.seeds) * bytes_of_run(student, teacher),
    ) as run:
        data.say_notes()
        is_model = isinstance(teacher, keras.Model)
        if is_model and not is_trained(config.teacher):
            stage = run.teacher_stage
            teacher = _trained_teacher(config, teacher, data, stage)
            run.directory.write_teacher(teacher)
        found = _run_seeds(config, checked, (teacher, student), data, run)
    title = f"{config.data}: accuracy on {len(data.test):,} test examples"
    _show(found, title, console or Console())
    _check_agreement(found)
    return found


def _run_seeds(
    config: CompressionConfig,
    checked: Preflight,
    models: tuple[Teacher, keras.Model],
    data: Dataset,
    run: RunInProgress,
) -> list[Compression]:
    """Compresses with every seed, each into a run directory of its own.

    Args:
        config: The configuration.
        checked: What was checked of the first seed.
        models: Teacher, trained by now unless it is "self", and student.
        data: With its notes.
        run: Of all seeds.
    """
    teacher, student = models
    starts = [checked] + [
        checked.of_seed(seed, _start(config, student, seed))
        for seed in config.seeds[1:]
    ]
    is_one = len(config.seeds) == 1
    places = [run if is_one else run.of_seed(seed) for seed in config.seeds]
    # All before the first is concluded: a later start has it all, then.
    trained = [
        train_checked(start, teacher, place)
        for start, place in zip(starts, places, strict=True)
    ]
    found = []
    for start, each, place in zip(starts, trained, places, strict=True):
        found.append(concluded(start, each, place))
        of_seed = config.of_seed(start.recipe.seed)
        place.directory.write_configuration(of_seed, data.notes)
        if not is_one:
            place.directory.seal()
    return found


def _start(
    config: CompressionConfig, student: keras.Model, seed: int
) -> keras.Model:
    """Returns the student that the run of a seed starts with."""
    if not is_trained(config.student):
        student = reinitialized(student, seed)
    return prepare(student, config.l1, config.layers)


def _preflight(
    config: CompressionConfig,
    teacher: Teacher,
    student: keras.Model,
    data: Dataset,
) -> Preflight:
    """Checks all runs, before the teacher of the first is trained.

    Raises:
        ValueError: If the configuration does not fit models and data.
        ExportError: If an int8 file cannot be made of the student.
    """
    rate, epochs = config.learning_rate, config.epochs
    recipe = Recipe(
        optimizer=_optimizer(config, rate, epochs, data),
        loss=None,
        seed=config.seeds[0],
        **config.arguments_of("recipe"),
    )
    return preflight(
        teacher,
        _start(config, student, config.seeds[0]),
        {name: getattr(data, name) for name in data.split_sizes},
        recipe,
        pruning=DynamicPruning(**config.arguments_of("pruning")),
        budget=_budget(config),
        l1=config.l1,
        controls=config.controls,
        is_exported=True,
    )


def _budget(config: CompressionConfig) -> Budget | None:
    """Returns what the student must fit; None where nothing is limited.

    Raises:
        ValueError: If a limit is out of range, or a reference has none.
    """
    limits = config.arguments_of("budget")
    reference = limits.pop("reference")
    if reference != "student" and config.max_accuracy_drop is None:
        raise ValueError(
            "`reference` must stand beside a `max_accuracy_drop`. Received: "
            f"reference={reference!r} alone. Say how far the accuracy may "
            "fall, or leave it out."
        )
    if all(limit is None for limit in limits.values()):
        return None
    return Budget(**limits, reference=reference)


def _trained_teacher(
    config: CompressionConfig,
    teacher: keras.Model,
    data: Dataset,
    stage: Stage,
) -> keras.Model:
    """Trains the teacher on the labels, if it is to be trained."""
    epochs = config.teacher_epochs
    if epochs is None:
        epochs = config.epochs
    if epochs == 0:
        return teacher
    rate = config.teacher_learning_rate or config.learning_rate
    recipe = Recipe(
        epochs=epochs,
        batch_size=config.batch_size,
        optimizer=_optimizer(config, rate, epochs, data),
        loss=default_loss(teacher),
        seed=config.seeds[0],
    )
    with epoch_bars(Console(stderr=True)) as bars:
        bar = EpochProgress(bars, "teacher", epochs)
        guard = LossGuard("the teacher", is_fatal=True)
        return train_supervised(
            teacher,
            data.train,
            data.validation,
            recipe,
            [bar, guard],
            stage,
        )


def _optimizer(
    config: CompressionConfig, rate: float, epochs: int, data: Dataset
) -> keras.optimizers.Optimizer:
    """Returns AdamW on a cosine over one run."""
    return cosine_adamw(
        rate,
        epochs=epochs,
        batch_size=config.batch_size,
        examples=len(data.train),
    )


def _show(found: list[Compression], title: str, console: Console) -> None:
    """Prints table and verdicts of all seeds, and how the files agree."""
    console.print(comparison_table(title, found))
    if told := verdicts([each.judged for each in found]):
        console.print(verdict_list(told))
    for each in found:
        if each.files is not None:
            agreement = str(each.files.agreement)
            # Of paths and names nothing is markup, such as [b].
            console.print(
                agreement, markup=False, highlight=False, soft_wrap=True
            )
            console.print(
                f"{each.seconds:.0f} seconds. The run is in "
                f"{each.files.directory}.",
                markup=False,
                soft_wrap=True,
            )


def _check_agreement(found: list[Compression]) -> None:
    """Checks that all exported files compute what Keras computes.

    Raises:
        RuntimeError: If one does not.
    """
    runs = [each.files for each in found if each.files is not None]
    differing = [str(r.directory) for r in runs if not r.agreement.passed]
    if differing:
        raise RuntimeError(
            "The exported files must compute what Keras computes. Received "
            f"others in {', '.join(differing)}; the table above says by how "
            "much."
        )
