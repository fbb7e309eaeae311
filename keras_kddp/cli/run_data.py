"""Run data."""

import argparse
from typing import Any

import keras

from keras_kddp.data.datasets import Dataset, load_dataset
from keras_kddp.data.input_range import warn_of_other_range
from keras_kddp.data.splits import check_split


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        help="as for compress (that of the run)",
        default=argparse.SUPPRESS,
    )


def data_name(given: argparse.Namespace, summary: dict[str, Any]) -> str:
    """Returns what data a run is for.

    Raises:
        ValueError: If nothing says so.
    """
    name = getattr(given, "data", None) or summary.get("job", {}).get("data")
    if not name:
        raise ValueError(
            f"'{given.directory}' does not say what data it is for. Received "
            "no --data. Name it."
        )
    return str(name)


def _data(
    given: argparse.Namespace, summary: dict[str, Any], student: keras.Model
) -> Dataset:
    data = load_dataset(data_name(given, summary))
    check_split("test", data.test, student)
    if "input_range" in summary:
        seen = tuple(summary["input_range"])
        warn_of_other_range(seen, data.train.x, "train")
    return data
