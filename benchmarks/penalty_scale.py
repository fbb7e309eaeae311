"""Where the default penalty lands, over batch sizes and widths.

An MLP student of Fashion-MNIST is distilled and pruned without a budget, with
every argument of the method at its default, for two batch sizes and two
widths. The sizes should be about the same: `l1` means the same everywhere.

    python benchmarks/penalty_scale.py
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from accuracy_vs_size import Bench
from cells import machine, method_hash
from experiments import COMPARISONS

from keras_kddp.compression import training as rules
from keras_kddp.layers.preparation import prepare
from keras_kddp.models import fashion_mlp_student
from keras_kddp.pruning.callback import DynamicPruning

CORNERS = ((64, 400), (64, 1600), (512, 400), (512, 1600))
OUT = Path(__file__).parents[1] / "docs" / "penalty_scale.json"


def main() -> None:
    """Trains the corners and prints where each landed."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    bench = Bench("fashion")
    experiment = COMPARISONS["fashion"].experiments["mlp"]
    rows = []
    print("batch  width  units  accuracy   seconds")
    for batch_size, width in CORNERS:
        training = replace(
            experiment.training, batch_size=batch_size, epochs=given.epochs
        )
        corner = replace(
            experiment,
            student=lambda width=width: fashion_mlp_student(width),
            training=training,
            temperature=4.0,
            student_loss_weight=0.1,
        )
        common = bench.common(corner, seed=0)
        started = time.monotonic()
        student = prepare(common.start, layers=["hidden"])
        model, _ = rules.train_distilled(student, common, [DynamicPruning()])
        row = {
            "batch_size": batch_size,
            "width": width,
            "units": model.get_layer("hidden").units,
            "accuracy": rules.accuracy(model, bench.data.test),
            "seconds": round(time.monotonic() - started),
        }
        rows.append(row)
        print(
            f"{batch_size:5}  {width:5}  {row['units']:5}  "
            f"{row['accuracy']:8.2%}  {row['seconds']:8}",
            flush=True,
        )
    units = [row["units"] for row in rows]
    ratio = max(units) / min(units)
    print(f"largest / smallest: {ratio:.2f} (must: <= 2)")
    content = {
        "command": "python benchmarks/penalty_scale.py",
        "epochs": given.epochs,
        "method_hash": method_hash(),
        "machine": machine(),
        "rows": rows,
        "ratio": ratio,
    }
    OUT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
