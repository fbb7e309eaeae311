"""How sure a difference between two methods is.

A cell is one finished run. Of it, this module reads `seed`, `length` and, of
each split, the `accuracy` and the `answers`: which examples were right.
"""

import base64
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Cell = Mapping[str, Any]
"""One finished run: what its JSON file has."""

SURE = 2.13
"""So many errors make a difference sure.

The 95th percentile of Student's t with 4 degrees of freedom, those of the mean
of 5 paired differences (2.132): were two methods alike, the first would be
called above the second once in twenty comparisons.
"""

MARGIN = -0.3
"""A mean difference of so many points is still not below."""

WORST = -1.0
"""Of several settings, none may differ by less than so many points."""

LENGTHS = ("short", "long")
"""The two lengths at which a method is trained."""

CURVE_LENGTH = "short"
"""The one at which it is trained at all sizes."""


class Difference(NamedTuple):
    """One method minus another, in points (percent of the examples).

    Attributes:
        mean: Over seeds and examples.
        error: Standard error of the mean.
    """

    mean: float
    error: float


class Pooled(NamedTuple):
    """Differences of one pair of methods in several settings, in points.

    Attributes:
        mean: Over the settings, each of which weighs the same.
        worst: The lowest of them.
    """

    mean: float
    worst: float

    @property
    def is_not_below(self) -> bool:
        """Whether the first method is not below the second over all."""
        return self.mean >= MARGIN and self.worst >= WORST

    def as_json(self) -> dict[str, Any]:
        """Returns the numbers, and whether the first is not below."""
        return {**self._asdict(), "is_not_below": self.is_not_below}


def outcome(is_correct: np.ndarray) -> dict[str, Any]:
    """Returns what a cell keeps of a split, eight examples a byte.

    Args:
        is_correct: (examples,), bool.
    """
    bits = np.packbits(is_correct).tobytes()
    return {
        "accuracy": float(np.mean(is_correct)),
        "answers": base64.b64encode(bits).decode("ascii"),
        "examples": len(is_correct),
    }


def correct(cell: Cell, split: str) -> np.ndarray:
    """Returns which examples of a split a run got right, (examples,), bool.

    Args:
        cell: A run.
        split: `"validation"` or `"test"`.
    """
    found = cell[split]
    bits = np.frombuffer(base64.b64decode(found["answers"]), np.uint8)
    return np.unpackbits(bits, count=found["examples"]).astype(bool)


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Returns the standard error of a mean; 0 of one value: none is known.

    Args:
        values: What the mean is of.
    """
    if len(values) < 2:
        return 0.0
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


def by_seed(cells: Sequence[Cell]) -> dict[int, Cell]:
    """Returns the runs of one method by their seed, in order.

    Args:
        cells: Runs of one method, one length and one size.

    Raises:
        ValueError: If two of them have the same seed.
    """
    found = {cell["seed"]: cell for cell in cells}
    if len(found) < len(cells):
        raise ValueError(
            "Runs of one method must differ in their seeds. Received: seeds="
            f"{sorted(cell['seed'] for cell in cells)}. Choose one length, "
            "one size and one set of options first."
        )
    return dict(sorted(found.items()))


def difference(a: Sequence[Cell], b: Sequence[Cell], split: str) -> Difference:
    """Returns how much better `a` is than `b`, and how sure that is.

    Runs are paired by seed; a seed that only one of both has is left out. The
    error is the larger of two: the standard error of the paired differences
    over the seeds (another seed, the same examples), and the standard error
    over the examples of `correct(a) - correct(b)`, averaged over the seeds
    (the same seeds, other examples). With one seed there is only the second.

    Args:
        a: Runs of one method.
        b: Runs of the other one.
        split: `"validation"` or `"test"`.

    Raises:
        ValueError: If they have no seed in common, or if the answers of a
            pair are to different numbers of examples.
    """
    first, second = by_seed(a), by_seed(b)
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        raise ValueError(
            "Two methods are compared by the seeds of both. Received: seeds="
            f"{list(first)} and {list(second)}. Run a seed of one for the "
            "other."
        )
    margins = np.stack([_margin(first[s], second[s], split) for s in seeds])
    over_seeds = standard_error(margins.mean(axis=1))
    over_examples = standard_error(margins.mean(axis=0))
    # One division of whole numbers: -3 of 1,000 is -0.3, the margin, exactly.
    mean = 100 * int(margins.sum()) / margins.size
    return Difference(mean, 100 * max(over_seeds, over_examples))


def _margin(a: Cell, b: Cell, split: str) -> np.ndarray:
    """Returns, (examples,), 1 where only `a` is right, -1 where only `b`."""
    sizes = a[split]["examples"], b[split]["examples"]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "Runs are compared by their answers to the same examples. "
            f"Received: examples={sizes} of '{split}'. Run those of an "
            "earlier split again."
        )
    return np.subtract(correct(a, split), correct(b, split), dtype=int)


def is_above(found: Difference) -> bool:
    """Returns whether the first method is surely better than the second."""
    return found.mean > 0 and found.mean >= SURE * found.error


def is_not_below(found: Difference) -> bool:
    """Returns whether the first method is about as good, or better.

    Its mean is at most 0.3 points lower, and not surely lower.
    """
    return found.mean >= MARGIN and found.mean + SURE * found.error >= 0


def verdict(found: Difference) -> str:
    """Returns in words how the first method stands to the second.

    Returns:
        `"above"`, `"not below"`, `"below"` (the second is above the first) or
        `"undecided"`: lower by more than the margin, but not surely so.
    """
    if is_above(found):
        return "above"
    if is_not_below(found):
        return "not below"
    opposite = Difference(-found.mean, found.error)
    return "below" if is_above(opposite) else "undecided"


def pooled(differences: Sequence[Difference]) -> Pooled:
    """Returns how the first method stands over several settings.

    Args:
        differences: Of the same two methods, one a setting.
    """
    means = [found.mean for found in differences]
    # Rounded: the mean of -0.4 and -0.2 is the margin, not a hair less.
    return Pooled(round(statistics.fmean(means), 9), min(means))


def better_length(cells: Sequence[Cell]) -> str:
    """Returns the length at which a method does better on validation.

    Compared over the seeds that both lengths have, if there are any; the
    short one where they are equal. Always by validation: a length chosen on
    the test split would flatter the method there.

    Args:
        cells: Runs of one method and one size, at least one.
    """
    found = {
        length: by_seed([cell for cell in cells if cell["length"] == length])
        for length in LENGTHS
    }
    short, long = (found[length] for length in LENGTHS)
    if not (short and long):
        return "short" if short else "long"
    common = short.keys() & long.keys()

    def mean(runs: Mapping[int, Cell]) -> float:
        return statistics.fmean(
            runs[seed]["validation"]["accuracy"] for seed in common or runs
        )

    return "long" if mean(long) > mean(short) else "short"
