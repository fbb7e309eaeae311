"""What can be done to the pruned student afterwards: bytes and accuracy.

The CNN student of the comparison, pruned (42 of 512 hidden units), as float32,
quantized after training and in training, with half of its weights zero, in 16
clusters, and in int4; each file is run on LiteRT and TFLM. And a control on the
MLP: the zeros of TFMOT in the place of pruned units, at as many non-zeros as
the pruned student has, and at as many bytes. Writes docs/after_pruning.md; a
run that was stopped goes on where it was.

    python benchmarks/after_pruning.py
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import keras
import numpy as np
from accuracy_vs_size import TEACHERS, Bench, narrowed, pruning_of
from cells import machine, method_hash
from experiments import COMPARISONS

from keras_kddp.compression import training as rules
from keras_kddp.compression.controls import train_control
from keras_kddp.export import (
    TFLiteArtifact,
    finetune_with_tfmot,
    to_tflite,
    verify,
)
from keras_kddp.layers.preparation import prepare

SEEDS = (0, 1, 2)
EPOCHS = 2
CONTROL = {"epochs": 8, "learning_rate": 1e-3}  # on top of all of the training
RESULTS = Path(__file__).with_name("after_pruning.json")
PAGE = Path(__file__).parents[1] / "docs" / "after_pruning.md"
AFTER_TRAINING = {"float32": "none", "int8": "int8", "int4": "int4"}
TUNED = {
    "int8, tuned": ("quantization",),
    "int8, half zeros": ("sparsity",),
    "int8, 16 clusters": ("clustering",),
    "int8, tuned, both": ("sparsity", "clustering", "quantization"),
}
MUST = 0.002  # int8 may lose so much by being tuned


class Student:
    """A student of one seed, trained as in the comparison.

    Args:
        bench: Of Fashion-MNIST.
        name: "cnn" or "mlp".
        seed: Of weights and shuffling.
    """

    def __init__(self, bench: Bench, name: str, seed: int) -> None:
        self.name, self.seed, self.data = name, seed, bench.data
        self._bench = bench
        self._experiment = COMPARISONS["fashion"].experiments[name]
        teacher = COMPARISONS["fashion"].teacher_training
        bench.common(self._experiment, seed)  # trains a missing teacher
        self.teacher = keras.saving.load_model(
            TEACHERS / f"fashion-{teacher.epochs}.keras"
        )

    def trained(self, method: str) -> keras.Model:
        """Returns the student of a method, from its file if there is one."""
        path = (
            TEACHERS / f"{method_hash()}-{self.name}-{method}-{self.seed}.keras"
        )
        if not path.exists():
            common = self._bench.common(self._experiment, self.seed)
            self._train(method, common).save(path)
        return keras.saving.load_model(path)

    def _train(self, method: str, common: rules.Setting) -> keras.Model:
        if method == "kd":
            return train_control(method, common, common.start, [])
        if method == "same_size":
            pruned = narrowed(common.start, {"hidden": 100})
            return train_control(method, common, pruned, ["hidden"])
        layers, l1 = self._experiment.layers, self._experiment.l1
        callback = pruning_of(method, self._experiment)
        prepared = prepare(common.start, l1, layers)
        return rules.train_distilled(prepared, common, [callback])[0]

    def tuned(self, model: keras.Model, path: Path, **options: Any) -> Any:
        """Returns what TFMOT makes of a model under the teacher."""
        return finetune_with_tfmot(
            model,
            self.data.train,
            path,
            teacher=self.teacher,
            batch_size=256,
            temperature=self._experiment.temperature,
            student_loss_weight=self._experiment.student_loss_weight,
            seed=self.seed,
            **{"epochs": EPOCHS, **options},
        )

    def row(
        self, model: keras.Model, artifact: TFLiteArtifact
    ) -> dict[str, Any]:
        """Returns what a file is and does on the test split."""
        test = self.data.test
        found = verify(model, artifact, test.x, test.y)
        by_runtime = {row.name: row for row in found.rows}
        kernels = [
            keras.ops.convert_to_numpy(weight)
            for weight in model.weights
            if weight.name == "kernel"
        ]
        return {
            "bytes": artifact.num_bytes,
            "compressed": len(zlib.compress(artifact.path.read_bytes(), 9)),
            "non_zeros": sum(int(np.count_nonzero(k)) for k in kernels),
            **{
                name: None if row.refusal else row.accuracy
                for name, row in by_runtime.items()
            },
        }


def after_pruning(student: Student, folder: Path) -> dict[str, Callable]:
    """Returns how each row of the first table is made."""
    model = student.trained("kddp")
    x = student.data.train.x

    def plain(quantization: str) -> dict[str, Any]:
        artifact = to_tflite(
            model,
            folder / f"{quantization}.tflite",
            quantization=quantization,
            calibration=x if quantization == "int8" else None,
        )
        return student.row(model, artifact)

    def tuned(techniques: tuple[str, ...]) -> dict[str, Any]:
        found = student.tuned(
            model, folder / "tuned.tflite", techniques=techniques
        )
        return student.row(found.model, found.tflite)

    return {
        **{name: partial(plain, q) for name, q in AFTER_TRAINING.items()},
        **{name: partial(tuned, t) for name, t in TUNED.items()},
    }


def control(student: Student, folder: Path) -> dict[str, Callable]:
    """Returns how each row of the second table is made."""

    def pruned() -> dict[str, Any]:
        model = student.trained("kddp")
        path = folder / "kddp.tflite"
        artifact = to_tflite(
            model, path, quantization="int8", calibration=student.data.train.x
        )
        return student.row(model, artifact)

    def zeros(method: str, share: float) -> dict[str, Any]:
        found = student.tuned(
            student.trained(method),
            folder / "zeros.tflite",
            techniques=("sparsity",),
            sparsity=share,
            **CONTROL,
        )
        return student.row(found.model, found.tflite)

    # 100 of 800 units have an eighth of the weights.
    return {
        "pruned units": pruned,
        "zeros, as many non-zeros": lambda: zeros("kd", 0.875),
        "zeros, as many bytes": lambda: zeros("same_size", 0.5),
    }


def run(results: dict[str, Any]) -> None:
    """Fills in the rows that are missing, and stores each."""
    bench = Bench("fashion")
    for seed in SEEDS:
        for name, rows in (("cnn", after_pruning), ("mlp", control)):
            student = Student(bench, name, seed)
            with tempfile.TemporaryDirectory() as folder:
                for row, make in rows(student, Path(folder)).items():
                    key = f"{name}/{row}/{seed}"
                    if key in results["rows"]:
                        continue
                    results["rows"][key] = make()
                    text = json.dumps(results, indent=1, sort_keys=True)
                    RESULTS.write_text(text + "\n")
                    print(key, results["rows"][key], flush=True)


def table(results: dict[str, Any], student: str) -> list[str]:
    """Returns the table of a student in Markdown, means over the seeds."""
    keys = [key for key in results["rows"] if key.startswith(student)]
    names = list(dict.fromkeys(key.split("/")[1] for key in keys))
    order = [*AFTER_TRAINING, *TUNED, "pruned units", *names]
    lines = [
        "| file | bytes | compressed | non-zero weights | LiteRT | TFLM |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(names, key=order.index):
        rows = [results["rows"][f"{student}/{name}/{seed}"] for seed in SEEDS]
        numbers = [
            f"{fmean(row[key] for row in rows):,.0f}"
            for key in ("bytes", "compressed", "non_zeros")
        ]
        scores = [
            _score([row.get(key) for row in rows]) for key in ("LiteRT", "TFLM")
        ]
        lines.append(f"| {name} | {' | '.join([*numbers, *scores])} |")
    return lines


def _score(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "refused"
    error = np.std(known, ddof=1) / len(known) ** 0.5 if len(known) > 1 else 0
    return f"{100 * fmean(known):.2f} ± {100 * error:.2f}"


def page(results: dict[str, Any]) -> str:
    """Returns docs/after_pruning.md."""

    def mean(row: str) -> float:
        return fmean(
            results["rows"][f"cnn/{row}/{seed}"]["LiteRT"] for seed in SEEDS
        )

    gain = mean("int8, tuned") - mean("int8")
    verdict = "met" if gain >= -MUST else "missed"
    return "\n".join(
        [
            "# After pruning",
            "",
            "Printed by `python benchmarks/after_pruning.py`: Fashion-MNIST, "
            f"seeds {', '.join(map(str, SEEDS))}, means with standard errors "
            "over the seeds, accuracy in % of the 10,000 test images as the "
            "runtimes give it. Where TFMOT tunes, "
            f"each technique takes {EPOCHS} epochs under the teacher. "
            "Compressed is zlib at level 9: zeros and clusters are worth "
            "something only there.",
            "",
            "## The pruned CNN, 42 of 512 hidden units",
            "",
            *table(results, "cnn"),
            "",
            f"Tuned int8 is {100 * gain:+.2f} points from int8 after training "
            f"(must: not below {-100 * MUST:.1f}): {verdict}.",
            "",
            "## Zeros instead of pruned units: the MLP, 100 of 800",
            "",
            *table(results, "mlp"),
            "",
            "The zeros of the first control are in a student of 800 units, "
            "those of the second in one of 100 that was distilled from "
            f"scratch; both were tuned for {CONTROL['epochs']} epochs more "
            "than the pruned student had.",
            "",
        ]
    )


def main() -> None:
    """Trains what is missing and writes the page."""
    results = {"machine": machine(), "method_hash": method_hash(), "rows": {}}
    if RESULTS.exists():
        stored = json.loads(RESULTS.read_text())
        if stored["method_hash"] == method_hash():
            results = stored
    run(results)
    PAGE.write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
