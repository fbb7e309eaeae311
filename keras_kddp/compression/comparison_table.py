"""Comparisons as tables for a terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from keras_kddp.compression.choices import (
    CONTROLS,
    OWN_TEACHER,
    PRUNED,
    SELF,
)
from keras_kddp.compression.results import Compression, RunFiles


def comparison_table(title: str, found: Sequence[Compression]) -> Table:
    """Returns one row per model: units, live units, parameters, accuracy.

    Args:
        title: What the accuracies are on.
        found: Compressions that differ in their seeds alone, with the same
            controls.

    Returns:
        A table of means over the seeds; units and accuracies with those of
        every seed below, where there are several.
    """
    table = Table(title=Text(title, style="table.title"))
    table.add_column("model")
    for heading in ("units", "live", "parameters", "accuracy"):
        table.add_column(heading, justify="right")
    _add_teacher(table, found)
    students = {
        CONTROLS[name]: [each.controls[name] for each in found]
        for name in found[0].controls
    }
    students[PRUNED] = [each.result for each in found]
    for name, results in students.items():
        table.add_row(
            name,
            _whole([each.units for each in results]),
            _mean([each.live_units for each in results]),
            _mean([each.profile.parameters for each in results]),
            _percent([each.accuracy for each in results]),
        )
    _add_files(table, [each.files for each in found if each.files])
    return table


def verdict_list(verdicts: Sequence[str]) -> Table:
    """Returns one item per sentence, wrapped at the width of the terminal."""
    items = Table.grid(padding=(0, 1))
    for verdict in verdicts:
        items.add_row("-", Text(verdict))
    return items


def _add_teacher(table: Table, found: Sequence[Compression]) -> None:
    """Adds the row of the teacher, if there is one: of all seeds, or each."""
    shares = [each.teacher_accuracy for each in found]
    known = [share for share in shares if share is not None]
    if found[0].taught_by == SELF:
        table.add_row(OWN_TEACHER, "", "", "", _percent(known))
    elif known:
        table.add_row("teacher", "", "", "", _percent(known[:1]))


def _add_files(table: Table, files: Sequence[RunFiles]) -> None:
    """Adds one row per kind of file that has an accuracy."""
    for kind in ("float32", "int8"):
        rows = [each.agreement.row(getattr(each, kind).path) for each in files]
        accuracies = [row.accuracy for row in rows if row.accuracy is not None]
        if accuracies:
            size = _mean([row.num_bytes for row in rows])
            name = f"  {kind}, {size} bytes"
            table.add_row(name, "", "", "", _percent(accuracies))


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):,.0f}"


def _whole(values: Sequence[int]) -> str:
    return _with_each(_mean(values), [f"{value:,}" for value in values])


def _percent(shares: Sequence[float]) -> str:
    mean = sum(shares) / len(shares)
    return _with_each(f"{mean:.2%}", [f"{share:.2%}"[:-1] for share in shares])


def _with_each(mean: str, each: Sequence[str]) -> str:
    """Returns a mean, with the numbers of several seeds below it."""
    return mean if len(each) == 1 else f"{mean}\n{' '.join(each)}"
