"""Padding counts for a unit's activity only where something reads it."""

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_kddp import collect_activity, remove_units
from keras_kddp.pruning.activity import sampled
from keras_kddp.surgery import ChannelGraph

# Some layers warn that they hand no mask on.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Layer .* was passed an input with a mask"
)
layers = keras.layers
IDS = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [1, 3, 2, 0]])
# Unit 2 fires at id 0, the padding, and at nothing else.
VECTORS = np.array([[9.0, 9, 9], [1, 2, 0], [3, 0, 0], [-5, 1, 0]])
VALID = VECTORS[IDS[IDS > 0]]


def embedded(*following, name=None, length=None):
    """Returns a model that looks up three units and hands them on."""
    inputs = keras.Input((length,), name="ids")
    x = layers.Embedding(4, 3, mask_zero=True, name="units")(inputs)
    for layer in following:
        x = layer(x)
    model = keras.Model(inputs, x, name=name)
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    model.get_layer("units").set_weights([VECTORS])
    return model


def statistics(activity):
    return np.stack(
        [
            *[activity.minimum, activity.maximum, activity.mean],
            *[activity.mean_abs, activity.variance, activity.zero_fraction],
        ]
    )


EXPECTED = np.stack(
    [
        *[VALID.min(axis=0), VALID.max(axis=0), VALID.mean(axis=0)],
        np.abs(VALID).mean(axis=0),
        VALID.var(axis=0),
        (VALID == 0).mean(axis=0),
    ]
)

HONOURING = {
    "the output": lambda: [layers.Dense(2)],
    "average": lambda: [layers.Dense(4), layers.GlobalAveragePooling1D()],
    "activation and dropout": lambda: [
        layers.Dense(4, "tanh"),
        layers.LeakyReLU(),
        layers.Dropout(0.5),
        layers.GlobalAveragePooling1D(),
    ],
    "normalization": lambda: [
        layers.Dense(4),
        layers.LayerNormalization(),
        layers.UnitNormalization(),
        layers.GlobalAveragePooling1D(),
    ],
    "lstm": lambda: [layers.Dense(4), layers.LSTM(2)],
    "sequence of lstm": lambda: [
        layers.Dense(4),
        layers.LSTM(2, return_sequences=True),
        lambda x: keras.ops.sum(x, axis=1),
    ],
    "gru in both directions": lambda: [
        layers.Dense(4),
        layers.Bidirectional(layers.GRU(2)),
    ],
}


@pytest.mark.parametrize("kind", HONOURING)
def test_padding_that_nothing_reads_is_left_out(kind):
    model = embedded(*HONOURING[kind]())

    activity = collect_activity(model, IDS, batch_size=2)["units"]

    np.testing.assert_allclose(statistics(activity), EXPECTED)
    assert (activity.count, activity.examples) == (2 + 1 + 3, 3)
    assert activity.live.tolist() == [True, True, False]


@pytest.mark.parametrize("kind", HONOURING)
def test_longer_padding_changes_nothing(kind):
    model = embedded(*HONOURING[kind]())
    longer = np.pad(IDS, ((0, 0), (0, 5)))

    first, second = (
        collect_activity(model, ids)["units"] for ids in (IDS, longer)
    )

    np.testing.assert_array_equal(statistics(first), statistics(second))
    assert first.count == second.count


@pytest.mark.parametrize("kind", HONOURING)
def test_a_unit_that_fires_at_padding_alone_leaves_the_outputs(kind):
    model = embedded(*HONOURING[kind]())
    smaller = remove_units(model, {"units": [2]})

    outputs, fewer = to_numpy(model(IDS)), to_numpy(smaller(IDS))

    if kind == "the output":  # whose losses leave the padding out
        outputs, fewer = outputs[IDS > 0], fewer[IDS > 0]
    np.testing.assert_allclose(fewer, outputs, rtol=1e-5, atol=1e-6)


READING = {
    "operation": lambda: [
        lambda x: x * 2.0,
        layers.GlobalAveragePooling1D(),
        layers.Dense(2),
    ],
    "convolution": lambda: [
        layers.Conv1D(2, 2, padding="same"),
        layers.GlobalAveragePooling1D(),
    ],
    "normalization over steps": lambda: [
        layers.Dense(2),
        layers.LayerNormalization(axis=1),
        layers.GlobalAveragePooling1D(),
    ],
    "maximum": lambda: [layers.GlobalMaxPooling1D(), layers.Dense(2)],
    "sum": lambda: [
        layers.Dense(2),
        lambda x: keras.ops.sum(x, axis=1),
    ],
}


