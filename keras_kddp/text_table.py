"""Rows of text with aligned columns."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Returns one line per row, its columns padded to one width.

    Args:
        rows: Cells, the same number in every row.
        left: So many columns, from the first on, are set to the left; the
            others to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
