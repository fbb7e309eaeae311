"""The options of the commands that make files and measure them."""

import argparse
from collections.abc import Callable
from typing import Any

from keras_kddp.arguments import RUN_SECONDS
from keras_kddp.compression.choices import QAT_EPOCHS, QUANTIZATION_NAMES

_CONVERTERS = (
    "; what converts or tunes has as many, or its own limit where that is "
    "longer"
)

Command = Callable[[argparse.Namespace], int]


def add_export(commands: Any) -> None:
    """Adds `kddp export`."""
    command = commands.add_parser(
        "export",
        help="write further files of a run's student, and run each",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("directory", help="run directory")
    _add_file_options(command)
    _add_tuning_options(command)
    _add_saved_model_options(command)
    add_time_limit(command, _CONVERTERS)
    add_data(command)
    add_trust(command)
    command.set_defaults(load=_load_export)


def add_bench(commands: Any) -> None:
    """Adds `kddp bench`."""
    command = commands.add_parser(
        "bench",
        help="time, size and memory of a run's student, beside the one that "
        "was not pruned",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("directory", help="run directory")
    add_time_limit(command, _CONVERTERS)
    add_data(command)
    add_trust(command)
    command.set_defaults(load=_load_bench)


def _add_file_options(command: argparse.ArgumentParser) -> None:
    """Adds what says which files are written, and what is in them."""
    command.add_argument(
        "--format",
        choices=["tflite", "micro", "saved_model"],
        default="tflite",
        help="a .tflite file, C++ sources for a microcontroller, or a "
        "SavedModel to build upon",
    )
    command.add_argument(
        "--quantization",
        nargs="+",
        choices=[*QUANTIZATION_NAMES],
        default=["int8"],
        help="what is done to the numbers, a file each",
    )
    command.add_argument(
        "--uint8-input",
        action="store_true",
        help="int8 files take bytes: pixels, where the data are pixels / 255",
    )
    command.add_argument(
        "--labels",
        nargs="+",
        help="names of the classes, written into the files",
        default=argparse.SUPPRESS,
    )


def _add_tuning_options(command: argparse.ArgumentParser) -> None:
    """Adds what says whether the student is fine-tuned for int8 first."""
    command.add_argument(
        "--qat",
        action="store_true",
        help="fine-tune for int8 first, under the run's teacher if any, into "
        "DIRECTORY/qat",
    )
    command.add_argument(
        "--qat-epochs",
        type=int,
        default=argparse.SUPPRESS,
        help=f"of quantization-aware training ({QAT_EPOCHS})",
    )


def _add_saved_model_options(command: argparse.ArgumentParser) -> None:
    """Adds what a SavedModel alone has."""
    command.add_argument(
        "--features",
        help="layer whose output a SavedModel gives (the model's)",
        default=argparse.SUPPRESS,
    )
    command.add_argument(
        "--license",
        help="of a SavedModel, for its card",
        default=argparse.SUPPRESS,
    )


def add_time_limit(command: argparse.ArgumentParser, others: str = "") -> None:
    """Adds `--time-limit`, of the commands that run files.

    Args:
        command: One of them.
        others: What else it is for, in words.
    """
    command.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        default=RUN_SECONDS,
        help=f"that a runtime may take for one sample{others}",
    )


def add_trust(command: argparse.ArgumentParser) -> None:
    """Adds `--trust-code`, of the commands that read a run directory."""
    command.add_argument(
        "--trust-code",
        action="store_true",
        help="run and download what the summary of the run names: "
        "module:function, tfds:NAME",
    )


def add_data(command: argparse.ArgumentParser, split: str = "") -> None:
    """Adds `--data`, of the commands that read a run directory.

    Args:
        command: One of them.
        split: Which of the data it reads, in words.
    """
    command.add_argument(
        "--data",
        type=_name,
        help=f"as for compress{split} (that of the run)",
        default=argparse.SUPPRESS,
    )


def _name(text: str) -> str:
    """Returns a text with something in it.

    Raises:
        argparse.ArgumentTypeError: If there is nothing.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(
            f"must name data. Received: {text!r}. Leave it out for those of "
            "the run."
        )
    return text


def _load_export() -> Command:
    from keras_kddp.cli.export_commands import export_run

    return export_run


def _load_bench() -> Command:
    from keras_kddp.cli.export_commands import bench_run

    return bench_run
