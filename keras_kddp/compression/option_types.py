"""Numbers as the command line takes them, each with its range."""

import argparse

from keras_kddp.arguments import (
    LARGEST_COUNT,
    LARGEST_SEED,
    LONGEST,
    MOST_EPOCHS,
)

MOST_DIGITS = 100
"""Python reads thousands, which nothing needs."""


def seed(text: str) -> int:
    """Returns a seed that NumPy takes.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    return _number(text, 0, LARGEST_SEED)


def rate(text: str) -> float:
    """Returns a finite number above 0.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(
            f"must be a finite number > 0. Received: {_shown(text)}"
        )
    return found


def whole_number(text: str) -> int:
    """Returns a number of epochs from 0 on.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    return _number(text, 0, MOST_EPOCHS)


def epochs_of_run(text: str) -> int:
    """Returns a number of epochs from 1 on.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    return _number(text, 1, MOST_EPOCHS)


def count(text: str) -> int:
    """Returns a whole number from 1 on.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    return _number(text, 1, LARGEST_COUNT)


def limit(text: str) -> int:
    """Returns a size from 1 on, of which none is too large.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    return _number(text, 1, 10**MOST_DIGITS)


def _number(text: str, smallest: int, largest: int) -> int:
    is_short = text.isdecimal() and len(text) <= MOST_DIGITS
    if not is_short or not smallest <= int(text) <= largest:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {smallest} to {largest}. Received: "
            f"{_shown(text)}"
        )
    return int(text)


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
