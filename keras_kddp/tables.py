"""Comparisons as tables for a terminal."""

from collections.abc import Callable, Sequence

from rich.table import Table

from keras_kddp.controls import CONTROLS
from keras_kddp.results import Compression


def comparison_table(title: str, found: Sequence[Compression]) -> Table:
    """Returns a row a model: units, live units, parameters, accuracy.

    Args:
        title: What the accuracies are on.
        found: Compressions that differ in their seeds alone, with the same
            controls.

    Returns:
        A table of means over the seeds, with the number of every seed beside
        where there are several.
    """
    table = Table(title=title)
    table.add_column("model")
    for heading in ("units", "live", "parameters", "accuracy"):
        table.add_column(heading, justify="right")
    teachers = [each.teacher_accuracy for each in found]
    table.add_row("teacher", "", "", "", _cell(teachers[:1], _percent))
    students = {
        CONTROLS[name]: [each.controls[name] for each in found]
        for name in found[0].controls
    }
    students["student, dynamic pruning"] = [each.result for each in found]
    for name, results in students.items():
        table.add_row(
            name,
            _cell([each.units for each in results], _whole),
            _cell([each.live_units for each in results], _whole),
            _cell([each.profile.parameters for each in results], _whole),
            _cell([each.accuracy for each in results], _percent),
        )
    for position, kind in enumerate(("float32", "int8")):
        files = [each.files for each in found if each.files]
        rows = [each.agreement.rows[position] for each in files]
        accuracies = [row.accuracy for row in rows if row.accuracy is not None]
        sizes = _cell([row.num_bytes for row in rows], _whole)
        if accuracies:
            table.add_row(
                f"  as {kind} .tflite",
                *("", "", f"{sizes} bytes"),
                _cell(accuracies, _percent),
            )
    return table


def _cell(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """Returns the mean of some numbers, with each of several in brackets."""
    if not values:
        return ""
    mean = shown(sum(values) / len(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({', '.join(map(shown, values))})"


def _percent(share: float) -> str:
    return f"{share:.2%}"


def _whole(number: float) -> str:
    return f"{number:,.0f}"
