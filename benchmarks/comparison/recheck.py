"""Whether runs of earlier code hold still: some of them, trained again."""

import json
from collections.abc import Sequence
from dataclasses import fields

from comparison.cells import (
    FOLDER,
    Cell,
    CellStore,
    Spec,
    accepted,
    codes_that_hold,
    kind_of,
)
from comparison.pool import Pool


def recheck(store: CellStore, count: int) -> None:
    """Trains runs of earlier code again; accepts it where they are equal.

    Equal means the same right and wrong answers to all validation examples.
    Of each student and method the quickest run is taken, the quickest first,
    and speaks for all of them. The latest code comes first: what it had
    accepted holds with it.

    Args:
        store: Of a data set.
        count: So many runs of each earlier code.

    Raises:
        SystemExit: If one differs.
    """
    pool = Pool(1)
    by_code: dict[str, list[Cell]] = {}
    for cell in reversed(store.stale()):
        by_code.setdefault(cell["method_hash"], []).append(cell)
    for code, cells in by_code.items():
        chosen = [
            cell
            for cell in quickest(cells)
            if code not in codes_that_hold(store.method_hash, kind_of(cell))
        ]
        for cell in chosen[:count]:
            _train_again(cell, pool)
            _accept(code, store.method_hash, kind_of(cell))


def quickest(cells: Sequence[Cell]) -> list[Cell]:
    """Returns the quickest run of each kind, the quickest first."""
    found: dict[str, Cell] = {}
    for cell in sorted(cells, key=lambda cell: cell["seconds"]):
        found.setdefault(kind_of(cell), cell)
    return list(found.values())


def _accept(code: str, by: str, kind: str) -> None:
    known = [*accepted(), {"code": code, "by": by, "kind": kind}]
    partial = FOLDER / "accepted.partial"
    partial.write_text(json.dumps(known, indent=1) + "\n")
    partial.replace(FOLDER / "accepted.json")


def _train_again(cell: Cell, pool: Pool) -> None:
    spec = Spec(**{field.name: cell[field.name] for field in fields(Spec)})
    pool.start(spec)
    ((_, found),) = pool.finished()
    then, now = (c["validation"]["answers"] for c in (cell, found))
    print(
        f"{spec.student} {spec.method}, {spec.epochs} epochs, seed "
        f"{spec.seed}: {'equal' if then == now else 'DIFFERENT'}",
        flush=True,
    )
    if then != now:
        raise SystemExit(
            "Runs of earlier code do not hold any more: leave them behind "
            "(without --recheck they are trained anew)."
        )
