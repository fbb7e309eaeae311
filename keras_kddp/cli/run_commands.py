"""The commands that look: at a model, and at the files of a run."""

import argparse
import sys

from keras_kddp.cli.run_data import knowing_its_code, load_run_data
from keras_kddp.compression.model_sources import load_model
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.data.input_range import warn_of_other_range
from keras_kddp.data.splits import check_split
from keras_kddp.export import verify
from keras_kddp.surgery import explain


def explain_model(given: argparse.Namespace) -> int:
    """Shows what surgery can take out of a model; returns exit code 0.

    Args:
        given: With `model`.

    Raises:
        ValueError: If it names no model.
        OSError: If a file cannot be read.
    """
    sys.stdout.write(explain(load_model(given.model)) + "\n")
    return 0


@knowing_its_code
def verify_run(given: argparse.Namespace) -> int:
    """Compares the files of a run with Keras; returns 0 where all agree.

    Args:
        given: With `directory`, `time_limit`, and perhaps `data`.

    Raises:
        ValueError: If the run is damaged, or its data are unknown.
        OSError: If a file is missing.
    """
    run = RunDirectory.at(given.directory).read()
    data = load_run_data(given, run.summary)
    test = data.test
    check_split("test", test, run.student)
    data.say_notes()
    if run.summary.input_range is not None:
        warn_of_other_range(run.summary.input_range, test.x, "test")
    agreement = verify(
        run.student, run.files, test.x, test.y, time_limit=given.time_limit
    )
    sys.stdout.write(f"{agreement}\n")
    return 0 if agreement.passed else 1
