"""Pictures of a comparison: accuracy against size, and differences."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from comparison.labels import CURVES, UNPRUNED, in_order, label
from comparison.rows import Result, Row
from comparison.statistics import MARGIN, SURE

# Of the palette of Okabe and Ito, which needs no telling red from green.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#E69F00", "#009E73"
_PURPLE, _RED, _GREY = "#CC79A7", "#D55E00", "#8C8C8C"

_CURVES = {
    "kddp": (_BLUE, "o"),
    "magnitude": (_PURPLE, "^"),
    "same_size_kd": (_ORANGE, "s"),
    "same_size_labels": (_GREEN, "D"),
}
_WHOLE = {"kd": (_ORANGE, "s"), "labels": (_GREEN, "D")}
"""Method -> colour and marker."""

_VERDICTS = {
    "above": (_BLUE, "o", _BLUE),
    "not below": (_BLUE, "o", "white"),
    "undecided": (_GREY, "s", "white"),
    "below": (_RED, "D", _RED),
}
"""Verdict -> colour, marker and filling."""

_PIXELS = 100
"""An inch has so many pixels."""


def draw_accuracy(
    results: Sequence[Result], teacher: float | None, path: Path, title: str
) -> None:
    """Draws accuracy against parameters, a panel a student.

    Args:
        results: One a student, at least one.
        teacher: Its accuracy in [0, 1], if known.
        path: A PNG file.
        title: What accuracy this is.
    """
    figure, panels = _panels(len(results), 4.9, left=0.6, shared=False)
    for panel, result in zip(panels, results, strict=True):
        for row in _others(result):
            x = row.parameters
            panel.plot(x, row.accuracy, "_", color=_GREY, ms=11, mew=1.5)
        for method, (colour, marker) in _WHOLE.items():
            if method in result.rows:
                row = result.rows[method]
                panel.axhline(row.accuracy, color=colour, ls=":", lw=1.3)
                _curve(panel, [row], colour, marker, "white")
        for method, (colour, marker) in reversed(_CURVES.items()):
            rows = result.curves.get(method, [])
            _curve(panel, rows, colour, marker, colour)
        if teacher is not None:
            panel.axhline(100 * teacher, color="black", ls="--", lw=1.3)
        panel.set_xlabel("parameters")
        panel.grid(alpha=0.25)
        _size_axis(panel, result)
    panels[0].set_ylabel("accuracy, %")
    figure.suptitle(title)
    _finish(figure, panels, results, _accuracy_keys(results, teacher), path)


def draw_differences(results: Sequence[Result], path: Path, title: str) -> None:
    """Draws KDDP minus each control, a panel a student.

    Args:
        results: One a student, each with controls.
        path: A PNG file.
        title: What accuracy this is.
    """
    methods = in_order({row.method for r in results for row in r.controls})
    places = {
        # The unpruned ones, which are larger, stand a little apart.
        method: -place - 0.5 * (method in UNPRUNED)
        for place, method in enumerate(methods)
    }
    height = 2.1 + 0.28 * len(methods)
    figure, panels = _panels(len(results), height, left=2.7, shared=True)
    for panel, result in zip(panels, results, strict=True):
        panel.axvline(0, color="black", lw=1)
        panel.axvline(MARGIN, color="black", ls="--", lw=1)
        for method in methods:
            panel.axhline(places[method], color=_GREY, lw=0.4, alpha=0.5)
        for row in result.controls:
            _difference(panel, row, places[row.method])
        panel.set_xlabel("KDDP minus control, points")
        panel.set_ylim(min(places.values()) - 0.6, 0.6)
        panel.tick_params(axis="y", length=0)
        panel.xaxis.set_major_locator(MaxNLocator(6))
    panels[0].set_yticks(list(places.values()), [label(m) for m in methods])
    figure.suptitle(f"{title}, KDDP minus each control")
    _finish(figure, panels, results, _difference_keys(), path)


def _panels(
    number: int, height: float, left: float, shared: bool
) -> tuple[Figure, Sequence[Axes]]:
    """Returns panels beside each other; `left` is for what stands there."""
    width = min(12.0, left + (5.2 if number == 1 else 3.9 * number))
    figure = Figure((width, height), dpi=_PIXELS, layout="constrained")
    axes = figure.subplots(
        1, number, squeeze=False, sharex=shared, sharey=shared
    )
    return figure, axes[0]


def _others(result: Result) -> list[Row]:
    """Returns the rows of the size of the table that are no curve."""
    return [
        row
        for row in result.rows.values()
        if row.method not in (*CURVES, *UNPRUNED)
    ]


def _curve(
    panel: Axes, rows: Sequence[Row], colour: str, marker: str, filling: str
) -> None:
    """Draws means with errors, joined, and each seed as a faint dot."""
    sizes = [row.parameters for row in rows]
    for size, row in zip(sizes, rows, strict=True):
        panel.plot(
            [size] * len(row.each), row.each, ".", color=colour, ms=4, alpha=0.4
        )
    panel.errorbar(
        sizes,
        [row.accuracy for row in rows],
        yerr=[row.error for row in rows],
        color=colour,
        marker=marker,
        markerfacecolor=filling,
        # What is open lies over a closed or open one of the same place.
        markersize=8 if (marker, filling) == ("s", "white") else 6,
        linewidth=1.6,
        capsize=3,
        zorder=3,
    )


def _size_axis(panel: Axes, result: Result) -> None:
    """Marks the sizes that there are, in thousands, on a log axis."""
    rows = [row for found in list(result.curves.values())[:1] for row in found]
    rows += [result.rows[m] for m in _WHOLE if m in result.rows]
    rows = rows or list(result.rows.values())
    sizes = sorted({row.parameters for row in rows})
    panel.set_xscale("log")
    panel.margins(x=0.08)
    apart = (sizes[-1] / sizes[0]) ** 0.12  # so far, labels do not touch
    shown = sizes[:1]
    for size in sizes[1:]:
        if size >= apart * shown[-1]:
            shown.append(size)
    panel.set_xticks(shown, [_thousands(size) for size in shown])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def _thousands(size: float) -> str:
    return f"{size / 1000:.3g}k" if size >= 1000 else f"{size:.0f}"


def _difference(panel: Axes, row: Row, place: float) -> None:
    """Draws one difference: thick is one error, thin are 2.13."""
    if row.kddp_minus is None or row.verdict is None:
        return
    colour, marker, filling = _VERDICTS[row.verdict]
    mean, error = row.kddp_minus
    for width, times in ((1.2, SURE), (3.5, 1.0)):
        ends = [mean - times * error, mean + times * error]
        panel.plot(ends, [place, place], color=colour, lw=width)
    panel.plot(mean, place, marker, color=colour, mfc=filling, ms=7)


def _accuracy_keys(
    results: Sequence[Result], teacher: float | None
) -> list[Line2D]:
    keys = [
        _key(label(method), colour, marker, colour, "-")
        for method, (colour, marker) in _CURVES.items()
        if any(method in result.curves for result in results)
    ]
    keys += [
        _key(label(method), colour, marker, "white", ":")
        for method, (colour, marker) in _WHOLE.items()
        if any(method in result.rows for result in results)
    ]
    if any(_others(result) for result in results):
        keys.append(_key("other methods", _GREY, "_", _GREY, ""))
    if teacher is not None:
        keys.append(_key("teacher", "black", "", "black", "--"))
    return keys


def _difference_keys() -> list[Line2D]:
    keys = [
        _key(f"KDDP {verdict}", colour, marker, filling, "-")
        for verdict, (colour, marker, filling) in _VERDICTS.items()
    ]
    keys.append(_key("margin, -0.3", "black", "", "black", "--"))
    keys.append(_key(f"thick 1, thin {SURE} errors", _GREY, "", _GREY, "-"))
    return keys


def _key(
    text: str, colour: str, marker: str, filling: str, line: str
) -> Line2D:
    return Line2D(
        [],
        [],
        color=colour,
        marker=marker,
        markerfacecolor=filling,
        linestyle=line,
        markersize=6 if marker != "_" else 10,
        label=text,
    )


def _finish(
    figure: Figure,
    panels: Sequence[Axes],
    results: Sequence[Result],
    keys: Sequence[Line2D],
    path: Path,
) -> None:
    """Names the panels, puts the keys below them, and writes the file."""
    for panel, result in zip(panels, results, strict=True):
        panel.set_title(result.student)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(
        handles=list(keys),
        loc="outside lower center",
        ncols=3 if len(results) == 1 else (len(keys) + 1) // 2,
        frameon=False,
        fontsize=9,
    )
    figure.savefig(path)
