"""The statistics of the units, by hand, over every kind of data."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import variable_values

from keras_kddp import UnitActivity, collect_activity, prepare
from keras_kddp.data.batches import are_arrays
from keras_kddp.pruning.activity import sampled
from keras_kddp.surgery import ChannelGraph

ROWS = np.array([[1.0, -2.0], [3.0, 0.0], [2.0, -4.0], [-6.0, 0.0]])


def readout(*layers, name="fc"):
    """Returns a model whose layer `name` hands its two inputs on."""
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(2, name=name, kernel_initializer="identity"),
            *layers,
            keras.layers.Dense(1, name="out"),
        ]
    )


def values(statistics):
    """Returns the statistics as plain numbers."""
    names = ("minimum", "maximum", "mean", "mean_abs", "variance")
    found = {name: getattr(statistics, name).tolist() for name in names}
    return {
        **found,
        "zero_fraction": statistics.zero_fraction.tolist(),
        "count": statistics.count,
    }


EXPECTED = {
    "minimum": [-6.0, -4.0],
    "maximum": [3.0, 0.0],
    "mean": [(1 + 3 + 2 - 6) / 4, (-2 - 4) / 4],
    "mean_abs": [(1 + 3 + 2 + 6) / 4, (2 + 4) / 4],
    "variance": [(1 + 9 + 4 + 36) / 4 - 0**2, (4 + 16) / 4 - 1.5**2],
    "zero_fraction": [0 / 4, 2 / 4],
    "count": 4,
}


def test_the_statistics_of_a_dense_layer_are_those_of_its_units_over_rows():
    activity = collect_activity(readout(), ROWS)

    assert list(activity) == ["fc"]
    assert isinstance(activity["fc"], UnitActivity)
    assert values(activity["fc"]) == EXPECTED


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_the_batch_size_does_not_change_the_statistics(batch_size):
    activity = collect_activity(readout(), ROWS, batch_size=batch_size)

    assert values(activity["fc"]) == EXPECTED


def test_activity_is_observed_behind_the_activation():
    activity = collect_activity(readout(keras.layers.ReLU()), ROWS)["fc"]

    assert activity.mean.tolist() == [(1 + 3 + 2 + 0) / 4, 0]
    assert activity.zero_fraction.tolist() == [1 / 4, 4 / 4]
    assert activity.live.tolist() == [True, False]


def test_a_unit_that_only_falls_below_zero_is_live():
    activity = collect_activity(readout(), [[0.0, -1.0]] * np.ones((2, 2)))

    assert activity["fc"].live.tolist() == [False, True]


def test_activity_is_observed_before_the_dropout():
    dropped = readout(keras.layers.Dropout(0.5), keras.layers.Dropout(0.5))

    assert values(collect_activity(dropped, ROWS)["fc"]) == EXPECTED


def test_the_filters_of_a_convolution_are_observed_over_all_positions():
    model = keras.Sequential(
        [
            keras.Input((2, 2, 2)),
            keras.layers.Conv2D(2, 1, name="conv"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    kernel = model.get_layer("conv").kernel
    kernel.assign(np.eye(2).reshape(1, 1, 2, 2))

    activity = collect_activity(model, ROWS.reshape(1, 2, 2, 2))

    assert values(activity["conv"]) == EXPECTED


def test_a_shared_layer_is_observed_over_all_its_calls():
    inputs = [keras.Input((2,)), keras.Input((2,))]
    layer = keras.layers.Dense(2, name="fc", kernel_initializer="identity")
    outputs = [keras.layers.Dense(1)(layer(x)) for x in inputs]
    model = keras.Model(inputs, keras.layers.Add()(outputs))

    activity = collect_activity(model, [ROWS[:2], ROWS[2:]])

    assert values(activity["fc"]) == EXPECTED


def test_partners_are_observed_where_they_meet():
    pixels = keras.Input((2,))
    identity = {"kernel_initializer": "identity"}
    left = keras.layers.Dense(2, name="left", **identity)(pixels)
    right = keras.layers.Dense(2, name="right", **identity)(pixels)
    outputs = keras.layers.Dense(1)(keras.layers.Add()([left, right]))

    activity = collect_activity(keras.Model(pixels, outputs), ROWS)

    assert activity["left"].maximum.tolist() == [3 + 3, 0]
    assert activity["right"].maximum.tolist() == [3 + 3, 0]


def test_a_prepared_student_is_observed_where_it_is_charged():
    student = readout(keras.layers.Dropout(0.5))

    activity = collect_activity(prepare(student), ROWS)

    assert values(activity["fc"]) == EXPECTED


def test_nothing_is_observed_of_a_model_without_removable_units():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])

    assert collect_activity(model, ROWS) == {}


def test_observing_leaves_the_model_as_it_was():
    model = readout(
        keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)
    )
    before = variable_values(model)

    collect_activity(model, ROWS)

    for now, then in zip(variable_values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_sums_of_half_precision_activations_do_not_overflow():
    model = readout()
    half = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(2, name="fc", dtype="mixed_float16"),
            keras.layers.Dense(1),
        ]
    )
    half.set_weights(model.get_weights())

    activity = collect_activity(half, np.full((200, 2), 60_000.0))["fc"]

    assert activity.mean.tolist() == [60_000, 60_000]
    assert activity.variance.tolist() == [0, 0]


class Batches(keras.utils.PyDataset):
    """Two batches, and an error beyond them."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return [(ROWS[:3], None), (ROWS[3:], None)][index]