@pytest.mark.parametrize(
    "kind",
    [
        # On torch Keras normalizes over the last axes alone.
        pytest.param(kind, marks=[pytest.mark.no_torch] * ("over" in kind))
        for kind in READING
    ],
)
def test_padding_that_something_reads_counts(kind):
    scale = 2 if kind == "operation" else 1  # activity is observed behind it
    model = embedded(*READING[kind](), length=4)

    activity = collect_activity(model, IDS)["units"]

    assert (activity.count, activity.examples) == (12, 3)
    assert activity.live.tolist() == [True, True, True]
    assert activity.maximum.tolist() == [scale * 9] * 3
    smaller = remove_units(model, {"units": [2]})
    assert np.abs(to_numpy(smaller(IDS)) - to_numpy(model(IDS))).max() > 0.01


def joined(second):
    """Returns a model that adds two sequences, and the average of the sum."""
    first, other = keras.Input((None,)), keras.Input((None,))
    x = layers.Embedding(4, 3, mask_zero=True, name="units")(first)
    y = second(other)
    sums = layers.Add()([x, y])
    outputs = layers.GlobalAveragePooling1D()(layers.Dense(2)(sums))
    model = keras.Model([first, other], outputs)
    model.get_layer("units").set_weights([VECTORS])
    return model


def test_a_step_counts_where_another_sequence_unmasks_it():
    # Keras adds two masked sequences and goes on where either has a step.
    model = joined(layers.Embedding(4, 3, mask_zero=True, name="other"))
    model.get_layer("other").set_weights([VECTORS])

    activity = collect_activity(model, [IDS, np.flip(IDS, axis=0)])["units"]

    either = (IDS > 0) | (np.flip(IDS, axis=0) > 0)
    sums = (VECTORS[IDS] + VECTORS[np.flip(IDS, axis=0)])[either]
    assert activity.count == either.sum() == 3 + 1 + 3
    assert activity.maximum.tolist() == sums.max(axis=0).tolist()


def test_all_steps_count_where_the_other_sequence_has_no_mask():
    model = joined(layers.Embedding(4, 3, name="other"))

    assert collect_activity(model, [IDS, IDS])["units"].count == 12


def test_every_reader_has_to_leave_padding_out():
    inputs = keras.Input((None,))
    x = layers.Embedding(4, 3, mask_zero=True, name="units")(inputs)
    averaged = layers.GlobalAveragePooling1D()(layers.Dense(4)(x))
    summed = layers.Dense(3)(keras.ops.sum(x, axis=1))
    model = keras.Model(inputs, [averaged, summed])

    assert collect_activity(model, IDS)["units"].count == 12


def test_an_example_of_padding_alone_is_not_counted():
    model = embedded(layers.Dense(2))
    with_empty = np.concatenate([IDS, np.zeros((2, 4), int)])

    activity = collect_activity(model, with_empty, batch_size=3)["units"]

    assert (activity.count, activity.examples) == (6, 3)
    np.testing.assert_allclose(statistics(activity), EXPECTED)


def test_data_of_padding_alone_is_refused():
    model = embedded(layers.Dense(2))

    with pytest.raises(ValueError, match="one step that is no padding"):
        collect_activity(model, np.zeros((2, 4), int))


def test_data_may_begin_with_padding_alone():
    model = embedded(layers.Dense(2))
    data = np.concatenate([np.zeros((1, 4), int), IDS])

    part = sampled(ChannelGraph(model), data, 100)

    assert collect_activity(model, part)["units"].count == 6


def test_a_mask_may_come_from_the_values():
    inputs = keras.Input((None, 2))
    x = layers.Masking(0.0)(inputs)
    x = layers.Dense(2, name="fc", kernel_initializer="identity")(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.get_layer("fc").bias.assign([0.0, 5.0])

    steps = np.array([[[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]]])
    activity = collect_activity(model, steps)["fc"]

    assert activity.count == 2
    assert activity.minimum.tolist() == [1, 5 + 0]
    assert activity.mean.tolist() == [(1 + 3) / 2, 5 + (2 + 0) / 2]
