"""The words of `kddp compress --resume`, beside which nothing else stands."""

import argparse
from collections.abc import Sequence
from typing import Any

_SHOWS_HELP = {"-h", "--help"}


def add_resume(command: argparse.ArgumentParser) -> None:
    """Adds what goes on with a run that was broken off.

    Args:
        command: The parser of `kddp compress`, for its help.
    """
    group = command.add_argument_group(
        "a run that was broken off",
        "kddp compress --resume DIR goes on with it, as it was asked for: no "
        "other option stands beside it.",
    )
    add_resume_options(group)


def add_resume_options(group: Any) -> None:
    """Adds the options of a run that goes on.

    Args:
        group: A parser, or a group of one.
    """
    group.add_argument(
        "--resume",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="its run directory",
    )
    group.add_argument(
        "--trust-code",
        action="store_true",
        default=argparse.SUPPRESS,
        help="run and download what the run names: module:function, tfds:NAME",
    )


def misplaced(given: argparse.Namespace) -> str | None:
    """Returns why the words of a run that begins are refused; None: they fit.

    Args:
        given: Of any command, without `--resume` in full.
    """
    if hasattr(given, "resume"):
        return (
            "`--resume` must be written in full. Received the beginning of it. "
            "Write kddp compress --resume DIR."
        )
    if given.command == "compress" and hasattr(given, "trust_code"):
        return (
            "`--trust-code` must stand beside --resume. Received it for a run "
            "that begins, whose models and data you name yourself. Leave it "
            "out."
        )
    return None


def resume_of(words: Sequence[str]) -> argparse.Namespace | None:
    """Returns what `kddp compress --resume` is asked for.

    Args:
        words: After `kddp`.

    Returns:
        With `command`, `resume`, `trust_code` and `traceback`; None for other
        words.

    Raises:
        SystemExit: If other options stand beside it.
    """
    is_asked = any(x.partition("=")[0] == "--resume" for x in words)
    if not is_asked or _SHOWS_HELP & {*words}:
        return None
    parser = argparse.ArgumentParser(
        prog="kddp", add_help=False, allow_abbrev=False
    )
    parser.add_argument("command", choices=["compress"])
    parser.add_argument("--traceback", action="store_true")
    add_resume_options(parser)
    given, others = parser.parse_known_args(words)
    if sum(x.partition("=")[0] == "--resume" for x in words) > 1:
        parser.error(
            "`--resume` must stand once. Received it more than once. Name one "
            "run directory."
        )
    if others:
        parser.error(
            "`--resume` takes everything from the run in progress. Received "
            f"beside it: {' '.join(others)}. Leave it out, or begin another "
            "run with --out."
        )
    given.trust_code = getattr(given, "trust_code", False)
    return given
