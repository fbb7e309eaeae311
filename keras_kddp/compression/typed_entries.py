"""What JSON says of a record, compared with the types of its fields."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from keras_kddp.compression.config import CompressionConfig

_SHOWN = 200  # characters
_MOST = 1 << 63


def wrong_entry(entries: Any, record: type) -> str | None:
    """Returns what an entry has that its field has not; None: nothing.

    Entries without a field are not looked at. Their `job` is a
    `CompressionConfig`, which may have entries that it lacks.

    Args:
        entries: What was read of JSON.
        record: A dataclass.
    """
    if not isinstance(entries, dict):
        return _shown(entries)
    types = {each.name: each.type for each in fields(record)}
    for name, value in entries.items():
        is_right = _CHECKS.get(types.get(name), _is_anything)
        if not is_right(value):
            return f"{name}={_shown(value)}"
    job = entries.get("job") if "job" in types else None
    wrong = job and wrong_entry(job, CompressionConfig)
    return f"job: {wrong}" if wrong else None


def _shown(value: Any) -> str:
    try:
        return repr(value)[:_SHOWN]
    except (RecursionError, ValueError):  # too deep, or of too many digits
        return f"a {type(value).__name__}"


def _is_anything(_: Any) -> bool:
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_count(value: Any) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and 0 <= value < _MOST


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < _MOST and not math.isnan(value)


def _is_logged(value: Any) -> bool:
    return isinstance(value, (int, float))  # a loss may have been NaN


def _is_range(value: Any) -> bool:
    return _are(_is_number)(value) and len(value) == 2


def _are(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Returns a check of lists."""
    return lambda value: isinstance(value, list) and all(map(is_right, value))


def _by_name(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Returns a check of objects."""
    return lambda value: (
        isinstance(value, dict) and all(map(is_right, value.values()))
    )


def _perhaps(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Returns a check that takes nothing as well."""
    return lambda value: value is None or is_right(value)


_CHECKS: dict[Any, Callable[[Any], bool]] = {
    str: _is_text,
    int: _is_count,
    float: _is_number,
    Sequence[str]: _are(_is_text),
    Sequence[int]: _are(_is_count),
    str | None: _perhaps(_is_text),
    int | None: _perhaps(_is_count),
    float | None: _perhaps(_is_number),
    Sequence[str] | None: _perhaps(_are(_is_text)),
    tuple[float, float] | None: _perhaps(_is_range),
    Mapping[str, int] | None: _perhaps(_by_name(_is_count)),
    Mapping[str, Any] | None: _perhaps(_by_name(_is_anything)),
    Sequence[Mapping[str, float]] | None: _perhaps(_are(_by_name(_is_logged))),
}
