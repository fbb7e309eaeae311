"""The page of a data set: findings, tables, pictures and choices."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison.findings import (
    against,
    findings,
    pooled_rows,
    teacher_lines,
    twin_line,
)
from comparison.labels import LABELS, OURS, label
from comparison.pictures import draw_accuracy, draw_differences
from comparison.rows import Result, results_of
from comparison.statistics import CURVE_LENGTH, Cell
from comparison.tables import choices_lines, curves_table, methods_table

QUESTION = """\
**The question**: is a student that dynamic pruning with a teacher made (KDDP) \
better than one of the same size made in another way, and what does it lose \
against the unpruned one? All runs of a student and a length have the same \
views of the examples, order and number of steps, unless a row says otherwise; \
those that begin with the whole student, its start weights too. What was tried \
for each method stands below; of its two lengths the better one on validation \
counts."""

SPLITS = {
    "validation": "Accuracy on **validation**, on which options and lengths "
    "were chosen too: all of it is slightly flattered.",
    "test": "Accuracy on **test**, which was looked at once, after all options "
    "and lengths had been chosen on validation.",
}

HOW_TO_READ = """\
- **±** after an accuracy: standard error over the seeds, which stand below \
it. After a difference: the larger of the standard error over the seeds, of \
differences paired by seed, and that over the examples, which is all that one \
pair tells.
- **above**: at least 2.13 errors better (with five seeds one-sided 95 %: t \
with 4 degrees of freedom; with fewer seeds less sure). **not below**: at most \
0.3 points worse, and not surely worse. **below**: the other is above KDDP. \
**undecided**: more than 0.3 points worse, but not surely. Over all students \
**not below** means: at most 0.3 points worse in the mean, and nowhere by more \
than 1; **lower**: all else.
- **live**: units that ever fire. **cost**: MACs times steps of the training, \
those of the row `unpruned, labels` being 1. **s**: CPU seconds of training."""


def write_page(
    data: str,
    cells: Sequence[Cell],
    choices: Mapping[str, Mapping[str, Any]],
    folder: Path,
    *,
    note: str,
    teacher: Mapping[str, Any],
    split: str = "validation",
    seeds: tuple[int, int] = (5, 3),
) -> Path:
    """Writes `comparison_<data>`: a page, its numbers in JSON, two pictures.

    Args:
        data: Name of the data set.
        cells: Finished runs of it, those that were chosen: at most one for
            each student, method, size, length and seed. Any may be missing.
        choices: Student -> what was chosen: see `tables.choices_lines`.
        folder: Where to.
        note: A sentence on the data: source, split, sizes.
        teacher: `"kind"`, in words, and the accuracies in [0, 1] of
            `"validation"` and, if known, of `"test"`.
        split: Whose accuracies are shown: `"validation"` or `"test"`.
        seeds: So many were planned for the tables and for the curves.

    Returns:
        The file of the page.
    """
    results = results_of(cells, split)
    path = folder / f"comparison_{data}.md"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"data": data, "split": split, "teacher": dict(teacher)}
    text = _as_text({**content, **_numbers(results)})
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    pictures = _pictures(data, results, teacher, split, folder)
    lines = [
        *(f"# Comparison: {data}", "", note, "", QUESTION, "", SPLITS[split]),
        *("", "## What it shows", "", *findings(results, seeds[0])),
        *pictures,
        *("", "How to read it:", "", HOW_TO_READ, "", "## Teacher", ""),
        *teacher_lines(results, teacher, split, seeds[0]),
    ]
    for result in results:
        lines += _student(result, seeds)
    if choices:
        lines += ["", "## What was chosen where, on validation"]
    for student, chosen in choices.items():
        told = choices_lines(chosen) or ["", "Nothing yet."]
        lines += ["", f"### {student}", *told]
    lines += _reproduced(data, cells)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _numbers(results: Sequence[Result]) -> dict[str, Any]:
    return {
        "students": {r.student: r.as_json() for r in results},
        "pooled": {
            control: pooled_rows(rows).as_json()
            for control, rows in against(results).items()
        },
    }


def _as_text(content: Mapping[str, Any]) -> str:
    """Returns JSON with floats of four decimals."""
    rounded = json.loads(
        json.dumps(content), parse_float=lambda text: round(float(text), 4)
    )
    return json.dumps(rounded, indent=1) + "\n"


def _pictures(
    data: str,
    results: Sequence[Result],
    teacher: Mapping[str, Any],
    split: str,
    folder: Path,
) -> list[str]:
    """Draws what there is to draw, and returns how the page shows it."""
    lines = []
    title = f"{data}: accuracy on {split}"
    compared = [result for result in results if result.controls]
    if compared:
        name = f"comparison_{data}_differences.png"
        draw_differences(compared, folder / name, title)
        lines += ["", f"![KDDP minus each control]({name})"]
    if results:
        name = f"comparison_{data}.png"
        title += f" (curves: the {CURVE_LENGTH} length)"
        draw_accuracy(results, teacher.get(split), folder / name, title)
        lines += ["", f"![Accuracy against parameters]({name})"]
    return lines


def _student(result: Result, seeds: tuple[int, int]) -> list[str]:
    lines = ["", f"## {result.student}", ""]
    lengths = [
        f"{length} is {epochs} epochs"
        for length, epochs in result.epochs.items()
    ]
    usual = result.usual
    is_ours = OURS in result.rows or OURS in result.curves
    lines += [
        f"{', '.join(lengths).capitalize()}. {'KDDP' if is_ours else 'Most'} "
        f"ran with {usual['backend']} in {usual['precision']}, code "
        f"`{usual['method_hash']}`.",
        "",
    ]
    lines += methods_table(result, seeds[0])
    lines += twin_line(result)
    missing = [label(m) for m in LABELS if m not in result.rows]
    if missing:
        lines += ["", f"Without runs here: {', '.join(missing)}."]
    if result.curves:
        length = f"the {CURVE_LENGTH} length alone"
        lines += ["", f"Accuracy against size, %, {length}:", ""]
        lines += curves_table(result, seeds[1])
    return lines


def _reproduced(data: str, cells: Sequence[Cell]) -> list[str]:
    command = f"python benchmarks/compare.py --data {data}"
    machines = Counter(
        ", ".join(f"{k} {v}" for k, v in cell.get("machine", {}).items())
        for cell in cells
    )
    return [
        *("", "## How to reproduce it", "", "```sh", command, "```", ""),
        "Finished runs, and test results that were looked at, are kept. The "
        f"numbers of this page are in [comparison_{data}.json]"
        f"(comparison_{data}.json). Runs by machine:",
        "",
        *(f"- {n}: {machine}" for machine, n in machines.most_common()),
    ]
