"""Shrink the wide head of a CNN on Fashion-MNIST, in one call of `compress`.

    apt-get install dataset-fashion-mnist
    python examples/fashion_mnist_cnn.py

The same on the command line, with all controls, is in the README. Another
folder of MNIST's four files and other numbers of epochs can be named:

    python examples/fashion_mnist_cnn.py FOLDER TEACHER_EPOCHS EPOCHS
"""

import sys

import keras

import keras_kddp as kddp
from keras_kddp.data.datasets import load_dataset
from keras_kddp.models import fashion_cnn_student, fashion_cnn_teacher

DEFAULTS = ["/usr/share/datasets/fashion-mnist", "10", "12"]


def main(folder: str, teacher_epochs: str, epochs: str) -> None:
    data = load_dataset(f"idx:{folder}")
    train, validation = data.train.as_tuple(), data.validation.as_tuple()
    keras.utils.set_random_seed(0)
    teacher = fashion_cnn_teacher()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile("adam", loss, metrics=["accuracy"])
    teacher.fit(
        *train,
        validation_data=validation,
        epochs=int(teacher_epochs),
        batch_size=128,
        verbose=2,
    )
    found = kddp.compress(
        teacher,
        kddp.prepare(fashion_cnn_student(), layers=["hidden"]),
        train,
        validation,
        test=data.test.as_tuple(),
        epochs=int(epochs),
        l1=0.1,
        controls=["kd"],
        run_dir="runs/fashion_example",
        overwrite=True,
    )
    for removal in found.removals:
        print(removal)
    print(f"teacher            {found.teacher_accuracy:.2%}")
    print(f"no penalty         {found.controls['kd'].accuracy:.2%}")
    print(f"dynamic pruning    {found.result.accuracy:.2%}")
    print(f"hidden units       {found.units_before} -> {found.result.units}")
    print(found.files.agreement)


if __name__ == "__main__":
    main(*(sys.argv[1:] or DEFAULTS))
