"""What the Distiller's `fit` takes, and what callbacks see of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from two_examples import (
    X,
    Y,
    compiled,
    hard_losses,
    linear,
    make_student,
    make_teacher,
    ours,
    soft_losses,
    trained_kernel,
    training_loss,
)

from keras_kddp import Distiller


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X, Y


FITS = {
    "tensors": lambda: {"x": tf.constant(X), "y": tf.constant(Y)},
    "lists of one array": lambda: {"x": X, "y": [Y]},
    "a column of labels": lambda: {"x": X, "y": Y[:, None]},
    "a dataset": lambda: {
        "x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    },
    "a weighted dataset": lambda: {
        "x": tf.data.Dataset.from_tensor_slices((X, Y, np.ones(2))).batch(2)
    },
    "a PyDataset": lambda: {"x": Batches()},
    "a generator": lambda: {
        "x": ((X, Y) for _ in range(1)),
        "steps_per_epoch": 1,
    },
    "validation data": lambda: {"x": X, "y": Y, "validation_data": (X, Y)},
    "weighted validation data": lambda: {
        "x": X,
        "y": Y,
        "validation_data": (X, Y, np.ones(2)),
    },
    "steps per epoch": lambda: {"x": X, "y": Y, "steps_per_epoch": 1},
    "a column of weights": lambda: {
        "x": X,
        "y": Y,
        "sample_weight": np.ones((2, 1)),
    },
}


@pytest.mark.parametrize("kind", FITS)
def test_fit_takes_what_keras_takes(kind):
    expected = trained_kernel(ours(make_teacher(), make_student()))
    distiller = ours(make_teacher(), make_student())

    distiller.fit(verbose=0, shuffle=False, **FITS[kind]())

    kernel = distiller.student.layers[0].kernel
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)


def test_one_hot_labels_train_like_numbers():
    expected = trained_kernel(ours(make_teacher(), make_student()))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    distiller = Distiller(make_teacher(), make_student())

    compiled(distiller, loss=loss).fit(X, np.eye(2)[Y], verbose=0)

    kernel = distiller.student.layers[0].kernel
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)


def test_inputs_may_come_in_a_dict():
    def two_inputs():
        inputs = {name: keras.Input((1,), name=name) for name in ("a", "b")}
        hidden = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
        return keras.Model(inputs, keras.layers.Dense(2)(hidden))

    distiller = ours(two_inputs(), two_inputs())

    history = distiller.fit(
        {"a": X[:, :1], "b": X[:, 1:]}, Y, epochs=5, verbose=0
    )

    losses = history.history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("weight_shape", [None, (2, 1), (2, 1, 1)])
def test_outputs_may_have_positions(weight_shape):
    weight = None if weight_shape is None else np.ones(weight_shape)

    def with_positions(kernel):
        return linear(kernel, keras.layers.Reshape((1, 2)))

    distiller = ours(
        with_positions([[0.0, 3.0], [2.0, 0.0]]), with_positions(np.eye(2))
    )

    loss = training_loss(distiller, y=Y[:, None], sample_weight=weight)

    expected = 0.1 * hard_losses().mean() + 0.9 * soft_losses(4.0).mean()
    assert loss == pytest.approx(expected)


def test_fit_shows_callbacks_the_training_rows_only():
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(self.model.fit_inputs)

    distiller = ours(make_teacher(), make_student())
    rows = np.arange(20.0).reshape(10, 2)
    distiller.fit(
        rows,
        [0] * 10 * np.ones(1),
        validation_split=0.3,
        verbose=0,
        callbacks=[Spy()],
    )
    distiller.fit(Batches(), verbose=0, callbacks=Spy())

    np.testing.assert_array_equal(seen[0], rows[:7])
    assert seen[1] is None
    assert distiller.fit_inputs is None


def test_a_validation_split_needs_no_labels():
    distiller = compiled(
        Distiller(make_teacher(), make_student(), student_loss_weight=0)
    )

    history = distiller.fit(
        np.tile(X, (4, 1)), validation_split=0.25, verbose=0
    )

    assert "val_loss" in history.history
