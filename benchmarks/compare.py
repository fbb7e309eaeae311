"""The comparison: dynamic pruning beside every honest control, and peers.

Trains what is missing, on two processes of one core each, keeps each run as it
ends, and writes page and pictures of all that is there under docs/. A
comparison that was stopped goes on where it was.

    python benchmarks/compare.py                          # digits: minutes
    python benchmarks/compare.py --data fashion --students mlp cnn
    python benchmarks/compare.py --data fashion --minutes 100
    python benchmarks/compare.py --data fashion --report-only
    python benchmarks/compare.py --data fashion --final   # test: once

Runs hold validation results, and everything is chosen on those. Runs of
earlier code are trained anew, unless `--recheck` finds that they hold.
`--final` adds the test results of a commit whose defaults are frozen, and
records it.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from comparison.cells import CellStore
from comparison.data import load
from comparison.final import (
    check_first_look,
    forget_unanswered,
    hide,
    looked_at,
    read_tests,
    with_tests,
)
from comparison.page import write_page
from comparison.plan import Plan
from comparison.pool import Pool
from comparison.recheck import recheck
from comparison.students import STUDENTS
from comparison.teachers import (
    description,
    has_answered,
    outputs_of_views,
    predictions_of_split,
    teacher_hash,
    train_teacher,
)

DOCS = Path(__file__).parents[1] / "docs"


def compare(
    plans: list[Plan], store: CellStore, *, workers: int, deadline: float
) -> None:
    """Trains what is missing until all is there, or it is time to stop.

    Args:
        plans: Of the students, the first to go first.
        store: Takes what came out.
        workers: Runs at a time.
        deadline: No run starts after it, on `time.monotonic`.
    """
    pool = Pool(workers)
    while True:
        missing = {spec.key: spec for plan in plans for spec in plan.missing()}
        for key in pool.running:
            missing.pop(key, None)
        while missing and pool.has_room and time.monotonic() < deadline:
            spec = missing.pop(next(iter(missing)))
            if spec.has_teacher:  # here, once, before two of them ask for it
                outputs_of_views(spec.data, spec.recipe["augmentation"])
            pool.start(spec)
        if not pool.running:
            return
        for spec, found in pool.finished():
            hidden = hide(spec, found.pop("predicted"))
            cell = store.add(spec, {**found, "hidden": hidden})
            print(_told(cell), flush=True)


def report(data: str, plans: list[Plan]) -> bool:
    """Writes page and pictures of the runs that are there.

    Args:
        data: Name of the data.
        plans: Of all its students.

    Returns:
        Whether there are some, and a teacher, which a page needs.
    """
    cells = [cell for plan in plans for cell in plan.cells()]
    if not cells or not has_answered(data, "validation"):
        lacks = "teacher" if cells else "finished run of table or curves"
        print(f"No page of {data}: no {lacks} of this code is here yet.")
        return False
    cells, tested = with_tests(data, cells)
    right = load(data).validation.y == predictions_of_split(data, "validation")
    teacher = {"kind": description(data), "validation": float(right.mean())}
    if tested is not None:
        teacher["test"] = tested["accuracy"]
    path = write_page(
        data,
        cells,
        {plan.student.name: plan.choices for plan in plans},
        DOCS,
        note=f"{load(data).note} {looked_at(data)}",
        teacher=teacher,
        split="validation" if tested is None else "test",
        seeds=(len(plans[0].student.seeds), 3),
    )
    print(path)
    return True


def _told(cell: dict[str, Any]) -> str:
    options = {k: v for k, v in cell["options"].items() if k != "widths"}
    return (
        f"{cell['student']:9} {cell['method']:24} {cell['epochs']:4} epochs  "
        f"seed {cell['seed']:3}  {cell['validation']['accuracy']:.2%}  "
        f"{cell['units']:4} units  {cell['seconds']:6.1f} s  {options}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = dict.fromkeys(data for data, _ in STUDENTS)
    parser.add_argument("--data", choices=names, default="digits")
    parser.add_argument(
        "--students", nargs="+", help="train no runs but theirs"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--minutes",
        type=float,
        default=1e6,
        help="start no run after them; a teacher is trained to its end",
    )
    parser.add_argument(
        "--recheck",
        type=int,
        metavar="RUNS",
        help="train so many runs of earlier code again, each of another "
        "student or method; all of its runs of those hold if these are equal",
    )
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--final", action="store_true")
    given = parser.parse_args()
    known = [name for data, name in STUDENTS if data == given.data]
    given.students = given.students or known
    if unknown := set(given.students) - set(known):
        parser.error(
            f"--students of {given.data} are {', '.join(known)}. Received: "
            f"{', '.join(sorted(unknown))}."
        )
    for option in ("workers", "minutes", "recheck"):
        value = getattr(given, option)
        if value is not None and not value > 0:
            parser.error(f"--{option} must be above 0. Received: {value:g}.")
    return given


def main() -> None:
    """Trains what is missing and reports."""
    given = _arguments()
    deadline = time.monotonic() + 60 * given.minutes
    if given.final:
        check_first_look(given.data)
    store = CellStore(given.data)
    if given.recheck:
        train_teacher(given.data)  # on all cores, before a worker asks for it
        recheck(store, given.recheck)
        store = CellStore(given.data)
    plans = [
        Plan(student, store, teacher_hash(given.data))
        for (data, _), student in STUDENTS.items()
        if data == given.data
    ]
    if given.final:
        forget_unanswered(store)
    if not given.report_only:
        train_teacher(given.data)
        for split in ("validation", "test"):
            predictions_of_split(given.data, split)
        compare(
            [plan for plan in plans if plan.student.name in given.students],
            store,
            workers=given.workers,
            deadline=deadline,
        )
    if given.final:
        read_tests(given.data, plans)
    if not report(given.data, plans) and given.report_only:
        sys.exit("Run it without --report-only, which trains what is missing.")


if __name__ == "__main__":
    main()
