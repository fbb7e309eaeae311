"""The finished runs of a comparison: a line of JSON each, in git."""

import ast
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras_kddp

FOLDER = Path(__file__).parents[1] / "cells"

Cell = dict[str, Any]

_METHOD_FOLDERS = ("data", "distillation", "layers", "pruning", "surgery")

_TRAINERS = ("keras", "tensorflow", "torch", "torch_pruning")


@dataclass(frozen=True)
class Spec:
    """What a run follows from, beside the code.

    Attributes:
        data: Name of the data.
        student: Name of the student.
        method: A key of `comparison.peers.ALL_METHODS`.
        length: `"short"` or `"long"`; "" before lengths are known.
        epochs: How long it trains.
        size: Index of the student's budget; None for the whole student.
        seed: Of start weights and orders.
        recipe: Learning rate, weight decay and augmentation.
        options: Of the method.
        teacher: Of which training the outputs are.
        precision: In which it computes.
        backend: What trains it.
    """

    data: str
    student: str
    method: str
    length: str
    epochs: int
    size: int | None
    seed: int
    recipe: Mapping[str, Any]
    options: Mapping[str, Any]
    teacher: str
    precision: str
    backend: str

    @property
    def has_teacher(self) -> bool:
        """Whether it learns from soft targets."""
        return "temperature" in self.options

    @property
    def key(self) -> str:
        """Hash of all of it but the name of the length."""
        config = {**asdict(self), "length": ""}
        text = json.dumps(config, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class CellStore:
    """Cells of one data set, those of earlier code left out.

    Args:
        data: Name of the data.

    Attributes:
        method_hash: Of the code that is here.
    """

    def __init__(self, data: str) -> None:
        self._folder = FOLDER / data
        self.method_hash = method_hash()
        self._cells: dict[str, Cell] = {}
        self._stale: list[Cell] = []
        for path in sorted(self._folder.glob("*.jsonl")):
            for cell in _cells_in(path):
                held = codes_that_hold(self.method_hash, kind_of(cell))
                if cell["method_hash"] in held:
                    self._cells[cell["key"]] = cell
                else:
                    self._stale.append(cell)

    def find(self, spec: Spec) -> Cell | None:
        """Returns the finished run of a spec, None where it is missing."""
        cell = self._cells.get(spec.key)
        # One run may serve as the long one of a ladder, and in the grid.
        return cell and {**cell, "length": spec.length}

    def stale(self) -> list[Cell]:
        """Returns the runs of earlier code that nothing has replaced."""
        return [c for c in self._stale if c["key"] not in self._cells]

    def keep(self, is_kept: Callable[[Cell], bool]) -> None:
        """Forgets the runs that are to be trained anew."""
        self._cells = {k: c for k, c in self._cells.items() if is_kept(c)}

    def add(self, spec: Spec, found: Mapping[str, Any]) -> Cell:
        """Stores a finished run and returns its cell."""
        cell = {
            **asdict(spec),
            "key": spec.key,
            "method_hash": self.method_hash,
            "machine": machine(),
            **found,
        }
        self._cells[spec.key] = cell
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{spec.student}.jsonl"
        line = json.dumps(cell, sort_keys=True) + "\n"
        with path.open("a+b") as file:
            file.seek(max(0, file.tell() - 1))
            is_broken_off = file.read() not in (b"", b"\n")
            file.write(("\n" * is_broken_off + line).encode())
        return cell


def _cells_in(path: Path) -> Iterator[Cell]:
    """Yields the cells of a file; of lines that were broken off, it tells."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            print(
                f"{path}, line {number} is no finished run and does not count. "
                "It may be deleted.",
                file=sys.stderr,
            )


def kind_of(cell: Cell) -> str:
    """Returns data, student and method of a run: what one run speaks for."""
    return f"{cell['data']} {cell['student']} {cell['method']}"


def accepted() -> list[dict[str, str]]:
    """Returns which `code` was found to give the same `by` which later one.

    And for which `kind` of runs; the first entries name none: for all.
    """
    path = FOLDER / "accepted.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def codes_that_hold(current: str, kind: str) -> set[str]:
    """Returns the code that is here, what it accepted, what that did.

    Args:
        current: Hash of the code that is here. What was accepted by code that
            it differs from, it has to accept itself.
        kind: Of the runs that are to hold.
    """
    held = {current}
    pairs = [
        (told["code"], told["by"])
        for told in accepted()
        if told.get("kind", kind) == kind
    ]
    while new := {code for code, by in pairs if by in held} - held:
        held |= new
    return held


def machine() -> dict[str, Any]:
    """Returns what a run ran on."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in _TRAINERS if find_spec(name)},
    }


def method_hash() -> str:
    """Returns a hash of the code that results follow from.

    Of the package below `compression`, and of data and training here: what is
    defined, wherever it stands. Names of files, imports, order, docstrings,
    comments and layout do not count.
    """
    root = Path(keras_kddp.__file__).parent
    paths = [root / "models.py", root / "model_io.py"]
    for folder in _METHOD_FOLDERS:
        paths += (root / folder).rglob("*.py")
    own = (
        *("data", "views", "students", "training", "methods", "cuts"),
        *("slimming", "worker"),
    )
    peers = ("twins", "twin_layers", "torch_training", "torch_pruning", "peers")
    here = Path(__file__).parent
    paths += [here / f"{name}.py" for name in (*own, *peers)]
    definitions = {
        ast.unparse(definition)
        for path in paths
        if path.exists()
        for definition in _Essence().visit(ast.parse(path.read_text())).body
    }
    text = "\n".join(sorted(definitions))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Essence(ast.NodeTransformer):
    """Drops what cannot change a number."""

    def visit_Import(self, node: ast.Import) -> None:  # noqa: N802
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:  # noqa: N802
        return None

    def visit_Expr(self, node: ast.Expr) -> Any:  # noqa: N802
        is_text = isinstance(node.value, ast.Constant)
        return None if is_text else self.generic_visit(node)
