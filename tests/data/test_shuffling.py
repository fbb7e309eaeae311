"""Arrays are shuffled anew in each epoch, from seed and epoch alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kddp import Distiller
from keras_kddp.data.shuffling import (
    EpochOrder,
    ShuffledBatches,
    shuffle_each_epoch,
)
from keras_kddp.distillation.teacher.cache import TeacherCache

ROWS = np.arange(10, dtype="float32")[:, None]


def batches_in(given):
    """Returns the batches of an epoch as NumPy arrays."""
    x = given["x"]
    found = (
        x
        if isinstance(x, tf.data.Dataset)
        else map(x.__getitem__, range(len(x)))
    )
    return [keras.tree.map_structure(np.array, batch) for batch in found]


def small_model(seed):
    return keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(2, kernel_initializer="zeros", name=f"d{seed}"),
        ]
    )


class Recorder(keras.layers.Layer):
    """Writes down the rows it sees while training."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, x, training=None):
        if training:
            self.seen.append(keras.ops.convert_to_numpy(x)[:, 0].tolist())
        return x


def orders(seed=0, epochs=2, initial_epoch=0, x=ROWS, **arguments):
    """Returns the rows of each epoch as a Distiller sees them."""
    recorder = Recorder()
    student = keras.Sequential(
        [keras.Input((1,)), recorder, keras.layers.Dense(2)]
    )
    distiller = Distiller(small_model(0), student)
    distiller.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    recorder.seen.clear()
    keras.utils.set_random_seed(seed)
    callback = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: recorder.seen.append(None)
    )
    distiller.fit(
        x,
        np.zeros(len(ROWS), int),
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=0,
        callbacks=[callback],
        **{"batch_size": 4, **arguments},
    )
    starts = [i for i, seen in enumerate(recorder.seen) if seen is None]
    ends = [*starts[1:], len(recorder.seen)]
    return [
        [row for batch in recorder.seen[a + 1 : b] for row in batch]
        for a, b in zip(starts, ends, strict=True)
    ]


def test_two_epochs_have_different_orders_of_the_same_rows():
    first, second = orders()
    assert first != second
    assert sorted(first) == sorted(second) == ROWS[:, 0].tolist()


def test_an_epoch_has_the_same_order_when_training_starts_with_it():
    assert orders(epochs=3)[2] == orders(epochs=3, initial_epoch=2)[0]


def test_the_order_follows_from_the_seed():
    assert orders(seed=1) == orders(seed=1)
    assert orders(seed=1) != orders(seed=2)


def test_without_a_seed_of_keras_numpy_s_decides(monkeypatch):
    monkeypatch.setattr("keras_kddp._compat.random_seed", lambda: None)
    assert orders(seed=1) == orders(seed=1)
    assert orders(seed=1) != orders(seed=2)


def test_rows_that_must_not_be_shuffled_are_not():
    assert orders(shuffle=False) == [ROWS[:, 0].tolist()] * 2


def test_shuffling_by_batches_mixes_within_each_alone():
    first, second = orders(shuffle="batch")
    assert first != second
    for order in (first, second):
        assert [sorted(order[i : i + 4]) for i in (0, 4, 8)] == [
            [0.0, 1.0, 2.0, 3.0],
            [4.0, 5.0, 6.0, 7.0],
            [8.0, 9.0],
        ]


def test_fewer_steps_than_a_pass_take_the_first_batches_of_each_order():
    whole, part = orders(), orders(steps_per_epoch=2)
    assert part == [order[:8] for order in whole]


def test_more_steps_than_a_pass_go_on_with_another_order():
    (order,) = orders(epochs=1, steps_per_epoch=6)
    assert sorted(order) == sorted(ROWS[:, 0].tolist() * 2)
    assert order[:10] != order[10:]


def test_rows_that_are_set_aside_are_never_trained_on():
    first, second = orders(validation_split=0.2)
    assert sorted(first) == sorted(second) == ROWS[:8, 0].tolist()


def test_packed_teacher_outputs_go_with_their_rows():
    packed = TeacherCache(small_model(0), ROWS).pack(ROWS)
    assert orders(x=packed) == orders()


@pytest.mark.parametrize(
    "given",
    [
        {"x": iter([])},
        {"x": ROWS, "y": ROWS[:3]},
        {"x": ROWS, "batch_size": 0},
        {"x": ROWS, "steps_per_epoch": 0.5},
        {"x": ROWS, "validation_split": 0.99},
        {"x": ROWS, "y": [ROWS, ROWS], "class_weight": {0: 1.0}},
        {"x": ROWS, "y": [ROWS, ROWS], "sample_weight": np.ones((10, 3))},
        {"x": ROWS, "y": ROWS, "sample_weight": ROWS, "class_weight": {0: 1}},
        {"x": np.array([object()] * 3), "y": ROWS[:3]},
        {"x": tf.sparse.from_dense(ROWS), "y": ROWS},
        {"x": tf.ragged.constant([[1.0], [2.0, 3.0]]), "y": ROWS[:2]},
        {"x": tf.constant(1.0), "y": ROWS},
        {"x": [1.0, 2.0], "y": ROWS[:2]},
        {"x": ROWS[:0], "y": ROWS[:0]},
        {"x": None, "y": ROWS},
    ],
)
def test_what_keras_reads_or_refuses_itself_is_left_to_it(given):
    before = dict(given)
    shuffle_each_epoch(given)
    assert given == before or all(given[k] is before[k] for k in before)


