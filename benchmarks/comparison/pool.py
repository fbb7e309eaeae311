"""Processes that train runs of a comparison, one core each."""

import multiprocessing
from multiprocessing.connection import Connection, wait
from typing import Any

from comparison.cells import Spec
from comparison.students import STUDENTS
from comparison.worker import one_core, work


class Pool:
    """Processes that train one run each at a time.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        one_core()  # they inherit it: some import PyTorch before they work
        self._context = multiprocessing.get_context("spawn")
        self._idle = [self._new() for _ in range(size)]
        self._busy: dict[Connection, tuple[Any, Spec]] = {}

    def _new(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs,))
        process.daemon = True
        process.start()
        theirs.close()
        return process, ours

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
        process, pipe = self._idle.pop()
        budgets = STUDENTS[spec.data, spec.student].budgets
        try:
            pipe.send((spec, budgets[spec.size or 0]))
        except BrokenPipeError:  # it has trained its share
            process, pipe = self._new()
            pipe.send((spec, budgets[spec.size or 0]))
        self._busy[pipe] = process, spec

    def finished(self) -> list[tuple[Spec, dict[str, Any]]]:
        """Waits for a run to end; returns what came out."""
        found = []
        for pipe in wait(list(self._busy)):
            process, spec = self._busy.pop(pipe)  # type: ignore[arg-type]
            try:
                found.append((spec, pipe.recv()))  # type: ignore[union-attr]
            except EOFError:
                raise SystemExit(f"a run failed: {spec}") from None
            self._idle.append((process, pipe))  # type: ignore[arg-type]
        return found
