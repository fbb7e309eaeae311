"""Time, size and memory of the students before and after pruning.

The MLP and the CNN of the comparison on their own runtimes, float32 and int8,
unpruned beside the size that dynamic pruning takes them to (100 of 800 and 42
of 512 hidden units), in one run. Weights are random: they move nothing here.

    python benchmarks/deployment.py
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_kddp.export import Measurements, bench
from keras_kddp.models import fashion_cnn_student, fashion_mlp_student

MUST = {"MLP": (fashion_mlp_student, 800, 100, 4.0)}
MUST["CNN"] = (fashion_cnn_student, 512, 42, 1.1)


def main() -> None:
    """Prints a table a student, and whether TFLM gained what it must."""
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(200, 28, 28, 1)).astype("float32")
    for name, (build, before, after, wanted) in MUST.items():
        models = {f"{units} units": build(units) for units in (before, after)}
        found: Measurements = bench(models, x)
        print(f"{name}\n{found}")
        first, second = (found.row(key) for key in models)
        if first.micro is None or second.micro is None:
            print("TFLM is not here: pip install 'keras-kddp[micro]'\n")
            continue
        gained = first.micro / second.micro
        verdict = "met" if gained >= wanted else "missed"
        print(
            f"int8 on TFLM: {gained:.2f}x faster (must: >= {wanted}), "
            f"{first.macs / second.macs:.2f}x fewer MACs: {verdict}\n"
        )


if __name__ == "__main__":
    main()
