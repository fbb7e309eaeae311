"""Prune the convolutions of a MobileNetV2 while it is distilled.

    apt-get install dataset-fashion-mnist
    python examples/mobilenet_student.py

Two epochs on a part of Fashion-MNIST, 32 x 32 x 3: too few to learn much, and
enough to see the student shrink inside `fit`. Another folder of MNIST's four
files, and how many images to take, can be named:

    python examples/mobilenet_student.py FOLDER IMAGES
"""

import sys

import keras
import numpy as np

import keras_kddp as kddp
from keras_kddp.data.datasets import load_dataset

DEFAULTS = ["/usr/share/datasets/fashion-mnist", "4000"]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def colored(images: np.ndarray) -> np.ndarray:
    """Returns (rows, 32, 32, 3) images of (rows, 28, 28, 1) ones."""
    padded = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])
    return np.repeat(padded, 3, axis=-1)


def trained_teacher(x: np.ndarray, y: np.ndarray) -> keras.Model:
    teacher = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(64, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    teacher.compile("adam", LOSS, metrics=["accuracy"])
    teacher.fit(x, y, epochs=4, verbose=2)
    return teacher


def main(folder: str, images: str) -> None:
    data = load_dataset(f"idx:{folder}")
    x, y = colored(data.train.x[: int(images)]), data.train.y[: int(images)]
    x_test, y_test = colored(data.test.x[:1000]), data.test.y[:1000]
    keras.utils.set_random_seed(0)
    teacher = trained_teacher(x, y)
    student = keras.applications.MobileNetV2(
        (32, 32, 3),
        alpha=0.35,
        weights=None,
        classes=10,
        classifier_activation=None,
    )
    for layer in student.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # 0.999 would need thousands of steps
    before = kddp.profile(student)
    distiller = kddp.Distiller(teacher, kddp.prepare(student, l1=1e-3))
    distiller.compile(keras.optimizers.Adam(2e-3), LOSS, metrics=["accuracy"])
    pruning = kddp.DynamicPruning(
        threshold=0.2,
        warmup_epochs=0,
        ramp_epochs=1,
        finetune_epochs=1,
        minimum_units=8,
        samples=512,
        verbose=1,
    )
    distiller.fit(x, y, epochs=2, batch_size=64, verbose=2, callbacks=[pruning])
    compact = kddp.finalize(distiller.student)
    after = kddp.profile(compact)
    print(f"parameters  {before.parameters:,} -> {after.parameters:,}")
    print(f"MACs        {before.macs:,} -> {after.macs:,}")
    files = [
        kddp.export.to_tflite(compact, "mobilenet_float32.tflite"),
        kddp.export.to_tflite(
            compact,
            "mobilenet_int8.tflite",
            quantization="int8",
            calibration=x[:256],
        ),
    ]
    # So short a run leaves narrow margins between the classes, and rounding
    # to int8 decides some of them: judge it by its error instead.
    print(kddp.export.verify(compact, files, x_test, y_test, tolerance=0.25))


if __name__ == "__main__":
    main(*(sys.argv[1:] or DEFAULTS))
