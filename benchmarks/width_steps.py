"""Time of the CNN student's int8 file against the filters of its first layer.

Shows where a rounder width pays: LiteRT's kernels take several channels at a
time, TFLM's reference kernels one. Times are to those of 16 filters, measured
in the same run.

    python benchmarks/width_steps.py
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_kddp.export import bench
from keras_kddp.models import fashion_cnn_student

WIDTHS = (16, 12, 13, 15, 17, 20, 23, 24)


def with_filters(filters: int) -> keras.Model:
    """Returns the CNN student with so many filters in its first layer."""
    config = fashion_cnn_student(42).get_config()
    for layer in config["layers"]:
        if layer["config"].get("name") == "conv1":
            layer["config"]["filters"] = filters
        layer.pop("build_config", None)
    return keras.Sequential.from_config(config)


def main() -> None:
    """Prints a line a width."""
    x = np.random.default_rng(0).random((200, 28, 28, 1), dtype="float32")
    found = bench({str(width): with_filters(width) for width in WIDTHS}, x)
    first = found.row(str(WIDTHS[0]))
    print("filters  LiteRT us  to 16  TFLM to 16")
    for width in sorted(WIDTHS):
        row = found.row(str(width))
        micro = "-"
        if row.micro is not None and first.micro is not None:
            micro = f"{row.micro / first.micro:.2f}"
        print(
            f"{width:7}  {1000 * row.one_thread:9.1f}  "
            f"{row.one_thread / first.one_thread:5.2f}  {micro:>10}"
        )


if __name__ == "__main__":
    main()
