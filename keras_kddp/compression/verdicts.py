"""Which models of a comparison are better, in words with the error."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from keras_kddp.compression.answers import Answers
from keras_kddp.compression.choices import CONTROLS, PRUNED
from keras_kddp.compression.comparison_tests import (
    BETTER,
    TIE,
    ExampleDifference,
    SeedDifference,
    between_examples,
    over_seeds,
)
from keras_kddp.compression.near_chance import (
    against_chance,
    counted,
    output_near_chance,
)

Difference = ExampleDifference | SeedDifference

_UNTAUGHT = "So is its teacher: look at that first."
_UNTRAINED = (
    "So is the student without a penalty: train longer, or at another learning "
    "rate."
)
_LOST = (
    "Lower `l1`, warm up longer (`warmup_epochs`) or keep more units "
    "(`minimum_units`)."
)
_UNKNOWN = (
    "Train longer or, where the student without a penalty (the control `kd`) "
    f"knows more: {_LOST[0].lower()}{_LOST[1:]}"
)
_POOR_CONTROL = "To beat it says little: look at its training first."
_ARTICLES = {TIE: "a tie"}
_NO_BETTER = (
    " It is {} better than its student: a larger teacher, or one that is "
    "trained longer, has more to teach."
)


class Judged(NamedTuple):
    """The answers of all models of one run to the same examples.

    Attributes:
        teacher: The teacher's; None without one.
        pruned: Those of the pruned student.
        controls: Name -> those of each control.
        split: What the examples are: "test" or "validation".
        is_own_teacher: The teacher is the student itself, unpruned.
    """

    teacher: Answers | None
    pruned: Answers
    controls: Mapping[str, Answers]
    split: str
    is_own_teacher: bool = False


def verdicts(runs: Sequence[Judged]) -> tuple[str, ...]:
    """Returns how the models of a comparison differ, one sentence each.

    The pruned student against each control; the teacher, if there is one,
    against the best student, unless it is better; and what these sentences do
    not say.

    Args:
        runs: One per seed; the examples are the same in all of them.
    """
    split = runs[0].split
    rivals = {PRUNED: [(run, run.pruned) for run in runs]}
    pruned = [run.pruned for run in runs]
    found = [_near_chance("Pruned student", pruned, split, _way_out(runs))]
    gaps = []
    for name in dict.fromkeys(name for run in runs for name in run.controls):
        those, title = [x for x in runs if name in x.controls], CONTROLS[name]
        controls = [run.controls[name] for run in those]
        rivals[title] = [(run, run.controls[name]) for run in those]
        gaps.append(
            _difference([(run.pruned, run.controls[name]) for run in those])
        )
        found += [
            f'Pruned student against "{title}": '
            f"{_told(gaps[-1], split, 'control')}.",
            _near_chance(f'"{title}"', controls, split, _POOR_CONTROL),
        ]
    best = max(rivals, key=lambda title: _mean_accuracy(rivals[title]))
    pairs = [
        (run.teacher, student)
        for run, student in rivals[best]
        if run.teacher is not None
    ]
    gap = _difference(pairs) if pairs else None
    if gap is not None and gap.word != BETTER:
        gaps.append(gap)
        found.append(_no_better(gap, best, runs[0]))
    return tuple(filter(None, [*found, *_notes(runs, gaps)]))


def _no_better(gap: Difference, best: str, run: Judged) -> str:
    """Returns that the teacher is no better than the best student.

    Args:
        gap: How it differs from that one.
        best: What that one is called.
        run: One of those that are compared.
    """
    who, advice = "Teacher", ""
    if run.is_own_teacher:
        who = "Teacher, the student itself,"
    elif gap.mean <= 0:
        advice = _NO_BETTER.format(
            "not measurably" if gap.word == TIE else "no"
        )
    told = _told(gap, run.split, "student")
    return f'{who} against "{best}", the best student: {told}.{advice}'


def _difference(
    pairs: Sequence[tuple[Answers, Answers]],
) -> Difference:
    """Returns how the first differ from the second, one pair per seed."""
    if len(pairs) == 1:
        return between_examples(*pairs[0])
    return over_seeds([one.accuracy - other.accuracy for one, other in pairs])


def _mean_accuracy(pairs: Sequence[tuple[Judged, Answers]]) -> float:
    return sum(student.accuracy for _, student in pairs) / len(pairs)


def _told(difference: Difference, split: str, other: str) -> str:
    """Returns a difference in words.

    Args:
        difference: Of one model from another.
        split: What the examples are.
        other: What the other model is.
    """
    points = _points(difference.mean)
    if not math.isnan(difference.error):
        points += f" ± {100 * difference.error:.2f}"
    word = _ARTICLES.get(difference.word, difference.word)
    if isinstance(difference, SeedDifference):
        interval = (
            f"95 % interval {_points(difference.low)} to "
            f"{_points(difference.high)}"
        )
        if difference.low == difference.high:
            interval = "the same in each"
        return (
            f"{points} points over {difference.seeds} seeds, {word} "
            f"({interval})"
        )
    more, test = "right", "McNemar"
    if not difference.is_one_per_example:
        more, test = "more right", "sign test"
    return (
        f"{points} points, {word}; "
        f"{counted(difference.only_first, split)} only it gets {more}, "
        f"{difference.only_second} only the {other} "
        f"({test} p = {difference.p_value:.2g})"
    )


def _is_sameness(difference: Difference) -> bool:
    """Says whether two models are as right as each other on every example."""
    return (
        isinstance(difference, ExampleDifference)
        and difference.only_first == difference.only_second == 0
    )


def _points(share: float) -> str:
    """Returns a difference of shares in points, signed; 0 as +0.00."""
    return f"{round(100 * share, 2) + 0.0:+.2f}"


def _near_chance(
    model: str, seeds: Sequence[Answers], split: str, so: str
) -> str:
    """Returns that a student knows next to nothing; "" if it knows more.

    Args:
        model: What it is called.
        seeds: Its answers, of each seed.
        split: What the examples are.
        so: What follows from it.
    """
    outputs = [(found, output_near_chance(found)) for found in seeds]
    near = [(found, n) for found, n in outputs if n is not None]
    if not near:
        return ""
    where = f" in {len(near)} of {len(seeds)} seeds" if len(seeds) > 1 else ""
    return f"{model} near chance{where}: {against_chance(*near[0], split)} {so}"


def _way_out(runs: Sequence[Judged]) -> str:
    """Returns what to do about a pruned student near chance."""
    teachers = [run.teacher for run in runs if run.teacher is not None]
    if teachers and all(output_near_chance(x) is not None for x in teachers):
        return _UNTRAINED if runs[0].is_own_teacher else _UNTAUGHT
    unpruned = [run.controls["kd"] for run in runs if "kd" in run.controls]
    if not unpruned:  # a teacher that is the student is unpruned too
        return _LOST if runs[0].is_own_teacher else _UNKNOWN
    if all(output_near_chance(each) is not None for each in unpruned):
        return _UNTRAINED
    return _LOST


def _notes(
    runs: Sequence[Judged],
    differences: Sequence[Difference],
) -> list[str]:
    """Returns what must be known to read the verdicts."""
    notes = []
    ties = [each for each in differences if each.word == TIE]
    examples = counted(len(runs[0].pruned), runs[0].split)
    if not all(map(_is_sameness, ties)):
        seeds = f"{len(runs)} seeds" if len(runs) > 1 else "one seed"
        notes.append(
            f"A tie: {examples} and {seeds} cannot tell the two apart; more of "
            "them may."
        )
    if any(map(_is_sameness, ties)):
        notes.append(
            f"0 and 0: both are as right on each of {examples}, which cannot "
            "tell the two apart; harder ones may."
        )
    if differences and runs[0].split != "test":
        notes.append(
            "These are the validation examples: what was chosen on them looks "
            "better than it is. Keep a test split apart."
        )
    return notes