DATA = {
    "array": lambda: ROWS,
    "tensor": lambda: tf.constant(ROWS),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices(ROWS).batch(3),
    "dataset with labels": lambda: tf.data.Dataset.from_tensor_slices(
        (ROWS, np.arange(4))
    ).batch(3),
    "dataset with weights": lambda: tf.data.Dataset.from_tensor_slices(
        (ROWS, np.arange(4), np.ones(4))
    ).batch(3),
    "PyDataset": Batches,
    "generator": lambda: (batch for batch in [(ROWS[:3],), (ROWS[3:],)]),
}


@pytest.mark.parametrize("kind", DATA)
def test_any_data_that_ends_can_be_observed(kind):
    activity = collect_activity(readout(), DATA[kind]())

    assert values(activity["fc"]) == EXPECTED


def two_inputs():
    """Two inputs, taken as a dict."""
    inputs = {name: keras.Input((1,), name=name) for name in ("b", "a")}
    hidden = [
        keras.layers.Dense(2, name=f"{name}_fc", kernel_initializer="ones")(x)
        for name, x in inputs.items()
    ]
    outputs = [keras.layers.Dense(1)(x) for x in hidden]
    return keras.Model(inputs, keras.layers.Add()(outputs))


COLUMNS = {"a": ROWS[:, :1], "b": ROWS[:, 1:]}


@pytest.mark.parametrize(
    "data",
    [COLUMNS, tf.data.Dataset.from_tensor_slices(COLUMNS).batch(3)],
    ids=["arrays", "dataset"],
)
def test_the_inputs_may_come_in_a_dict(data):
    activity = collect_activity(two_inputs(), data)

    assert activity["a_fc"].maximum.tolist() == [3, 3]
    assert activity["b_fc"].minimum.tolist() == [-4, -4]


@pytest.mark.parametrize(
    "data", [ROWS[:0], [], (), tf.data.Dataset.from_tensor_slices(ROWS).take(0)]
)
def test_no_data_is_refused(data):
    with pytest.raises(ValueError, match="`data` must hold at least one exa"):
        collect_activity(readout(), data)


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="the subclassed model Subclassed"):
        collect_activity(Subclassed(), ROWS)


@pytest.mark.parametrize(
    ("samples", "rows"),
    [(1, [0]), (2, [0, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (9, range(4))],
)
def test_samples_of_arrays_are_evenly_spaced_rows(samples, rows):
    part = sampled(ChannelGraph(readout()), ROWS, samples)

    np.testing.assert_array_equal(part, ROWS[list(rows)])


def test_all_inputs_are_sampled_at_the_same_rows():
    part = sampled(ChannelGraph(two_inputs()), COLUMNS, 2)

    assert part["a"].tolist() == [[1], [-6]]
    assert part["b"].tolist() == [[-2], [0]]


def test_samples_of_an_iterable_are_its_first_batches_each_time():
    data = tf.data.Dataset.from_tensor_slices(ROWS).batch(1)

    part = sampled(ChannelGraph(readout()), data, 3)

    for _ in range(2):
        rows = np.concatenate([batch.numpy() for batch in part])
        np.testing.assert_array_equal(rows, ROWS[:3])


def test_samples_of_several_inputs_stay_together():
    pairs = tf.data.Dataset.from_tensor_slices((ROWS[:, :1], ROWS[:, 1:]))
    data = tf.data.Dataset.zip(pairs, pairs.map(lambda a, b: a)).batch(3)
    inputs = [keras.Input((1,)), keras.Input((1,))]
    layers = [keras.layers.Dense(2, name=name) for name in ("a", "b")]
    hidden = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
    outputs = [keras.layers.Dense(1)(x) for x in hidden]
    model = keras.Model(inputs, keras.layers.Add()(outputs))

    part = sampled(ChannelGraph(model), data, 4)

    assert collect_activity(model, part)["a"].count == 4


@pytest.mark.parametrize(
    "data", [iter([ROWS]), (batch for batch in [ROWS]), 5, None]
)
def test_data_that_cannot_be_read_twice_are_refused(data):
    message = "an iterable of batches that can be run through again"
    with pytest.raises(ValueError, match=message):
        sampled(ChannelGraph(readout()), data, 4)


@pytest.mark.parametrize(
    "data",
    [ROWS[:, :1], (ROWS, np.arange(4)), ROWS[:0], [], ROWS.tolist(), "rows"],
    ids=["too narrow", "labels", "empty", "no batches", "a list", "text"],
)
def test_data_that_are_no_inputs_of_the_student_are_refused(data):
    message = r"`data` must hold inputs of the student, \[\(None, 2\)\]"
    with pytest.raises(ValueError, match=message):
        sampled(ChannelGraph(readout()), data, 4)


def test_arrays_are_told_from_iterables():
    dataset = tf.data.Dataset.from_tensor_slices(ROWS)

    assert all(map(are_arrays, [ROWS, COLUMNS, [ROWS], tf.constant(ROWS)]))
    assert not any(map(are_arrays, [dataset, Batches(), [], iter([ROWS])]))


def listed_inputs():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    x = keras.layers.Dense(3, name="fc")(keras.layers.Add()([a, b]))
    return keras.Model([a, b], keras.layers.Dense(2)(x))


@pytest.mark.parametrize("rows", [(4, 1), (1, 4), (3, 4)])
def test_inputs_of_different_lengths_are_refused(rows):
    data = [np.ones((count, 2), "float32") for count in rows]
    with pytest.raises(ValueError, match="all of the same length"):
        collect_activity(listed_inputs(), data)


@pytest.mark.parametrize("batch_size", [0, -5, 2.5])
def test_a_batch_size_that_is_none_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size=.*|must be an integer"):
        collect_activity(
            listed_inputs(), [np.ones((4, 2))] * 2, batch_size=batch_size
        )


@pytest.mark.parametrize("data", [None, 5])
def test_data_that_are_none_are_refused(data):
    with pytest.raises(ValueError, match="must be arrays, or an iterable"):
        collect_activity(listed_inputs(), data)
