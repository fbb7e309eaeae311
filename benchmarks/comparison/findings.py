"""What a comparison shows, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from comparison.labels import OURS, UNPRUNED, in_order, label
from comparison.rows import Result, Row
from comparison.statistics import Pooled, pooled
from comparison.tables import (
    accuracy_text,
    against_text,
    difference_text,
    grid,
    signed,
)

VERDICTS = {
    "above": "**above** it for",
    "not below": "**not below** it for",
    "undecided": "**undecided** for",
    "below": "**below** it for",
}
"""Verdict -> how a sentence goes on."""

WORTH_TEACHING = 1.0
"""A teacher that is better by fewer points has little to teach."""


def against(results: Sequence[Result]) -> dict[str, dict[str, Row]]:
    """Returns control -> student -> row, of those KDDP is compared to.

    Args:
        results: One a student.
    """
    found: dict[str, dict[str, Row]] = {}
    for result in results:
        for row in result.controls:
            found.setdefault(row.method, {})[result.student] = row
    return {method: found[method] for method in in_order(set(found))}


def pooled_rows(rows: Mapping[str, Row]) -> Pooled:
    """Returns how KDDP stands to a control over all students.

    Args:
        rows: Student -> the control's row.
    """
    return pooled([r.kddp_minus for r in rows.values() if r.kddp_minus])


def findings(results: Sequence[Result], seeds: int) -> list[str]:
    """Returns the verdicts: a sentence a student, then one a control.

    Args:
        results: One a student.
        seeds: So many were planned.
    """
    lines = [f"- {_headline(result, seeds)}" for result in results]
    controls = against(results)
    whole = [method for method in controls if method in UNPRUNED]
    equal = [method for method in controls if method not in whole]
    for title, methods in (
        ("Against students of its size (KDDP minus them, points):", equal),
        ("Against the whole, unpruned student:", whole),
    ):
        if methods:
            lines += ["", title, ""]
            lines += [f"- {_sentence(m, controls[m], seeds)}" for m in methods]
    return lines


def teacher_lines(
    results: Sequence[Result],
    teacher: Mapping[str, Any],
    split: str,
    seeds: int,
) -> list[str]:
    """Returns the teacher, and by how much it is better than the students.

    Args:
        results: One a student.
        teacher: `"kind"` and the accuracies of the splits, in [0, 1].
        split: Whose accuracies are shown.
        seeds: So many were planned.
    """
    accuracies = ", ".join(
        f"{100 * teacher[name]:.2f} % on {name}"
        for name in ("validation", "test")
        if teacher.get(name) is not None
    )
    lines = [f"{teacher['kind']}: {accuracies}."]
    whole = {r.student: r.rows["labels"] for r in results if "labels" in r.rows}
    if teacher.get(split) is not None and whole:
        lines += ["", *_gaps(whole, 100 * teacher[split], seeds)]
    return lines


def _gaps(whole: Mapping[str, Row], teacher: float, seeds: int) -> list[str]:
    """Returns by how much the teacher is better than each student.

    Args:
        whole: Student -> row of the unpruned one, trained on labels.
        teacher: Its accuracy in percent.
        seeds: So many were planned.
    """
    gaps = {student: teacher - row.accuracy for student, row in whole.items()}
    rows = [
        [student, accuracy_text(row, seeds), signed(gaps[student])]
        for student, row in whole.items()
    ]
    head = ("student", "unpruned, labels, %", "teacher minus it, points")
    lines = grid(head, rows)
    weak = [student for student, gap in gaps.items() if gap < WORTH_TEACHING]
    if weak:
        lines += [
            "",
            f"**For {listed(weak)} the teacher is less than one point better "
            "than the student that learned from labels alone: there is little "
            "that distillation could add.**",
        ]
    return lines


def twin_line(result: Result) -> list[str]:
    """Returns how far the PyTorch twin is from the Keras student, if known.

    Args:
        result: Of a student.
    """
    if result.twin is None:
        return []
    return [
        "",
        "The unpruned PyTorch twin minus the unpruned Keras student, both on "
        f"labels: {difference_text(result.twin)} points.",
    ]


def listed(names: Sequence[str]) -> str:
    """Returns names as a sentence lists them."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _headline(result: Result, seeds: int) -> str:
    ours = result.rows.get(OURS)
    if ours is None:
        return f"**{result.student}**: no run of KDDP yet."
    whole = result.rows.get("labels") or result.rows.get("kd")
    units = f"{ours.means['units'] or 0:,.0f}"
    if whole is not None:
        units += f" of {whole.means['units'] or 0:,.0f}"
    equal = [r for r in result.controls if r.method not in UNPRUNED]
    counts = {
        name: number
        for name in VERDICTS
        if (number := sum(row.verdict == name for row in equal))
    }
    stands = ", ".join(f"{name} {number}" for name, number in counts.items())
    text = f"**{result.student}**, {units} units: KDDP has "
    text += accuracy_text(ours, seeds, " %")
    if equal:
        text += f"; of {len(equal)} controls of its size it is {stands}"
        if any(row.pairs < seeds for row in equal):
            text += " (**provisional**: seeds are missing)"
    return f"{text}."


def _sentence(method: str, rows: Mapping[str, Row], seeds: int) -> str:
    parts = []
    for name, words in VERDICTS.items():
        found = [
            f"{student} ({against_text(row, seeds)})"
            for student, row in rows.items()
            if row.verdict == name
        ]
        if found:
            parts.append(f"{words} {listed(found)}")
    text = f"{label(method)}: KDDP is {', '.join(parts)}"
    if len(rows) > 1:
        over_all = pooled_rows(rows)
        word = "not below" if over_all.is_not_below else "lower"
        text += (
            f"; over all {signed(over_all.mean)}, at worst "
            f"{signed(over_all.worst)}: **{word}**"
        )
    return text + "."
