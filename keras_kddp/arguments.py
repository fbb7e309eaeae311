"""Checks of plain arguments, and a default that commands share."""

import math
import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

LARGEST_COUNT = 2**31 - 1
"""TensorFlow and the runtimes count in 32 bits here and there."""

LARGEST_SEED = 2**32 - 1
"""The largest that NumPy's legacy generator takes."""

MOST_EPOCHS = 1_000_000
"""Of a run: a schedule is looked through epoch by epoch."""

LONGEST = 120
"""So many letters of a wrong value are shown."""

RUN_SECONDS = 60.0
"""Seconds that a runtime may take for one sample, unless told otherwise."""


def checked_range(value: Any) -> tuple[float, float] | None:
    """Returns an `input_range` as floats, None as it is.

    Raises:
        ValueError: If it is neither None nor two finite numbers in order.
    """
    if value is None:
        return None
    is_pair = isinstance(value, Sequence) and len(value) == 2
    if (
        not is_pair
        or not all(isinstance(x, Real) and math.isfinite(x) for x in value)
        or value[0] > value[1]
    ):
        raise ValueError(
            "`input_range` must be (smallest, largest), two finite numbers, or "
            f"None. Received: input_range={value!r}."
        )
    return float(value[0]), float(value[1])


def checked_path(name: str, value: Any, example: str) -> Path:
    """Returns a path that is given as text, or as an object that stands for it.

    Args:
        name: Of the argument.
        value: What was given.
        example: What to try instead.

    Raises:
        ValueError: If it is no path, or empty.
    """
    is_path = isinstance(value, (str, os.PathLike))
    text = os.fspath(value) if is_path else None
    if not isinstance(text, str) or not text:
        raise ValueError(
            f"`{name}` must be a path. Received: {name}={shortened(value)}. "
            f"Try {name}={example!r}."
        )
    return Path(text)


def require_share(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is a number in [0, 1)."""
    if not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ValueError(
            f"`{name}` must be a number in [0, 1). Received: {name}={value!r}."
        )


def require_count(
    name: str,
    value: Any,
    *,
    smallest: int,
    usual: int | None = None,
    largest: int = LARGEST_COUNT,
) -> None:
    """Raises ValueError unless `value` is an integer in a range.

    Args:
        name: Of the argument.
        value: What was given.
        smallest: The smallest number that it may be.
        usual: A number to try instead, said if there is one.
        largest: The largest number that it may be.
    """
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    hint = "" if usual is None else f" ({usual} is usual)"
    if not is_integer or value < smallest:
        raise ValueError(
            f"`{name}` must be an integer >= {smallest}{hint}. Received: "
            f"{name}={shortened(value)}."
        )
    if value > largest:
        raise ValueError(
            f"`{name}` must be an integer <= {largest}{hint}. Received: "
            f"{name}={shortened(value)}. Give a smaller number."
        )


def require_verbose(value: Any) -> None:
    """Raises ValueError unless `value` is 0, 1 or 2, or a bool."""
    if not isinstance(value, Integral) or value not in (0, 1, 2):
        raise ValueError(
            "`verbose` must be 0, 1 or 2. Received: "
            f"verbose={shortened(value)}. 0 is silent."
        )


def shortened(value: Any) -> str:
    """Returns how a value is written, without the middle where it is long.

    Args:
        value: Anything; an integer may have more digits than Python writes.
    """
    try:
        text = repr(value)
    except ValueError:
        return f"<an integer of {value.bit_length()} bits>"
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}...{text[-half:]}"


def require_time_limit(value: Any) -> None:
    """Raises ValueError unless `value` is a number of seconds, or None."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < math.inf):
        raise ValueError(
            "`time_limit` must be a finite number of seconds > 0, or None for "
            f"no limit. Received: time_limit={value!r}."
        )


def check_share(share: Any) -> None:
    """Checks the share of the hard loss.

    Raises:
        ValueError: If it is no number in [0, 1].
    """
    if not isinstance(share, Real) or not 0 <= float(share) <= 1:
        raise ValueError(
            "`student_loss_weight` must be a number in [0, 1]. Received: "
            f"student_loss_weight={share!r}."
        )
