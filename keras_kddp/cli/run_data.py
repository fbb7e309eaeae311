"""The data that a run was made with, or that a command names instead."""

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from keras_kddp.compression.model_sources import is_code, objects_of
from keras_kddp.compression.run_directory import Run, RunDirectory
from keras_kddp.compression.run_summary import RunSummary, read_summary
from keras_kddp.data.datasets import Dataset, load_dataset
from keras_kddp.data.input_range import warn_of_other_range
from keras_kddp.data.splits import check_split

Command: TypeAlias = Callable[[argparse.Namespace], int]


def data_name(given: argparse.Namespace, summary: RunSummary) -> str:
    """Returns what data a run is for.

    Args:
        given: With `directory`, and with `data` where the command names some.
        summary: Of the run.

    Raises:
        ValueError: If nothing says so.
    """
    name = getattr(given, "data", None) or summary.of_job("data")
    if not name:
        raise ValueError(
            f"'{given.directory}' does not say what data it is for. Received "
            "no --data. Name it."
        )
    return str(name)


def trusts_code(given: argparse.Namespace) -> bool:
    """Says whether a command may run what the summary of a run names."""
    return bool(getattr(given, "trust_code", False))


def knowing_its_code(command: Command) -> Command:
    """Returns a command that knows the classes of the code that a run names.

    Models of a run may have layers of the module that made them. It is
    imported where the command trusts it; else an error says how.

    Args:
        command: It reads the models of a run.
    """

    def knowing(given: argparse.Namespace) -> int:
        path = RunDirectory.at(given.directory).summary_file
        summary = read_summary(path) if path.is_file() else RunSummary()
        named = [summary.of_job(x, "") for x in ("teacher", "student")]
        sources = [x for x in dict.fromkeys(named) if is_code(x)]
        objects: dict[str, Any] = {}
        hints = []
        for source in sources:
            if not trusts_code(given):
                hints.append(
                    f"The run names code that may have its layers, '{source}': "
                    "give --trust-code if you trust it."
                )
                continue
            try:
                objects |= objects_of(source)
            except ValueError as error:  # it may not be needed
                hints.append(str(error))
        try:
            with keras.saving.custom_object_scope(objects):
                return command(given)
        except ValueError as error:
            if hints and "that Keras can load" in str(error):
                error.add_note(" ".join(hints))
            raise

    return knowing


def load_run_data(given: argparse.Namespace, summary: RunSummary) -> Dataset:
    """Returns the data of a run, read as the version read them that made it.

    Those that the command names are read as this version does. Of those that
    the run names itself nothing is downloaded, and no code is fetched, unless
    the command trusts it.

    Args:
        given: With `directory`, and with `data` where the command names some.
        summary: Of the run.

    Raises:
        ValueError: If nothing names the data, or they are damaged.
        OSError: If a file cannot be read.
    """
    is_named = bool(getattr(given, "data", None))
    return load_dataset(
        data_name(given, summary),
        as_before=summary.reads_data_as_before and not is_named,
        is_trusted=is_named or trusts_code(given),
    )


def run_data(given: argparse.Namespace, run: Run) -> Dataset:
    """Returns the data of a run, checked against its student.

    Says what was done to them, and warns where they have another range than
    those of the training.

    Args:
        given: With `directory`, and with `data` where the command names some.
        run: The run.

    Raises:
        ValueError: If nothing names the data, or they do not fit.
        OSError: If a file cannot be read.
    """
    data = load_run_data(given, run.summary)
    check_split("train", data.train, run.student)
    check_split("test", data.test, run.student)
    data.say_notes()
    if run.summary.input_range is not None:
        warn_of_other_range(run.summary.input_range, data.train.x, "train")
    return data
