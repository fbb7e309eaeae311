"""From the runs of a student to the numbers of its table and its curves."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from comparison.labels import CURVES, OURS, in_order
from comparison.statistics import (
    CURVE_LENGTH,
    LENGTHS,
    Cell,
    Difference,
    better_length,
    by_seed,
    difference,
    standard_error,
    verdict,
)

TABLE_SIZE = 0
"""The size, of those of a student, at which all methods are run."""

_MEANS = ("units", "live_units", "macs", "mac_steps", "seconds")
_SAME = ("method_hash", "backend", "precision")


@dataclass(frozen=True)
class Row:
    """A method at one size, at its better length; means over the seeds.

    Attributes:
        method: Key of `LABELS`.
        size: Index of the budget; None of an unpruned student.
        length: The better one on validation.
        seeds: Of the runs at that length.
        each: Accuracy of each seed, in percent.
        accuracy: The mean of these.
        error: Its standard error over the seeds; 0 with one seed.
        by_length: Length -> mean accuracy and number of seeds.
        parameters: Of the student, in the mean.
        means: Of units, live units, MACs, MACs times steps and seconds; None
            where a run does not tell.
        differs: How runs differ from those of KDDP: what -> values.
        pairs: Number of seeds that both KDDP and this method have.
        kddp_minus: KDDP minus this method, paired by seed; None without a
            pair.
    """

    method: str
    size: int | None
    length: str
    seeds: tuple[int, ...]
    each: tuple[float, ...]
    accuracy: float
    error: float
    by_length: Mapping[str, tuple[float, int]]
    parameters: float
    means: Mapping[str, float | None]
    differs: Mapping[str, tuple[str, ...]]
    pairs: int
    kddp_minus: Difference | None

    @property
    def verdict(self) -> str | None:
        """How KDDP stands to this method, in words."""
        return verdict(self.kddp_minus) if self.kddp_minus else None

    def as_json(self) -> dict[str, Any]:
        """Returns the numbers as plain values."""
        found = asdict(self) | {"verdict": self.verdict}
        if self.kddp_minus:
            found["kddp_minus"] = self.kddp_minus._asdict()
        return found


@dataclass(frozen=True)
class Result:
    """What the runs of a student show.

    Attributes:
        student: Its name.
        rows: Method -> its row at the size of the table, in their order.
        curves: Method -> its rows at all sizes, the smallest first, all of
            `CURVE_LENGTH`.
        twin: The unpruned PyTorch twin minus the unpruned student, both on
            labels; None where one of them is missing.
        usual: What most runs of KDDP (without any: of all methods) ran with:
            the code, the backend, the precision.
        epochs: Length -> epochs of most runs.
    """

    student: str
    rows: Mapping[str, Row]
    curves: Mapping[str, Sequence[Row]]
    twin: Difference | None
    usual: Mapping[str, str]
    epochs: Mapping[str, int]

    @property
    def controls(self) -> list[Row]:
        """The rows that KDDP is compared to."""
        return [
            row
            for row in self.rows.values()
            if row.method != OURS and row.kddp_minus is not None
        ]

    def cost(self, row: Row) -> float | None:
        """Returns MACs times steps of a row in those of `labels`' row.

        Args:
            row: One of `rows`.
        """
        labels = self.rows.get("labels")
        if labels is None:
            return None
        own, whole = row.means["mac_steps"], labels.means["mac_steps"]
        return own / whole if own is not None and whole else None

    def as_json(self) -> dict[str, Any]:
        """Returns the numbers as plain values."""
        return {
            "ran_with": dict(self.usual),
            "epochs": dict(self.epochs),
            "rows": [
                row.as_json() | {"cost": self.cost(row)}
                for row in self.rows.values()
            ],
            "curves": {
                method: [row.as_json() for row in rows]
                for method, rows in self.curves.items()
            },
        }


def results_of(cells: Sequence[Cell], split: str) -> list[Result]:
    """Returns what the runs of each student show, one result a student.

    Args:
        cells: Finished runs of one data set: at most one for each student,
            method, size, length and seed. None has to be there.
        split: `"validation"` or `"test"`; lengths are chosen on validation
            in both cases.
    """
    students = dict.fromkeys(cell["student"] for cell in cells)
    found = [
        _result_of(name, [c for c in cells if c["student"] == name], split)
        for name in students
    ]
    return [result for result in found if result.rows or result.curves]


def _result_of(student: str, cells: Sequence[Cell], split: str) -> Result:
    usual = _usual(cells)
    table = {r.method: r for r in _rows(cells, split, usual) if not r.size}
    alike = [cell for cell in cells if cell["length"] == CURVE_LENGTH]
    return Result(
        student=student,
        rows={method: table[method] for method in in_order(set(table))},
        curves=_curves(_rows(alike, split, usual)),
        twin=_difference(
            *(
                _shown([c for c in cells if c["method"] == method], split)
                for method in ("torch_labels", "labels")
            ),
            split,
        ),
        usual=usual,
        epochs=_epochs(cells),
    )


def _rows(
    cells: Sequence[Cell], split: str, usual: Mapping[str, str]
) -> list[Row]:
    """Returns a row of each method and size that knows the split."""
    groups: dict[tuple[str, int | None], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell["method"], cell["size"]), []).append(cell)
    shown = {key: _shown(group, split) for key, group in groups.items()}
    return [
        _row_of(
            groups[method, size],
            split,
            usual,
            ours=shown.get((OURS, TABLE_SIZE if size is None else size), []),
        )
        for (method, size), runs in shown.items()
        if runs
    ]


def _curves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    curves = {
        method: sorted(
            (row for row in rows if row.method == method),
            key=lambda row: row.parameters,
        )
        for method in CURVES
    }
    return {method: found for method, found in curves.items() if found}


def _epochs(cells: Sequence[Cell]) -> dict[str, int]:
    found = {
        length: [cell["epochs"] for cell in cells if cell["length"] == length]
        for length in LENGTHS
    }
    return {length: _most(values) for length, values in found.items() if values}


def _shown(cells: Sequence[Cell], split: str) -> list[Cell]:
    """Returns the runs of the better length that know the split."""
    length = better_length(cells)
    return [c for c in cells if c["length"] == length and split in c]


def _row_of(
    cells: Sequence[Cell],
    split: str,
    usual: Mapping[str, str],
    ours: Sequence[Cell],
) -> Row:
    """Returns the row of one method and one size, from both lengths."""
    known = [cell for cell in cells if split in cell]
    runs = list(by_seed(_shown(cells, split)).values())
    each = [100 * cell[split]["accuracy"] for cell in runs]
    method = runs[0]["method"]
    return Row(
        method=method,
        size=runs[0]["size"],
        length=runs[0]["length"],
        seeds=tuple(cell["seed"] for cell in runs),
        each=tuple(each),
        accuracy=statistics.fmean(each),
        error=standard_error(each),
        by_length=_by_length(known, split),
        parameters=statistics.fmean(cell["parameters"] for cell in runs),
        means={name: _mean(runs, name) for name in _MEANS},
        differs={
            name: others
            for name, value in usual.items()
            if (others := _others(known, name, value))
        },
        pairs=len(_common(ours, runs)),
        kddp_minus=None if method == OURS else _difference(ours, runs, split),
    )


def _by_length(
    cells: Sequence[Cell], split: str
) -> dict[str, tuple[float, int]]:
    found = {
        length: [c[split]["accuracy"] for c in cells if c["length"] == length]
        for length in LENGTHS
    }
    return {
        length: (100 * statistics.fmean(values), len(values))
        for length, values in found.items()
        if values
    }


def _difference(
    a: Sequence[Cell], b: Sequence[Cell], split: str
) -> Difference | None:
    """Returns the difference of two methods, None without a common seed."""
    return difference(a, b, split) if _common(a, b) else None


def _common(a: Sequence[Cell], b: Sequence[Cell]) -> set[int]:
    return {cell["seed"] for cell in a} & {cell["seed"] for cell in b}


def _mean(cells: Sequence[Cell], name: str) -> float | None:
    values = [cell[name] for cell in cells if cell.get(name) is not None]
    return statistics.fmean(values) if len(values) == len(cells) else None


def _usual(cells: Sequence[Cell]) -> dict[str, str]:
    """Returns what most runs of KDDP (without any: of all) ran with."""
    ours = [cell for cell in cells if cell["method"] == OURS] or cells
    return {
        name: _most([str(cell.get(name)) for cell in ours]) for name in _SAME
    }


def _most(values: Sequence[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


def _others(cells: Sequence[Cell], name: str, usual: str) -> tuple[str, ...]:
    values = {str(cell.get(name)) for cell in cells}
    return tuple(sorted(values - {usual}))
