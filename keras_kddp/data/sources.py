"""What a text that names data stands for, as it was read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")
_LAST_OPTION = re.compile(r"(.+),(scale|group)=([^,]*)", re.DOTALL)


class SplitArrays(NamedTuple):
    """One split, as its source has it.

    Attributes:
        x: Inputs, (examples, ...) of any dtype.
        y: Labels, (examples, ...) of any dtype.
        groups: The group of each example, (examples,), or None.
    """

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """What a text names, as it was read.

    Attributes:
        splits: By name, in the order train, validation, test.
        options: The options of the text that are for what was read.
        notes: What there is to say, a sentence each.
    """

    splits: Mapping[str, SplitArrays]
    options: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """Returns a text in two: the path, and the options behind it by name.

    Args:
        text: `PATH` or `PATH,scale=NUMBER,group=KEY`; other commas belong to
            the path, and all of them to one that is there as it is written.

    Raises:
        ValueError: If an option is given twice, or is empty.
    """
    name, options = text, dict[str, str]()
    while not Path(name).exists() and (found := _LAST_OPTION.fullmatch(name)):
        name, option, value = found.groups()
        if option in options or not value:
            raise ValueError(
                f"`{option}=` must be given once, with a value. Received: "
                f"{text!r}."
            )
        options[option] = value
    return name, options
