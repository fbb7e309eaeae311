"""The data that a run was made with, or that a command names instead."""

import argparse

from keras_kddp.compression.run_directory import Run
from keras_kddp.compression.run_summary import RunSummary
from keras_kddp.data.datasets import Dataset, load_dataset
from keras_kddp.data.input_range import warn_of_other_range
from keras_kddp.data.splits import check_split


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
