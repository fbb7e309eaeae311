"""Which answers of a model are right, example by example."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_kddp.model_io import Array, which_count


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a classifier to labelled examples.

    An example has one answer, or one for each of its positions; steps that
    Keras masks count nothing. Of several outputs all means are taken over
    their shares.

    Attributes:
        right: How many answers are right, (outputs, examples).
        counts: How many there are, (outputs, examples).
        chances: Of each output the share that is right by chance: that of the
            most frequent class among its labels; where these are of one class
            alone, 1 / classes.
        skills: Of each output how far the mean of the shares of its classes
            is surely on the way from chance to 1; () where that is unknown.
            What always answers the same has none, however frequent that is.
    """

    right: NDArray[np.int64]
    counts: NDArray[np.int64]
    chances: tuple[float, ...]
    skills: tuple[float, ...] = ()

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self.right.shape[1]

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Share of right answers of each output, (outputs,)."""
        return self.right.sum(axis=1) / self._totals

    @property
    def accuracy(self) -> float:
        """Share of right answers, in [0, 1]."""
        return float(np.mean(self.accuracies))

    @property
    def scores(self) -> NDArray[np.float64]:
        """Share of right answers in each example, (examples,)."""
        return (self.right / np.maximum(self.counts, 1)).mean(axis=0)

    @property
    def deviations(self) -> NDArray[np.float64]:
        """What each example moves the accuracy by, (examples,); the sum is 0.

        Of a ratio to first order (Cochran 1977, Sampling Techniques, 6.4):
        positions of one example do not err independently, so the examples are
        what is counted.
        """
        expected = self.accuracies[:, None] * self.counts
        return ((self.right - expected) / self._totals[:, None]).mean(axis=0)

    @property
    def is_one_per_example(self) -> bool:
        """Whether each example has one answer."""
        return len(self.counts) == 1 and bool((self.counts == 1).all())

    @property
    def _totals(self) -> NDArray[np.int64]:
        return np.maximum(self.counts.sum(axis=1), 1)


def mark_answers(
    outputs: Sequence[Array],
    masks: Sequence[Array | None],
    labels: Sequence[Array],
) -> Answers:
    """Returns which answers are right.

    Args:
        outputs: Scores, (examples, ..., classes) for each output.
        masks: For each the steps that are no padding, (examples, steps), or
            None.
        labels: Class numbers for each, (examples, ...).
    """
    right, counts, chances, skills = [], [], [], []
    for output, mask, label in zip(outputs, masks, labels, strict=True):
        hits = output.argmax(axis=-1) == label
        valid = which_count(hits.shape, mask)
        right.append((hits & valid).reshape(len(hits), -1).sum(axis=1))
        counts.append(valid.reshape(len(hits), -1).sum(axis=1))
        numbers, classes = np.asarray(label)[valid], output.shape[-1]
        chances.append(_chance(numbers, classes))
        skills.append(_skill(hits[valid], numbers, classes))
    return Answers(
        np.array(right), np.array(counts), tuple(chances), tuple(skills)
    )


def _chance(labels: Array, classes: int) -> float:
    """Returns how often the best answer that is always the same is right."""
    _, times = np.unique(labels, return_counts=True)
    return times.max() / times.sum() if len(times) > 1 else 1 / classes


def _skill(hits: Array, labels: Array, classes: int) -> float:
    """Returns how far the mean of the classes' shares is from chance to 1.

    Less two of the standard errors that it has by chance. What always answers
    the same gets one class right and no other: the mean is 1 / classes, however
    frequent that class is.

    Args:
        hits: Which answers are right, (answers,).
        labels: Their class numbers, (answers,).
        classes: How many the output has.
    """
    found, places, times = np.unique(
        labels, return_inverse=True, return_counts=True
    )
    if not len(found):
        return 0.0
    chance = 1 / (len(found) if len(found) > 1 else classes)
    mean = np.mean(np.bincount(places, hits) / times)
    error = np.sqrt(np.sum(chance * (1 - chance) / times)) / len(found)
    return float((mean - chance - 2 * error) / (1 - chance))
