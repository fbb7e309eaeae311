"""The commands of `kddp`, which import Keras only when they run."""

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from keras_kddp.cli.config_options import add_options, config_of
from keras_kddp.cli.export_options import (
    Command,
    add_bench,
    add_data,
    add_export,
    add_time_limit,
    add_trust,
)
from keras_kddp.cli.interruption import INTERRUPTED, ending_on_signals
from keras_kddp.cli.resume_options import add_resume, misplaced, resume_of
from keras_kddp.cli.streams import lasting_streams
from keras_kddp.compression.config import CompressionConfig
from keras_kddp.compression.option_types import seed
from keras_kddp.compression.run_record import how_to_go_on

EXIT_CODES = (
    "Exit codes: 0, done; 1, a result disagrees, a training or conversion "
    "failed, or something unexpected happened; 2, bad input; 130, interrupted."
)
LONGEST_LINE = 2_000
_BAD_INPUT = (ImportError, OSError, TypeError, ValueError)
_UNEXPECTED = (NotImplementedError, RecursionError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code, one of `EXIT_CODES`.

    Every error is one line on standard error; with `--traceback` where it was
    raised comes before.

    Args:
        arguments: Words after `kddp`; None: those of the process.
    """
    with lasting_streams():
        given = _given(sys.argv[1:] if arguments is None else arguments)
        load: Callable[[], Command] = given.load
        try:
            with ending_on_signals(lambda: _last_words(given)):
                return _done(load(), given)
        except BrokenPipeError:  # as of `| head`: nobody reads on
            return 1
        except KeyboardInterrupt:
            return INTERRUPTED
        except Exception as error:
            if given.traceback:
                traceback.print_exc()
            return _tell(error)


def _done(command: Command, given: argparse.Namespace) -> int:
    """Runs a command with its warnings as lines; returns its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        code = command(given)
    sys.stdout.flush()
    return code


def _given(words: Sequence[str]) -> argparse.Namespace:
    """Returns what is asked for, with what loads the command."""
    resumed = resume_of(words)
    if resumed is None:
        parser = _parser()
        given = parser.parse_args(words)
        if refusal := misplaced(given):
            parser.error(refusal)
        return given
    resumed.load = _load_resume
    return resumed


def _last_words(given: argparse.Namespace) -> str:
    """Returns what an interrupted command says."""
    is_run = given.command in ("compress", "demo")
    target = getattr(given, "resume", None) or getattr(given, "out", None)
    kept = how_to_go_on(target) if is_run and target else None
    return f"interrupted; {kept}" if kept else "interrupted"


def _tell(error: Exception) -> int:
    """Writes an error in one line; returns the exit code that it has."""
    if isinstance(error, _BAD_INPUT) and str(error):
        sys.stderr.write(f"kddp: {_one_line(error)}\n")
        return 2
    if isinstance(error, RuntimeError) and type(error) not in _UNEXPECTED:
        sys.stderr.write(f"kddp: {_one_line(error)}\n")
        return 1
    text = _one_line(f"unexpected {type(error).__name__}: {error}")
    where = "where: kddp --traceback ..."
    sys.stderr.write(f"kddp: {text.removesuffix(':')} ({where})\n")
    return 1


def _one_line(error: object) -> str:
    text = " ".join(" ".join([str(error), *_notes(error)]).split())
    if len(text) <= LONGEST_LINE:
        return text
    half = LONGEST_LINE // 2
    return f"{text[:half]} [...] {text[-half:]}"


def _notes(error: object) -> Sequence[str]:
    """Returns what was added to an error on its way, such as what is kept."""
    notes: Sequence[str] = getattr(error, "__notes__", ())
    return notes


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"kddp: warning: {_one_line(message)}\n")


class _Parser(argparse.ArgumentParser):
    """Refuses words in lines that are no longer than needed."""

    def error(self, message: str) -> NoReturn:
        super().error(_one_line(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kddp",
        description="Knowledge distillation with dynamic pruning for Keras.",
        epilog=EXIT_CODES,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_demo(commands)
    _add_compress(commands)
    _add_explain(commands)
    _add_verify(commands)
    add_export(commands)
    add_bench(commands)
    parser.set_defaults(traceback=False)
    for each in (parser, *commands.choices.values()):
        each.add_argument(
            "--traceback",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show where an error comes from",
        )
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
    _add_overwrite(demo)
    demo.set_defaults(load=_load_demo)


def _add_compress(commands: Any) -> None:
    command = commands.add_parser(
        "compress",
        help="distil and prune a student of your own, compare and export it",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_options(command, CompressionConfig)
    _add_overwrite(command)
    add_resume(command)
    command.set_defaults(load=_load_compress)


def _add_overwrite(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an earlier run in --out; a folder that holds anything "
        "else is refused all the same",
    )


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
    add_data(command, "; its test split")
    add_time_limit(command)
    add_trust(command)
    command.set_defaults(load=_load_verify)


def _load_demo() -> Command:
    from keras_kddp.cli.demo import run_demo

    def demo(given: argparse.Namespace) -> int:
        run_demo(given.out, seed=given.seed, overwrite=given.overwrite)
        return 0

    return demo


def _load_compress() -> Command:
    from keras_kddp.compression.job import run_job

    def compress(given: argparse.Namespace) -> int:
        run_job(config_of(given), overwrite=given.overwrite)
        return 0

    return compress


def _load_resume() -> Command:
    from keras_kddp.compression.resumed_job import resume_job

    def resume(given: argparse.Namespace) -> int:
        resume_job(given.resume, trust_code=given.trust_code)
        return 0

    return resume


def _load_explain() -> Command:
    from keras_kddp.cli.run_commands import explain_model

    return explain_model


def _load_verify() -> Command:
    from keras_kddp.cli.run_commands import verify_run

    return verify_run
