"""What a training step costs beside the stock Distiller's.

    python benchmarks/step_overhead.py

Blocks of steps of the stock `keras.distillation.Distiller` and of ours, on the
same prepared student, take turns in one process; CPU time (user + system) of
each block. Prints the ratio of ours to stock with a 90 % bootstrap interval.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_kddp as kddp

BATCH = 256


def cnn(width: int, name: str) -> keras.Model:
    """Returns a convolutional classifier of 28x28 images."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(10),
        ],
        name=name,
    )


def mlp(width: int, name: str) -> keras.Model:
    """Returns a dense classifier of 784 numbers."""
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(10),
        ],
        name=name,
    )


def compiled(distiller: keras.Model) -> keras.Model:
    """Compiles a Distiller the way both are measured."""
    distiller.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    distiller.make_train_function()
    return distiller


def stock(teacher: keras.Model, student: keras.Model) -> keras.Model:
    """Returns the stock Distiller with the losses of ours."""
    losses = keras.distillation.LogitsDistillation(
        temperature=4.0, loss=keras.losses.KLDivergence()
    )
    return compiled(
        keras.distillation.Distiller(
            teacher, student, losses, student_loss_weight=0.1
        )
    )


def ours(teacher: keras.Model, student: keras.Model) -> keras.Model:
    """Returns our Distiller on a student with penalties."""
    return compiled(kddp.Distiller(teacher, kddp.prepare(student)))


def block_seconds(model: keras.Model, data: tf.data.Dataset) -> float:
    """Returns the CPU time of one pass over the data."""
    iterator = iter(data)
    started = time.process_time()
    for _ in range(int(data.cardinality())):
        logs = model.train_function(iterator)
    float(logs["loss"])  # wait for the last step
    return time.process_time() - started


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """Returns the 90 % bootstrap interval of the median."""
    chosen = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(chosen, axis=1), [0.05, 0.95])
    return float(low), float(high)


def measure(
    name: str, shape: tuple[int, ...], make: object, blocks: int, steps: int
) -> None:
    """Prints the ratio for one kind of model."""
    rng = np.random.default_rng(0)
    x = rng.random((BATCH * steps, *shape), dtype="float32")
    y = rng.integers(0, 10, len(x))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).cache()
    teacher = make(1024, "teacher")
    pair = [stock(teacher, make(512, "a")), ours(teacher, make(512, "b"))]
    for model in pair:  # trace and warm up
        block_seconds(model, data)
        block_seconds(model, data)
    seconds = np.zeros((blocks, 2))
    for block in range(blocks):
        for index in (0, 1) if block % 2 == 0 else (1, 0):
            seconds[block, index] = block_seconds(pair[index], data)
    ratios = seconds[:, 1] / seconds[:, 0]
    low, high = interval(ratios)
    print(
        f"{name:4} stock {np.median(seconds[:, 0]) / steps * 1e3:7.2f} ms  "
        f"ours {np.median(seconds[:, 1]) / steps * 1e3:7.2f} ms CPU per step  "
        f"ratio {np.median(ratios):.3f}  90 % interval {low:.3f} to {high:.3f}"
        f"  ({blocks} blocks of {steps} steps, batch {BATCH})",
        flush=True,
    )


def main() -> None:
    """Measures both kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=41)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    measure("MLP", (784,), mlp, given.blocks, given.steps)
    measure("CNN", (28, 28, 1), cnn, given.blocks, given.steps)


if __name__ == "__main__":
    main()
