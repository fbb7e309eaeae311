"""What can be done to the pruned student afterwards: bytes and accuracy.

The CNN student of the comparison, pruned to the size of its table, as float32,
quantized after training and in training, with half of its weights zero, in 16
clusters, and in int4; each file is run on LiteRT and TFLM. And a control on the
MLP: the zeros of TFMOT in the place of pruned units, at as many non-zeros as
the pruned student has, and at as many bytes.

The students are trained as the comparison's short runs are, which must be
there; TFMOT tunes on images as they are, under the unpruned student that was
distilled. Accuracies are those of the runtimes on validation. Beside what the
comparison needs it takes the extras tfmot, micro and int4.

    python benchmarks/compare.py --data fashion --students mlp cnn
    python benchmarks/after_pruning.py
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import keras
from comparison.cells import Cell, CellStore
from comparison.data import Examples, load
from comparison.plan import Plan
from comparison.statistics import standard_error
from comparison.students import STUDENTS
from comparison.training import Recipe, Setting, in_precision, narrowed, train
from comparison.views import Views, as_floats

from keras_kddp import Budget, DynamicPruning, prepare
from keras_kddp.export import (
    TFLiteArtifact,
    finetune_with_tfmot,
    to_tflite,
    verify,
)
from keras_kddp.text_table import aligned

SEEDS = (0, 1, 2)
EPOCHS = 2  # of each technique of TFMOT
CONTROL_EPOCHS = 8  # more than the pruned student had
AFTER_TRAINING = {"float32": "none", "int8": "int8", "int4": "int4"}
TUNED = {
    "int8, tuned": ("quantization",),
    "int8, half zeros": ("sparsity",),
    "int8, 16 clusters": ("clustering",),
    "int8, tuned, both": ("sparsity", "clustering", "quantization"),
}
COLUMNS = ("bytes", "compressed", "non_zeros", "LiteRT", "TFLM")

Row = dict[str, float | None]


def finished(plan: Plan, seed: int, methods: Sequence[str]) -> dict[str, Cell]:
    """Returns runs of the comparison: what they were trained with.

    Args:
        plan: Of a student of Fashion-MNIST.
        seed: Of the runs.
        methods: Of which one short run each is asked for.

    Raises:
        SystemExit: If one of them is missing.
    """
    found = {
        cell["method"]: cell
        for cell in plan.cells()
        if (cell["seed"], cell["length"]) == (seed, "short")
        and not cell["size"]
    }
    if missing := set(methods) - set(found):
        sys.exit(
            f"The comparison must have trained {', '.join(sorted(missing))} of "
            f"seed {seed} first: python benchmarks/compare.py --data fashion "
            f"--students {plan.student.name}"
        )
    return {method: found[method] for method in methods}


def setting_of(cell: Cell) -> Setting:
    """Returns what a run of the comparison was given."""
    from comparison.teachers import outputs_of_views

    data, kind = load(cell["data"]), cell["recipe"]["augmentation"]
    return Setting(
        STUDENTS[cell["data"], cell["student"]],
        data,
        Views(data.train.x, kind),
        outputs_of_views(cell["data"], kind),
        Recipe(**cell["recipe"]),
        cell["epochs"],
        cell["seed"],
    )


def trained(
    method: str, setting: Setting, options: Mapping[str, Any]
) -> keras.Model:
    """Returns the student of a method, plain and in float32.

    Args:
        method: `"kd"`, `"kddp"` or `"same_size_kd"`.
        setting: Of the run.
        options: That the comparison chose.
    """
    model, callbacks = setting.start(), []
    if method == "kddp":
        model = prepare(model, options["l1"], setting.student.layers)
        budget = Budget(**setting.student.budgets[0])
        callbacks = [DynamicPruning(budget=budget, data=setting.sample())]
    elif method == "same_size_kd":
        model = narrowed(model, options["widths"])
    model, _ = train(model, setting, callbacks, **_targets(options))
    return in_precision(model, "float32")


def _targets(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("temperature", "student_loss_weight")}


@dataclass(frozen=True, eq=False)
class Workshop:
    """Makes files of students, and tries them.

    Attributes:
        train: What TFMOT tunes and calibrates on.
        validation: What the files are tried on.
        teacher: Of what is tuned.
        folder: For the files.
        rules: Arguments of all tuning.
    """

    train: Examples
    validation: Examples
    teacher: keras.Model
    folder: Path
    rules: Mapping[str, Any]

    def converted(self, model: keras.Model, quantization: str) -> Row:
        """Returns the row of a student that is converted as it is."""
        x = as_floats(self.train.x) if quantization == "int8" else None
        path = self.folder / f"{quantization}.tflite"
        artifact = to_tflite(
            model, path, quantization=quantization, calibration=x
        )
        return self._row(model, artifact)

    def tuned(self, model: keras.Model, **options: Any) -> Row:
        """Returns the row of a student that TFMOT has tuned."""
        found = finetune_with_tfmot(
            model,
            (as_floats(self.train.x), self.train.y),
            self.folder / "tuned.tflite",
            # A copy: the unpruned student itself is tuned too.
            teacher=in_precision(self.teacher, "float32"),
            **{**self.rules, **options},
        )
        return self._row(found.model, found.tflite)

    def _row(self, model: keras.Model, artifact: TFLiteArtifact) -> Row:
        x = as_floats(self.validation.x)
        rows = verify(model, artifact, x, self.validation.y).rows
        return {
            "bytes": artifact.num_bytes,
            "compressed": len(zlib.compress(artifact.path.read_bytes(), 9)),
            "non_zeros": non_zeros(model),
            **{
                row.name: None if row.refusal else 100 * row.accuracy
                for row in rows
            },
        }


def non_zeros(model: keras.Model) -> int:
    """Returns how many weights of kernels are not 0."""
    kernels = [w for w in model.weights if w.name == "kernel"]
    return sum(int(keras.ops.count_nonzero(kernel)) for kernel in kernels)


def after_pruning(
    workshop: Workshop, models: Mapping[str, keras.Model]
) -> dict[str, Callable[[], Row]]:
    """Returns how each row of the first table is made."""
    pruned = models["kddp"]
    converted = {
        name: partial(workshop.converted, pruned, quantization)
        for name, quantization in AFTER_TRAINING.items()
    }
    return converted | {
        name: partial(workshop.tuned, pruned, techniques=techniques)
        for name, techniques in TUNED.items()
    }


def zeros_instead(
    workshop: Workshop, models: Mapping[str, keras.Model]
) -> dict[str, Callable[[], Row]]:
    """Returns how each row of the second table is made."""
    left = non_zeros(models["kddp"]) / non_zeros(models["kd"])
    zeros = partial(
        workshop.tuned, techniques=("sparsity",), epochs=CONTROL_EPOCHS
    )
    return {
        "pruned units": partial(workshop.converted, models["kddp"], "int8"),
        "zeros, as many non-zeros": partial(
            zeros, models["kd"], sparsity=1 - left
        ),
        "zeros, as many bytes": partial(
            zeros, models["same_size_kd"], sparsity=0.5
        ),
    }


TABLES = {
    "cnn": (after_pruning, ("kd", "kddp")),
    "mlp": (zeros_instead, ("kd", "kddp", "same_size_kd")),
}
"""Student -> its rows, and the methods whose students they need."""


def rows_of(student: str, seed: int) -> Iterator[tuple[str, Row]]:
    """Yields the rows of a student and a seed, by name."""
    from comparison.teachers import teacher_hash

    which = STUDENTS["fashion", student]
    plan = Plan(which, CellStore("fashion"), teacher_hash("fashion"))
    make_rows, methods = TABLES[student]
    cells = finished(plan, seed, methods)
    setting = setting_of(cells["kd"])
    models = {
        method: trained(method, setting, cell["options"])
        for method, cell in cells.items()
    }
    rules = {
        "epochs": EPOCHS,
        "batch_size": setting.student.batch_size,
        "seed": seed,
        **_targets(cells["kd"]["options"]),
    }
    data = setting.data
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(
            data.train, data.validation, models["kd"], Path(folder), rules
        )
        for name, make in make_rows(workshop, models).items():
            yield name, make()


def table(found: Mapping[str, Sequence[Row]]) -> list[str]:
    """Returns the lines of a table: means over the seeds.

    Args:
        found: Name of a row -> what it was with each seed.
    """
    lines = [("file", *COLUMNS)]
    for name, rows in found.items():
        columns = [[row.get(key) for row in rows] for key in COLUMNS]
        lines.append((name, *map(_told, columns)))
    return aligned(lines, left=1)


def _told(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"  # the runtime refuses the file, or is not here
    mean = fmean(known)
    if mean > 100:
        return f"{mean:,.0f}"
    return f"{mean:.2f} ± {standard_error(known):.2f}"


def main() -> None:
    """Trains the students and prints both tables."""
    for student in TABLES:
        found: dict[str, list[Row]] = {}
        for seed in SEEDS:
            for name, row in rows_of(student, seed):
                found.setdefault(name, []).append(row)
                print(f"{student}, seed {seed}, {name}: {row}", flush=True)
        seeds = ", ".join(map(str, SEEDS))
        print(f"\nfashion, {student}: % of validation, seeds {seeds}")
        print(*table(found), "", sep="\n")


if __name__ == "__main__":
    main()
