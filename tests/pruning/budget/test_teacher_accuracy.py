"""The teacher's accuracy as the reference of a student's."""

import keras
import numpy as np
import pytest
from budgeted_runs import (
    X,
    Y,
    compile_eagerly,
    make_student,
    small,
)

import keras_kddp.pruning.budget.accuracy_guard
from keras_kddp import Budget, Distiller, DynamicPruning, TeacherCache, prepare
from keras_kddp.pruning.budget.teacher_accuracy import teacher_accuracy


@pytest.mark.parametrize("is_packed", [True, False])
def test_the_teacher_is_the_reference_if_asked(
    digits, teacher, is_packed, monkeypatch
):
    train_data, validation = digits
    seen = []
    original = keras_kddp.pruning.budget.teacher_accuracy.teacher_accuracy
    monkeypatch.setattr(
        keras_kddp.pruning.budget.accuracy_guard,
        "teacher_accuracy",
        lambda distiller: seen.append(original(distiller)) or seen[-1],
    )
    x, y = train_data
    x_validation, y_validation = validation
    if is_packed:
        x = TeacherCache(teacher, x).pack(x)
        x_validation = TeacherCache(teacher, x_validation).pack(x_validation)
    distiller = Distiller(
        None if is_packed else teacher, prepare(make_student())
    )
    compile_eagerly(distiller)
    budget = Budget(max_accuracy_drop=0.5, reference="teacher")

    distiller.fit(
        x,
        y,
        validation_data=(x_validation, y_validation),
        epochs=4,
        batch_size=128,
        verbose=0,
        callbacks=[DynamicPruning(budget=budget)],
    )

    outputs = teacher.predict(validation[0], verbose=0)
    assert seen == [(outputs.argmax(1) == validation[1]).mean()]


def test_the_teacher_of_a_sequence_is_judged_at_every_position():
    def model(width):
        return keras.Sequential(
            [
                keras.Input((5, 6)),
                keras.layers.Dense(width, "relu"),
                keras.layers.Dense(3),
            ]
        )

    x = np.random.default_rng(1).normal(size=(20, 5, 6)).astype("float32")
    teacher = model(8)
    y = teacher.predict(x, verbose=0).argmax(axis=-1)
    distiller = Distiller(teacher, prepare(model(4)))
    compile_eagerly(distiller)
    budget = Budget(max_accuracy_drop=0.99, reference="teacher")

    distiller.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=4,
        verbose=0,
        callbacks=[DynamicPruning(budget=budget)],
    )


def judged_by_the_teacher(validation):
    distiller = Distiller(small(), prepare(small()))
    compile_eagerly(distiller)
    budget = Budget(max_accuracy_drop=0.5, reference="teacher")
    distiller.fit(
        X,
        Y,
        epochs=4,
        validation_data=validation,
        verbose=0,
        callbacks=[DynamicPruning(budget=budget)],
    )


def test_a_generator_is_not_used_up_for_the_teachers_accuracy():
    batches = iter([(X, Y)] * 4)

    with pytest.raises(ValueError, match="batches that can be run through aga"):
        judged_by_the_teacher(batches)

    assert len(list(batches)) == 4


def test_the_teachers_accuracy_needs_labels():
    with pytest.raises(ValueError, match="needs labels beside the validation"):
        judged_by_the_teacher((X,))


@pytest.mark.parametrize("is_packed", [True, False])
def test_padding_counts_in_neither_accuracy(is_packed):
    def model(width):
        keras.utils.set_random_seed(width)
        return keras.Sequential(
            [
                keras.Input((4,), dtype="int32"),
                keras.layers.Embedding(4, width, mask_zero=True),
                keras.layers.Dense(width, "relu"),
                keras.layers.Dense(3),
            ]
        )

    x = np.array([[3, 1, 2, 0], [2, 0, 0, 0]] * 4)
    teacher = model(8)
    labels = teacher.predict(x, verbose=0).argmax(axis=-1)
    y = np.where(x != 0, labels, (labels + 1) % 3)
    y[0, 0] = (y[0, 0] + 1) % 3  # one of 16 words is wrong
    inputs = TeacherCache(teacher, x).pack(x) if is_packed else x
    distiller = Distiller(None if is_packed else teacher, prepare(model(4)))
    compile_eagerly(distiller)
    found = []

    class Asking(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            found.append(teacher_accuracy(distiller))

    for validation in ((inputs, y), Batches(inputs, y)):
        distiller.fit(
            inputs,
            y,
            validation_data=validation,
            verbose=0,
            callbacks=[Asking()],
        )

    assert found == [15 / 16, 15 / 16]


class Batches(keras.utils.PyDataset):
    """Validation data in two batches."""

    def __init__(self, x, y):
        super().__init__()
        self.parts = x, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return keras.tree.map_structure(lambda a: a[rows], self.parts)
