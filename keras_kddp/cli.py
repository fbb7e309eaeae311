"""The command line: `kddp`."""

import argparse
import sys
from collections.abc import Sequence

from keras_kddp.demo import run_demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0; 1 where a result disagrees or a conversion fails; 2 for bad input; 130
    when interrupted.

    Args:
        arguments: Words after `kddp`; None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="kddp",
        description="Knowledge distillation with dynamic pruning for Keras.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
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
    given = parser.parse_args(arguments)
    try:
        return _demo(given)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"kddp: {' '.join(str(error).split())}\n")
        return 2
    except RuntimeError as error:
        sys.stderr.write(f"kddp: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _seed(text: str) -> int:
    """Returns a seed that NumPy takes."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to 4294967295. Received: {text}"
        )
    return int(text)


def _demo(given: argparse.Namespace) -> int:
    run_demo(given.out, seed=given.seed)
    return 0
