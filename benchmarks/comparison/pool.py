"""Processes that train runs of a comparison, one core each."""

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from comparison.cells import Spec
from comparison.students import STUDENTS
from comparison.worker import one_core, work

RUNS_PER_PROCESS = 24
"""Then a new process begins: what Keras traced before is let go of."""


class Pool:
    """Processes that train one run each at a time.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        one_core()  # they inherit it: some import PyTorch before they work
        self._context = multiprocessing.get_context("spawn")
        self._idle = [self._new() for _ in range(size)]
        self._busy: dict[Any, tuple[int, Spec]] = {}

    def _new(self) -> tuple[Connection, int]:
        """Returns the pipe of a new process, and the runs that it may do."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs,))
        process.daemon = True
        process.start()
        theirs.close()
        return ours, RUNS_PER_PROCESS

    @property
    def running(self) -> set[str]:
        """The keys of what is being trained."""
        return {spec.key for _, spec in self._busy.values()}

    @property
    def has_room(self) -> bool:
        """Whether a process is idle."""
        return bool(self._idle)

    def start(self, spec: Spec) -> None:
        """Has an idle process train a run."""
        pipe, left = self._idle.pop()
        if not left:
            pipe.close()  # that process ends
            pipe, left = self._new()
        budgets = STUDENTS[spec.data, spec.student].budgets
        pipe.send((spec, budgets[spec.size or 0]))
        self._busy[pipe] = left - 1, spec

    def finished(self) -> Iterator[tuple[Spec, dict[str, Any]]]:
        """Waits for a run to end; yields what came out.

        Raises:
            SystemExit: If one failed, when those that did not are out.
        """
        failed = []
        for pipe in wait(list(self._busy)):
            left, spec = self._busy.pop(pipe)
            try:
                found = pipe.recv()  # type: ignore[union-attr]
            except (EOFError, ConnectionError):
                failed.append(str(spec))
                continue
            self._idle.append((pipe, left))  # type: ignore[arg-type]
            yield spec, found
        if failed:
            raise SystemExit(f"a run failed: {', '.join(failed)}")
