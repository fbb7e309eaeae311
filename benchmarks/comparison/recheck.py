"""Whether runs of earlier code hold still: some of them, trained again."""

import json
from collections.abc import Sequence
from dataclasses import fields

from comparison.cells import (
    FOLDER,
    Cell,
    CellStore,
    Spec,
    accepted_codes,
    codes_that_hold,
)
from comparison.pool import Pool


def recheck(store: CellStore, count: int) -> None:
    """Trains runs of earlier code again; accepts that code if all are equal.

    Equal means the same right and wrong answers to all validation examples.
    Of each method the quickest run is taken, the quickest methods first. The
    latest code comes first: what it had accepted holds with it.

    Args:
        store: Of a data set.
        count: So many runs of each earlier code.

    Raises:
        SystemExit: If one differs.
    """
    pool = Pool(1)
    by_code: dict[str, list[Cell]] = {}
    for cell in store.stale():
        by_code.setdefault(cell["method_hash"], []).append(cell)
    for code, cells in reversed(by_code.items()):
        if code in codes_that_hold(store.method_hash):
            continue
        chosen = quickest(cells)[:count]
        for cell in chosen:
            _train_again(cell, pool)
        why = f"{len(chosen)} runs trained again: equal"
        accepted = {
            **accepted_codes(),
            code: {"by": store.method_hash, "why": why},
        }
        partial = FOLDER / "accepted.partial"
        partial.write_text(json.dumps(accepted, indent=1) + "\n")
        partial.replace(FOLDER / "accepted.json")


def quickest(cells: Sequence[Cell]) -> list[Cell]:
    """Returns the quickest run of each method, the quickest first."""
    found: dict[str, Cell] = {}
    for cell in sorted(cells, key=lambda cell: cell["seconds"]):
        found.setdefault(cell["method"], cell)
    return list(found.values())


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
