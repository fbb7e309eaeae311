"""The command line: `kddp`."""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from keras_kddp.cli.demo import run_demo
from keras_kddp.cli.export_commands import add_bench, add_export
from keras_kddp.cli.option_types import _count, _rate, _seed, _whole
from keras_kddp.cli.run_data import data_name
from keras_kddp.compression.controls import CONTROLS
from keras_kddp.compression.job import Job, run_job
from keras_kddp.compression.model_sources import load_model
from keras_kddp.compression.run_directory import read_run
from keras_kddp.data.datasets import load_dataset
from keras_kddp.data.input_range import warn_of_other_range
from keras_kddp.data.splits import check_split
from keras_kddp.export import verify
from keras_kddp.surgery import explain


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0; 1 where a result disagrees or a conversion fails; 2 for bad input; 130
    when interrupted.

    Args:
        arguments: Words after `kddp`; None: those of the process.
    """
    given = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = given.run
    try:
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
        "--seed", type=_seed, default=0, help="of weights and shuffling (0)"
    )
    demo.set_defaults(run=_demo)


def _add_compress(commands: Any) -> None:
    command = commands.add_parser(
        "compress",
        help="distil and prune a student of your own, compare and export it",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = command.add_argument
    model = "a .keras file, a name of keras_kddp.models, or module:function"
    add("--teacher", required=True, help=f"{model}; a file comes trained")
    add("--student", required=True, help=model)
    add(
        "--data",
        required=True,
        help="digits, idx:DIR, npz:FILE or "
        "tfds:NAME,train=SPLIT,validation=SPLIT,test=SPLIT",
    )
    add("--out", required=True, help="run directory")
    add("--epochs", type=_count, required=True, help="of each student")
    add(
        "--teacher-epochs",
        type=_whole,
        help="of a teacher that is no file; 0: it comes trained "
        "(default: as many as --epochs)",
        default=argparse.SUPPRESS,
    )
    add("--batch-size", type=_count, default=Job.batch_size, help="examples")
    add(
        "--learning-rate",
        type=_rate,
        default=Job.learning_rate,
        help="of AdamW at the start; a cosine takes it to 0",
    )
    add(
        "--temperature",
        type=float,
        default=Job.temperature,
        help="of the soft targets",
    )
    add(
        "--student-loss-weight",
        type=float,
        default=Job.student_loss_weight,
        help="share of the labels in what the students learn from",
    )
    add("--l1", type=float, default=Job.l1, help="strength of the penalty")
    add(
        "--layers",
        nargs="+",
        help="layers to prune (default: all that can be)",
        default=argparse.SUPPRESS,
    )
    add(
        "--finetune-epochs",
        type=_whole,
        help="last epochs without penalty (default: a third)",
        default=argparse.SUPPRESS,
    )
    add(
        "--minimum-units",
        type=_count,
        default=Job.minimum_units,
        help="units that stay in every layer",
    )
    add(
        "--unit-multiple",
        type=_count,
        default=Job.unit_multiple,
        help="round widths down to a multiple, where measured to pay",
    )
    for measure, meaning in (
        ("parameters", "weights"),
        ("macs", "multiply-accumulates for one example"),
        ("bytes", "bytes of the int8 file"),
        ("arena-bytes", "memory of the int8 file on TFLM"),
    ):
        add(
            f"--max-{measure}",
            type=_count,
            help=f"budget: {meaning} (default: the method finds its own size)",
            default=argparse.SUPPRESS,
        )
    add(
        "--max-accuracy-drop",
        type=float,
        help="budget: how far the validation accuracy may fall, 0.01 is a "
        "point; the smallest student that keeps it is left",
        default=argparse.SUPPRESS,
    )
    add(
        "--reference",
        choices=["student", "teacher"],
        default=Job.reference,
        help="what --max-accuracy-drop is counted from",
    )
    add(
        "--controls",
        nargs="*",
        choices=[*CONTROLS, "all"],
        default=list(Job.controls),
        help="students to compare with",
    )
    add("--seed", dest="seeds", nargs="+", type=_seed, default=[0], help="runs")
    command.set_defaults(run=_compress)


def _add_explain(commands: Any) -> None:
    command = commands.add_parser(
        "explain", help="show what surgery can take out of a model"
    )
    command.add_argument("model", help="as the student of compress")
    command.set_defaults(run=_explain)


def _add_verify(commands: Any) -> None:
    command = commands.add_parser(
        "verify",
        help="run the files of a run directory and compare them with Keras",
    )
    command.add_argument("directory", help="run directory")
    command.add_argument(
        "--data", help="as for compress; its test split (that of the run)"
    )
    command.set_defaults(run=_verify)


def _demo(given: argparse.Namespace) -> int:
    run_demo(given.out, seed=given.seed)
    return 0


def _compress(given: argparse.Namespace) -> int:
    if "all" in given.controls:
        given.controls = list(CONTROLS)
    names = {field.name for field in fields(Job)}
    run_job(Job(**{k: v for k, v in vars(given).items() if k in names}))
    return 0


def _explain(given: argparse.Namespace) -> int:
    sys.stdout.write(explain(load_model(given.model)) + "\n")
    return 0


def _verify(given: argparse.Namespace) -> int:
    student, files, summary = read_run(given.directory)
    test = load_dataset(data_name(given, summary)).test
    check_split("test", test, student)
    if "input_range" in summary:
        warn_of_other_range(tuple(summary["input_range"]), test.x, "test")
    agreement = verify(student, files, test.x, test.y)
    sys.stdout.write(f"{agreement}\n")
    return 0 if agreement.passed else 1


if __name__ == "__main__":
    sys.exit(main())