def test_one_weight_for_each_example_weighs_every_output():
    given = {"x": ROWS, "y": [ROWS, ROWS], "sample_weight": np.arange(10.0)}
    shuffle_each_epoch(given)
    x, y, weights = batches_in(given)[0]
    assert len(y) == 2
    for weight in weights:
        np.testing.assert_array_equal(weight, x[:, 0])


def test_floats_are_read_in_the_float_of_keras_and_labels_as_they_are():
    given = {"x": ROWS.astype("float64"), "y": np.arange(10)}
    shuffle_each_epoch(given)
    x, y = batches_in(given)[0]
    assert (x.dtype, y.dtype.kind) == ("float32", "i")
    np.testing.assert_array_equal(x[:, 0], y)


@pytest.mark.no_jax  # which has no text
@pytest.mark.no_torch
@pytest.mark.parametrize(
    "make", [lambda x: x, tf.constant], ids=["array", "tensor"]
)
def test_text_is_shuffled_with_its_labels(make):
    text = np.array([*"abcdefghij"], object)
    given = {"x": make(text), "y": np.arange(10)}
    shuffle_each_epoch(given)
    x, y = batches_in(given)[0]
    text = [value.decode() for value in x]
    assert text == ["abcdefghij"[label] for label in y]


def test_a_list_of_callbacks_of_keras_is_taken_as_it_is():
    callbacks = keras.callbacks.CallbackList([])
    given = {"x": ROWS, "y": ROWS, "callbacks": callbacks}
    shuffle_each_epoch(given)
    assert given["callbacks"] is callbacks
    first = batches_in(given)[0][0]
    callbacks.on_epoch_begin(1)
    second = batches_in(given)[0][0]
    assert first.tolist() != second.tolist()
    shuffle_each_epoch({"x": ROWS, "y": ROWS, "callbacks": callbacks})
    orders = [x for x in callbacks.callbacks if isinstance(x, EpochOrder)]
    assert len(orders) == 1


@pytest.mark.parametrize("arguments", [{}, {"within_batches": True}], ids=str)
def test_a_dataset_has_the_same_batches(arguments):
    batches = ShuffledBatches((ROWS,), 4, seed=0, steps=5, **arguments)
    dataset = batches.as_dataset()
    for epoch in (0, 1):
        batches.begin(epoch)
        found = [x.numpy().tolist() for (x,) in dataset]
        assert found == [batches[i][0].tolist() for i in range(5)]
    assert int(dataset.cardinality()) == 5


@pytest.mark.parametrize("weights", [None, {0: 1.0, 1: 3.0}], ids=str)
def test_class_weights_weigh_as_in_keras(weights):
    losses = []
    for shuffles in (False, True):
        given = {"x": ROWS, "y": np.arange(10) % 2, "batch_size": 10}
        if shuffles:
            given |= {"class_weight": weights}
            shuffle_each_epoch(given)
            del given["class_weight"]
        model = small_model(0)
        model.compile(
            "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        run = model.fit(**given, class_weight=weights, verbose=0)
        losses += run.history["loss"]
    assert losses[0] == pytest.approx(losses[1])


def test_validation_has_its_own_batch_size():
    given = {"x": ROWS, "validation_data": (ROWS, ROWS)}
    shuffle_each_epoch(given)
    assert given["validation_batch_size"] is None
    given = {"x": ROWS, "batch_size": 5, "validation_data": (ROWS, ROWS)}
    shuffle_each_epoch(given)
    assert given["validation_batch_size"] == 5


def test_batches_of_one_epoch_may_be_read_in_any_order():
    batches = ShuffledBatches((ROWS,), 4, seed=0, steps=6)
    forward = [batches[i][0].tolist() for i in range(6)]
    backward = [batches[i][0].tolist() for i in reversed(range(6))]
    assert forward == backward[::-1]


class Table:
    """What a pandas DataFrame or Series is to Keras."""

    iloc = None

    def __init__(self, values):
        self.values = np.array(values)

    def __array__(self, dtype=None, copy=None):
        return self.values


@pytest.mark.parametrize(
    "make",
    [Table, tf.constant, keras.Variable],
    ids=["table", "tensor", "variable"],
)
def test_tables_and_tensors_are_shuffled_too(make):
    given = {"x": make(ROWS), "y": make(np.arange(10.0))}
    shuffle_each_epoch(given)
    x, y = batches_in(given)[0]
    assert y.shape == ((10, 1) if make is Table else (10,))
    np.testing.assert_array_equal(x[:, 0], np.ravel(y))
