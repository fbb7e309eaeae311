"""The tables of a page, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comparison.labels import label
from comparison.rows import Result, Row
from comparison.statistics import LENGTHS, Difference

_NAMES = {
    "method_hash": "another version of the code",
    "backend": "another backend",
    "precision": "another precision",
}


class Notes:
    """Marks of the rows whose runs differ from those of KDDP.

    Args:
        result: Whose rows are marked.
    """

    def __init__(self, result: Result) -> None:
        self._usual = result.usual
        self._marks: dict[str, str] = {}

    def mark(self, row: Row) -> str:
        """Returns the marks of a row, and remembers what they say."""
        texts = [
            f"{_NAMES[name]} ({', '.join(values)}) in one run or more, not "
            f"{self._usual[name]}."
            for name, values in row.differs.items()
        ]
        for text in texts:
            letter = chr(ord("a") + len(self._marks))
            self._marks.setdefault(text, letter)
        found = ", ".join(self._marks[text] for text in texts)
        return f"<sup>{found}</sup>" if found else ""

    def lines(self) -> list[str]:
        """Returns what the marks say, one paragraph each."""
        return [
            line
            for text, letter in self._marks.items()
            for line in ("", f"<sup>{letter}</sup> {text[0].upper()}{text[1:]}")
        ]


def grid(
    head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1
) -> list[str]:
    """Returns the lines of a table.

    Args:
        head: Names of the columns.
        rows: As many texts each.
        texts: So many columns are words, at the left; the others are numbers.
    """
    rules = ["---"] * texts + ["---:"] * (len(head) - texts)
    return [f"| {' | '.join(line)} |" for line in (head, rules, *rows)]


def signed(points: float) -> str:
    """Returns points with their sign and two decimals."""
    text = f"{points:+.2f}"
    return "+0.00" if text == "-0.00" else text


def difference_text(found: Difference) -> str:
    """Returns a difference with its error, in points."""
    return f"{signed(found.mean)} ± {found.error:.2f}"


def accuracy_text(row: Row, seeds: int, unit: str = "") -> str:
    """Returns the mean accuracy of a row; of how many seeds, if not of all.

    Args:
        row: Of one method and size.
        seeds: So many were planned.
        unit: What follows the number.
    """
    error = f" ± {row.error:.2f}" if len(row.seeds) > 1 else ""
    missing = _missing(len(row.seeds), seeds, " seeds")
    return f"{row.accuracy:.2f}{error}{unit}{missing}"


def against_text(row: Row, seeds: int) -> str:
    """Returns KDDP minus a row; of how many pairs, if not of all.

    Args:
        row: With a difference.
        seeds: So many were planned.
    """
    if row.kddp_minus is None:
        return "–"
    missing = f", {row.pairs} of {seeds} pairs" if row.pairs < seeds else ""
    return f"{difference_text(row.kddp_minus)}{missing}"


def methods_table(result: Result, seeds: int) -> list[str]:
    """Returns the table of all methods at one size, with its notes.

    Args:
        result: Of a student.
        seeds: So many were planned.
    """
    notes = Notes(result)
    head = ["method", "units (live)", "parameters", "MACs"]
    head += ["short, %", "long, %", "better of both, %"]
    head += ["KDDP minus it, points", "cost", "s"]
    lines = grid(
        head,
        [
            [
                label(row.method) + notes.mark(row),
                _units(row),
                _count(row.parameters),
                _count(row.means["macs"]),
                *(_at(row, length, seeds) for length in LENGTHS),
                _better(row, seeds),
                against_text(row, seeds)
                + (f"<br>**{row.verdict}**" if row.verdict else ""),
                _decimals(result.cost(row)),
                _count(row.means["seconds"]),
            ]
            for row in result.rows.values()
        ],
    )
    return lines + notes.lines()


def curves_table(result: Result, seeds: int) -> list[str]:
    """Returns the table of accuracy against size, with its notes.

    Args:
        result: Of a student.
        seeds: So many were planned.
    """
    notes = Notes(result)
    parameters: dict[int, float] = {}
    for row in (row for rows in result.curves.values() for row in rows):
        # Of several methods, those of KDDP: it stands first.
        parameters.setdefault(row.size or 0, row.parameters)
    sizes = sorted(parameters, key=parameters.__getitem__)
    rows = []
    for method, found in result.curves.items():
        at = {row.size or 0: row for row in found}
        texts = [
            accuracy_text(at[size], seeds) + notes.mark(at[size])
            if size in at
            else "–"
            for size in sizes
        ]
        rows.append([label(method), *texts])
    head = ["parameters", *(f"{parameters[size]:,.0f}" for size in sizes)]
    return grid(head, rows) + notes.lines()


def choices_lines(choices: Mapping[str, Any]) -> list[str]:
    """Returns what was chosen for a student, and among what.

    Args:
        choices: `"recipe"`: a mapping; `"ladder"`: pairs (epochs, accuracy);
            `"is_still_improving"`: whether the last of them gained much;
            `"tries"`: method -> (options, length, accuracy, whether chosen).
            Accuracies in [0, 1], on validation. Each may be missing.
    """
    lines = []
    if choices.get("recipe"):
        lines += ["", f"Recipe: {options_text(choices['recipe'])}."]
    if choices.get("ladder"):
        ladder = sorted(choices["ladder"])
        lines += ["", "Lengths tried with the unpruned student on labels:", ""]
        head = ["epochs", *(str(epochs) for epochs, _ in ladder)]
        values = ["validation, %", *(f"{100 * a:.2f}" for _, a in ladder)]
        lines += grid(head, [values])
    if choices.get("is_still_improving"):
        lines += [
            "",
            "**It was still improving at the longest of them: `short` is half "
            "of that, which is affordable, not where it stops.**",
        ]
    if choices.get("tries"):
        lines += _tries(choices["tries"])
    return lines


def options_text(options: Mapping[str, Any]) -> str:
    """Returns options by name and value; of none, that they are the defaults.

    Args:
        options: Name -> value.
    """
    texts = [f"{name} {value}" for name, value in options.items()]
    return ", ".join(texts) or "defaults"


def _tries(tries: Mapping[str, Sequence[Any]]) -> list[str]:
    rows = [
        [
            label(method),
            options_text(options),
            length,
            f"{'**' * is_chosen}{100 * accuracy:.2f}{'**' * is_chosen}",
        ]
        for method, found in tries.items()
        for options, length, accuracy, is_chosen in found
    ]
    number = len(rows)
    return [
        "",
        f"<details><summary>The {number} tries of the methods (what was "
        "chosen is bold)</summary>",
        "",
        *grid(("method", "options", "length", "validation, %"), rows, texts=3),
        "",
        "</details>",
    ]


def _units(row: Row) -> str:
    live = row.means["live_units"]
    units = _count(row.means["units"])
    return units if live is None else f"{units} ({live:,.0f})"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _missing(number: int, seeds: int, of_what: str = "") -> str:
    return f" ({number} of {seeds}{of_what})" if number < seeds else ""


def _at(row: Row, length: str, seeds: int) -> str:
    if length not in row.by_length:
        return "–"
    accuracy, number = row.by_length[length]
    return f"{accuracy:.2f}{_missing(number, seeds)}"


def _better(row: Row, seeds: int) -> str:
    each = " ".join(f"{value:.2f}" for value in row.each)
    return f"{row.length}: **{accuracy_text(row, seeds)}**<br><sub>{each}</sub>"
