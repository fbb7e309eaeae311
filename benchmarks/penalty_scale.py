"""Where the default penalty lands, over batch sizes and widths.

An MLP student of Fashion-MNIST is distilled and pruned without a budget, with
every argument of the method at its default, for two batch sizes and two
widths. The sizes should be about the same: `l1` means the same everywhere.
The teacher is the comparison's; where it is missing, it is trained first.

    python benchmarks/penalty_scale.py
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import argparse
import time
from dataclasses import replace
from functools import partial

import keras
from comparison.data import Data, load
from comparison.methods import TARGETS
from comparison.students import STUDENTS
from comparison.teachers import outputs_of_views
from comparison.training import Recipe, Setting, predictions, train
from comparison.views import Views

from keras_kddp import DynamicPruning, prepare
from keras_kddp.models import fashion_mlp_student

CORNERS = ((64, 400), (64, 1600), (512, 400), (512, 1600))


def pruned(data: Data, batch_size: int, width: int, epochs: int) -> keras.Model:
    """Returns the student of a corner.

    Args:
        data: Fashion-MNIST.
        batch_size: Examples per step.
        width: Units of the hidden layer before.
        epochs: How long it trains.
    """
    student = replace(
        STUDENTS["fashion", "mlp"],
        make=partial(fashion_mlp_student, width),
        batch_size=batch_size,
    )
    setting = Setting(
        student,
        data,
        Views(data.train.x, "none"),
        outputs_of_views("fashion", "none"),
        Recipe(learning_rate=2e-3, weight_decay=0.0, augmentation="none"),
        epochs,
        seed=0,
    )
    start = prepare(setting.start(), layers=student.layers)
    pruning = DynamicPruning(data=setting.sample())
    return train(start, setting, [pruning], **TARGETS[-1])[0]


def main() -> None:
    """Trains the corners and prints where each landed."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=8)
    epochs = parser.parse_args().epochs
    data = load("fashion")
    print("batch  width  units  validation   seconds")
    units = []
    for batch_size, width in CORNERS:
        started = time.monotonic()
        model = pruned(data, batch_size, width, epochs)
        seconds = time.monotonic() - started
        right = predictions(model, data.validation.x) == data.validation.y
        units.append(model.get_layer("hidden").units)
        print(
            f"{batch_size:5}  {width:5}  {units[-1]:5}  "
            f"{right.mean():10.2%}  {seconds:8.0f}",
            flush=True,
        )
    ratio = max(units) / min(units)
    print(f"largest / smallest: {ratio:.2f} (must: <= 2)")


if __name__ == "__main__":
    main()
