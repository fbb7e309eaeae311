"""The commands of `kddp`, which import Keras only when they run."""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from keras_kddp.cli.config_options import add_options, config_of
from keras_kddp.cli.export_options import (
    Command,
    add_bench,
    add_export,
    add_time_limit,
    add_trust,
)
from keras_kddp.compression.config import CompressionConfig
from keras_kddp.compression.option_types import seed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0; 1 where a result disagrees or a conversion fails; 2 for bad input; 130
    when interrupted.

    Args:
        arguments: Words after `kddp`; None: those of the process.
    """
    given = _parser().parse_args(arguments)
    load: Callable[[], Command] = given.load
    try:
        command = load()
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            return command(given)
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.stderr.write(f"kddp: {_one_line(error)}\n")
        return 2
    except RuntimeError as error:
        sys.stderr.write(f"kddp: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"kddp: warning: {_one_line(message)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kddp",
        description="Knowledge distillation with dynamic pruning for Keras.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_demo(commands)
    _add_compress(commands)
    _add_explain(commands)
    _add_verify(commands)
    add_export(commands)
    add_bench(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="distil, prune and export a student on handwritten digits",
    )
    demo.add_argument(
        "--out", default="runs/demo", help="run directory (runs/demo)"
    )
    demo.add_argument(
        "--seed", type=seed, default=0, help="of weights and shuffling (0)"
    )
    demo.set_defaults(load=_load_demo)


def _add_compress(commands: Any) -> None:
    command = commands.add_parser(
        "compress",
        help="distil and prune a student of your own, compare and export it",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_options(command, CompressionConfig)
    command.set_defaults(load=_load_compress)


def _add_explain(commands: Any) -> None:
    command = commands.add_parser(
        "explain", help="show what surgery can take out of a model"
    )
    command.add_argument("model", help="as the student of compress")
    command.set_defaults(load=_load_explain)


def _add_verify(commands: Any) -> None:
    command = commands.add_parser(
        "verify",
        help="run the files of a run directory and compare them with Keras",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("directory", help="run directory")
    command.add_argument(
        "--data",
        help="as for compress; its test split (that of the run)",
        default=argparse.SUPPRESS,
    )
    add_time_limit(command)
    add_trust(command)
    command.set_defaults(load=_load_verify)


def _load_demo() -> Command:
    from keras_kddp.cli.demo import run_demo

    def demo(given: argparse.Namespace) -> int:
        run_demo(given.out, seed=given.seed)
        return 0

    return demo


def _load_compress() -> Command:
    from keras_kddp.compression.job import run_job

    def compress(given: argparse.Namespace) -> int:
        run_job(config_of(given))
        return 0

    return compress


def _load_explain() -> Command:
    from keras_kddp.cli.run_commands import explain_model

    return explain_model


def _load_verify() -> Command:
    from keras_kddp.cli.run_commands import verify_run

    return verify_run
