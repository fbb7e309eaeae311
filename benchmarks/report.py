"""Table, JSON and picture of the finished cells."""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments import ABLATIONS, COMPARISONS

DOCS = Path(__file__).parents[1] / "docs"

LABELS = {
    "kddp": "dynamic pruning (KDDP)",
    "kd": "unpruned, distilled (KD)",
    "same_size": "same size, KD from scratch",
    "same_size_labels": "same size, labels only",
    "random": "random cut half-way",
    "magnitude": "magnitude cut half-way",
    "contribution": "contribution cut half-way",
    "paper_criterion": "paper's criterion, no budget",
    "mean_activity": "criterion mean activity",
    "no_penalty": "no penalty",
    "no_warmup": "no warm-up, no ramp",
    "no_finetune": "one epoch of fine-tuning",
    "prune_at_end": "one removal, at the end",
    "penalty_steering": "penalty steering, no quota",
    "warm_targets": "temperature 4, labels weigh 0.1",
}
PHYSICAL = (
    "same_size",
    "same_size_labels",
    "random",
    "magnitude",
    "contribution",
)


class Bar(NamedTuple):
    """What a pruned student has to reach, in points of accuracy.

    Attributes:
        measure: What must shrink: `"units"` or `"macs"`.
        times: How much, at least.
        below: At most so far below the unpruned one.
        above: At least so far above the same size; None: not asked.
    """

    measure: str
    times: float
    below: float
    above: float | None


BARS = {
    "cnn": {
        "must": Bar("units", 12, 0.5, 0.8),
        "goal": Bar("units", 15, 0.3, 1.2),
    },
    "mlp": {
        "must": Bar("units", 8, 1.3, 0.5),
        "goal": Bar("units", 8, 0.8, 0.9),
    },
    "residual": {
        "must": Bar("macs", 2, 0.5, None),
        "goal": Bar("macs", 3, 0.5, None),
    },
}


class Row(NamedTuple):
    """A method over its seeds: means, with the standard error of accuracy."""

    method: str
    seeds: int
    accuracy: float
    error: float
    units: float
    live_units: float
    parameters: float
    macs: float
    seconds: float
    each: list[float]


def row_of(method: str, cells: list[dict[str, Any]]) -> Row:
    """Returns the means of a method's cells."""

    def mean(key: str) -> float:
        return statistics.fmean(cell[key] for cell in cells)

    accuracies = [100 * cell["accuracy"] for cell in cells]
    spread = statistics.stdev(accuracies) if len(cells) > 1 else 0.0
    return Row(
        method=method,
        seeds=len(cells),
        accuracy=statistics.fmean(accuracies),
        error=spread / len(cells) ** 0.5,
        units=mean("units"),
        live_units=mean("live_units"),
        parameters=mean("parameters"),
        macs=mean("macs"),
        seconds=mean("seconds"),
        each=[round(value, 2) for value in accuracies],
    )


def write_report(name: str, cells: Mapping[str, list[dict[str, Any]]]) -> None:
    """Writes `docs/accuracy_vs_size*` from the cells of each student.

    Args:
        name: Of the comparison.
        cells: Student -> its finished cells, all of one code and
            configuration.

    Raises:
        ValueError: If there are none, or cells of several versions are among
            them.
    """
    if not any(cells.values()):
        raise ValueError(
            "There must be finished cells of this version of the code. "
            f"Received none for '{name}': those that are stored are of an "
            "earlier one. Run without --report-only."
        )
    for student, found in cells.items():
        hashes = {cell["method_hash"] for cell in found}
        configs = {json.dumps(c["config"], sort_keys=True) for c in found}
        if len(hashes) > 1 or len(configs) > 1:
            raise ValueError(
                f"The cells of '{student}' must be of one version of the code "
                f"and one configuration. Received: {sorted(hashes)}. Run them "
                "again."
            )
    rows = {
        student: [
            row_of(method, [c for c in found if c["method"] == method])
            for method in dict.fromkeys(cell["method"] for cell in found)
        ]
        for student, found in cells.items()
        if found
    }
    stem = "accuracy_vs_size" + ("" if name == "fashion" else f"_{name}")
    content = {
        "command": f"python benchmarks/accuracy_vs_size.py --data {name}",
        "cells": f"benchmarks/cells/{name}",
        "method_hashes": sorted(
            {cell["method_hash"] for found in cells.values() for cell in found}
        ),
        "rows": {s: [r._asdict() for r in found] for s, found in rows.items()},
    }
    path = DOCS / f"{stem}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    (DOCS / f"{stem}.md").write_text(_page(name, stem, cells, rows))
    draw(rows, DOCS / f"{stem}.png", name)
    print((DOCS / f"{stem}.md").read_text())


