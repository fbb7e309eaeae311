"""Distil on a tf.data pipeline from tensorflow-datasets, teacher cached.

    pip install 'keras-kddp[data]'
    python examples/tfds_dataset.py

downloads MNIST; another data set of images with a label can be named:

    python examples/tfds_dataset.py NAME EPOCHS
"""

import sys

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_kddp as kddp


def dense_model(widths: list[int], shape: tuple[int, ...], classes: int):
    hidden = [keras.layers.Dense(width, "relu") for width in widths]
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            *hidden,
            keras.layers.Dense(classes),
        ]
    )


def main(name: str = "mnist", epochs: str = "12") -> None:
    loaded, info = tfds.load(name, with_info=True)

    def pair(row: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(row["image"], "float32"), row["label"]

    train = loaded["train"].map(pair)
    test = loaded["test"].map(pair).batch(256)
    shape = train.element_spec[0].shape
    classes = info.features["label"].num_classes
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    teacher = dense_model([512, 512], shape, classes)
    teacher.compile("adam", loss, metrics=["accuracy"])
    shuffled = train.shuffle(10_000).batch(128)
    teacher.fit(shuffled, epochs=int(epochs), shuffle=False, verbose=2)

    # The teacher's outputs are computed once, in the order of the data; the
    # examples are shuffled afterwards, with their outputs.
    in_order = train.batch(256)
    cache = kddp.TeacherCache(teacher, in_order)
    packed = cache.zip(in_order).unbatch().shuffle(10_000).batch(128)

    student = kddp.prepare(dense_model([256], shape, classes), l1=0.1)
    distiller = kddp.Distiller(None, student)
    distiller.compile("adam", loss, metrics=["accuracy"])
    observed = train.batch(256).take(16)  # a dataset cannot be read by itself
    pruning = kddp.DynamicPruning(data=observed, verbose=1)
    distiller.fit(
        packed,
        epochs=int(epochs),
        shuffle=False,
        verbose=2,
        callbacks=[pruning],
    )

    compact = kddp.finalize(distiller.student)
    compact.compile(loss=loss, metrics=["accuracy"])
    print("test accuracy", compact.evaluate(test, verbose=0)[1])
    compact.summary()


if __name__ == "__main__":
    main(*sys.argv[1:])
