"""A compression of the command line that goes on where it was broken off."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from keras_kddp.atomic_files import SUFFIX
from keras_kddp.compression.config import CompressionConfig
from keras_kddp.compression.job import run_job
from keras_kddp.compression.model_sources import is_code
from keras_kddp.compression.run_in_progress import check_same, former_record
from keras_kddp.compression.run_record import (
    RunRecord,
    Target,
    file_sums,
    holds_run,
)


def resume_job(
    directory: Target,
    *,
    trust_code: bool = False,
    console: Console | None = None,
) -> None:
    """Goes on with the run in progress at a directory, as it was asked for.

    Says so, and does nothing else, where the run is finished.

    Args:
        directory: The run directory; what is in progress is beside it.
        trust_code: Whether functions that the run names are called, and data
            that it names are fetched.
        console: Where the table goes; None: standard output.

    Raises:
        ValueError: If the run is another by now, or names code and is not
            trusted.
        OSError: If there is no run in progress, or it cannot be read.
        RuntimeError: If an exported file disagrees with Keras.
    """
    record = former_record(directory)
    if record is None and holds_run(directory):
        sys.stdout.write(f"The run in {os.fspath(directory)} is finished.\n")
        return
    if record is None or record.job is None:
        raise _nothing_to_resume(directory, record)
    config = replace(
        CompressionConfig.of_job(record.job), out=os.fspath(directory)
    )
    if not trust_code:
        _check_names_no_code(config)
    _check_files(directory, record, config)
    run_job(config, console, resume=True, is_trusted=trust_code)


def _check_files(
    directory: Target, record: RunRecord, config: CompressionConfig
) -> None:
    """Checks that model files are those that the run began with.

    Raises:
        ValueError: If one is another.
    """
    now = file_sums(config.teacher, config.student)
    then = {name: record.follows_from.get(name) for name in now}
    check_same(directory, RunRecord(then), RunRecord(now))


def _nothing_to_resume(
    directory: Target, record: RunRecord | None
) -> FileNotFoundError:
    """Returns the error that says what is there instead."""
    path = Path(directory)
    found, mending = "nothing", "Begin a run with --out"
    if record is not None:
        found = "one that a call of keras_kddp.compress has begun"
        mending = "Call it again with resume=True"
    elif path.name.endswith(SUFFIX):
        found = "the folder beside a run directory"
        mending = f"Name '{path.with_suffix('')}'"
    elif path.is_dir():
        names = sorted(each.name for each in path.iterdir())
        found = f"a folder with {', '.join(names[:5]) or 'nothing in it'}"
    elif path.exists():
        found = "a file"
    return FileNotFoundError(
        f"'{os.fspath(directory)}' must be the directory of a run in progress. "
        f"Received: {found}. {mending}."
    )


def _check_names_no_code(config: CompressionConfig) -> None:
    """Refuses functions: what a stranger's folder names would be run.

    Raises:
        ValueError: If there is one.
    """
    for name in ("teacher", "student"):
        source = getattr(config, name)
        if is_code(source):
            raise ValueError(
                f"The {name} of a run that goes on must be a .keras file or "
                f"one of keras_kddp.models. Received: {source!r}, code that "
                "would be run. Give --trust-code if you trust it."
            )