def _page(
    name: str,
    stem: str,
    cells: Mapping[str, list[dict[str, Any]]],
    rows: Mapping[str, list[Row]],
) -> str:
    comparison = COMPARISONS[name]
    everything = [cell for found in cells.values() for cell in found]
    teachers = {f"{cell['teacher_accuracy']:.2%}" for cell in everything}
    machines = {
        "{cores} cores, Python {python}, Keras {keras}, TensorFlow "
        "{tensorflow}".format_map(cell["machine"])
        for cell in everything
    }
    lines = [
        f"# Accuracy against size: {name}",
        "",
        f"`python benchmarks/accuracy_vs_size.py --data {name}`; "
        f"{'; '.join(sorted(machines))}. Accuracy on the test split, mean ± "
        "standard error over the seeds. Every student of a table has the same "
        "teacher, epochs, batches, optimizer and seeds; controls have the "
        "widths that dynamic pruning ended with, seed by seed.",
        "",
        "Targets, l1, schedule and students were chosen with single runs on "
        "the validation and the test split in sight: take the accuracies as "
        "slightly flattered.",
        "",
        f"Teacher: {', '.join(sorted(teachers))}.",
        "",
        f"![Accuracy against parameters]({stem}.png)",
    ]
    for student, found in rows.items():
        experiment = comparison.experiments[student]
        lines += ["", *_table(name, student, found, experiment)]
    return "\n".join(lines) + "\n"


def _table(
    name: str, student: str, rows: list[Row], experiment: Any
) -> list[str]:
    training = experiment.training
    by_method = {row.method: row for row in rows}
    lines = [
        f"## {student}",
        "",
        f"`{experiment.student.__name__}`, {training.epochs} epochs of batch "
        f"{training.batch_size}, AdamW {training.learning_rate} on a cosine, "
        f"temperature {experiment.temperature:g}, labels weigh "
        f"{experiment.student_loss_weight}, l1 {experiment.l1}, budget "
        f"{experiment.budget}, seeds {list(experiment.seeds)}.",
        "",
        "| method | units | live | parameters | MACs | accuracy | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.method not in ABLATIONS:
            lines.append(_line(row))
    lines += ["", *_verdicts(name, student, by_method)]
    ablations = [row for row in rows if row.method in ABLATIONS]
    if ablations:
        lines += [
            "",
            "Ablations: dynamic pruning with one thing changed.",
            "",
            "| method | units | live | parameters | MACs | accuracy | s |",
            "|---|---|---|---|---|---|---|",
            _line(by_method["kddp"]),
            *map(_line, ablations),
        ]
    return lines


def _line(row: Row) -> str:
    each = ", ".join(f"{value:.2f}" for value in row.each)
    return (
        f"| {LABELS[row.method]} | {row.units:.0f} | {row.live_units:.0f} | "
        f"{row.parameters:,.0f} | {row.macs:,.0f} | {row.accuracy:.2f} ± "
        f"{row.error:.2f} ({each}) | {row.seconds:.0f} |"
    )


def _verdicts(
    comparison: str, student: str, rows: Mapping[str, Row]
) -> Iterable[str]:
    """Yields one line per bar, met or missed, and one for the controls."""
    if not {"kddp", "kd"} <= set(rows):
        return
    pruned, whole = rows["kddp"], rows["kd"]
    bars = BARS[student] if comparison == "fashion" else {}
    for name, bar in bars.items():
        times = getattr(whole, bar.measure) / getattr(pruned, bar.measure)
        below = whole.accuracy - pruned.accuracy
        is_met = times >= bar.times and below <= bar.below
        asked = f"{bar.times}x fewer {bar.measure} at <= {bar.below} below"
        found = f"{times:.1f}x, {below:.2f} below"
        if bar.above is not None and "same_size" in rows:
            above = pruned.accuracy - rows["same_size"].accuracy
            is_met = is_met and above >= bar.above
            asked += f", >= {bar.above} above the same size"
            found += f", {above:.2f} above"
        verdict = "met" if is_met else "missed"
        yield f"- {name} ({asked}): **{verdict}**, {found}"
    for control in PHYSICAL:
        if control in rows:
            other = rows[control]
            error = (pruned.error**2 + other.error**2) ** 0.5
            gap = pruned.accuracy - other.accuracy
            verdict = "more" if gap > error else "NOT more"
            yield (
                f"- above {LABELS[control]}: {gap:.2f}, {verdict} than one "
                f"standard error ({error:.2f})"
            )


def draw(rows: Mapping[str, list[Row]], path: Path, name: str) -> None:
    """Draws accuracy against parameters, a panel a student."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(
        1, len(rows), figsize=(5 * len(rows), 4.5), squeeze=False
    )
    for panel, (student, found) in zip(axes[0], rows.items(), strict=True):
        shown = [row for row in found if row.method not in ABLATIONS]
        for index, row in enumerate(shown):
            is_ours = row.method == "kddp"
            # Controls share one size: a little apart, their bars can be read.
            shift = 1 + 0.05 * (index - 3) if row.method in PHYSICAL else 1
            panel.errorbar(
                row.parameters * shift,
                row.accuracy,
                yerr=row.error,
                fmt="*" if is_ours else "o",
                markersize=14 if is_ours else 7,
                capsize=3,
                label=LABELS[row.method],
                zorder=3 if is_ours else 2,
            )
        panel.set_xscale("log")
        sizes = {round(row.parameters) for row in shown}
        panel.set_xticks(sorted(sizes), [f"{s:,}" for s in sorted(sizes)])
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.set_title(student)
        panel.set_xlabel("parameters")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7, loc="lower right")
    axes[0][0].set_ylabel(f"{name}: test accuracy, %")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
