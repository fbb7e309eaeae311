"""How sure it is that two models, or a model and chance, differ."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from keras_kddp.compression.answers import Answers

ALPHA = 0.05
"""Level of significance, two-sided."""

BETTER, WORSE, TIE = "better", "worse", "tie"


class ExampleDifference(NamedTuple):
    """Two models on the same examples.

    Attributes:
        mean: Accuracy of the first less that of the second.
        error: Its standard error over the examples; NaN for a single one.
        only_first: Examples that the first answers better.
        only_second: Those that the second answers better.
        p_value: Of the exact test of McNemar.
        is_one_per_example: Whether each example has one answer: it is right
            or wrong.
    """

    mean: float
    error: float
    only_first: int
    only_second: int
    p_value: float
    is_one_per_example: bool

    @property
    def word(self) -> str:
        """What the first is: `BETTER`, `WORSE`, or a `TIE` unless p < 0.05."""
        sign = self.only_first - self.only_second
        # Of examples with many answers the larger part may gain the less.
        is_clear = self.p_value < ALPHA and sign * self.mean > 0
        return _word(self.mean, is_clear=is_clear)


class SeedDifference(NamedTuple):
    """Two models over several seeds.

    Attributes:
        mean: Accuracy of the first less that of the second.
        error: Its standard error over the seeds.
        low: Where its 95 % interval begins, by Student's t.
        high: Where it ends.
        seeds: Their number, 2 or more.
    """

    mean: float
    error: float
    low: float
    high: float
    seeds: int

    @property
    def word(self) -> str:
        """What the first is: a `TIE` where the interval holds 0.

        One difference in all seeds has no interval: as many signs as there
        are may be chance.
        """
        is_clear = self.low > 0 or self.high < 0
        if self.low == self.high:
            is_clear = mcnemar(self.seeds, 0) < ALPHA
        return _word(self.mean, is_clear=is_clear)


def _word(mean: float, *, is_clear: bool) -> str:
    if not is_clear or mean == 0:
        return TIE
    return BETTER if mean > 0 else WORSE


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the p value of McNemar's test, exact and two-sided.

    How often as few as the smaller number, or fewer, would come out if each
    example that one model alone gets right were as likely to be the other's
    (McNemar 1947, doi 10.1007/BF02295996).

    Args:
        only_first: Examples that only the first model gets right.
        only_second: Examples that only the second gets right.
    """
    differing = only_first + only_second
    if not differing:
        return 1.0
    return float(stats.binomtest(only_first, differing).pvalue)


def between_examples(first: Answers, second: Answers) -> ExampleDifference:
    """Returns how two models differ on the same examples.

    Examples with many answers count as one each, for the model that gets more
    of them right: McNemar's test is the sign test then.

    Args:
        first: Its answers.
        second: Those of the other model, to the same examples.
    """
    gaps = np.round(first.scores - second.scores, 9)
    only_first, only_second = int((gaps > 0).sum()), int((gaps < 0).sum())
    deviations = first.deviations - second.deviations
    count = len(deviations)
    error = math.nan
    if count > 1:
        error = math.sqrt(count / (count - 1) * float(deviations @ deviations))
    return ExampleDifference(
        mean=first.accuracy - second.accuracy,
        error=error,
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
        is_one_per_example=(
            first.is_one_per_example and second.is_one_per_example
        ),
    )


def over_seeds(differences: Sequence[float]) -> SeedDifference:
    """Returns how two models differ over several seeds.

    Args:
        differences: Accuracy of the first less that of the second, of each
            seed; two or more.
    """
    count, mean = len(differences), float(np.mean(differences))
    error = float(np.std(differences, ddof=1)) / math.sqrt(count)
    if np.ptp(differences) < 1e-9:  # equal, but for rounding
        error = 0.0
    width = float(stats.t.ppf(1 - ALPHA / 2, count - 1)) * error
    return SeedDifference(mean, error, mean - width, mean + width, count)


def chance_error(chance: float, count: int) -> float:
    """Returns the standard error of what is right by chance.

    Args:
        chance: Share that is right by chance, in [0, 1].
        count: Number of answers.
    """
    return math.sqrt(chance * (1 - chance) / count)


def is_near_chance(accuracy: float, count: int, chance: float) -> bool:
    """Says whether an accuracy is hardly above chance.

    At most a tenth of the way from there to 1; or at most half of the way,
    and not above chance by the one-sided binomial test. Of so few examples
    that a model without an error would fail it too, nothing is said.

    Args:
        accuracy: Share of right answers, in [0, 1].
        count: Number of examples.
        chance: Share that is right by chance, in [0, 1].
    """
    if chance**count >= ALPHA:
        return False
    share = (accuracy - chance) / (1 - chance)
    if not 0.1 < share <= 0.5:
        return share <= 0.1
    right = round(accuracy * count)
    test = stats.binomtest(right, count, chance, alternative="greater")
    return bool(test.pvalue >= ALPHA)
