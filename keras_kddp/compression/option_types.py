"""Numbers as the command line takes them, each with its range."""

import argparse


def seed(text: str) -> int:
    """Returns a seed that NumPy takes.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to 4294967295. Received: {text}"
        )
    return int(text)


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
            f"must be a finite number > 0. Received: {text}"
        )
    return found


def whole_number(text: str) -> int:
    """Returns a whole number from 0 on.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"must be a whole number >= 0. Received: {text}"
        )
    return int(text)


def count(text: str) -> int:
    """Returns a whole number from 1 on.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number >= 1. Received: {text}"
        )
    return int(text)
