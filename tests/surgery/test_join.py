"""Removal through Concatenate and one-dimensional convolutions."""

import keras
import numpy as np
import pytest
from helpers import (
    float64,
    held_outputs,
    outputs_of,
    random_inputs,
    randomize,
    relative_error,
)

from keras_kddp.surgery import SurgeryError, explain, remove_units, unit_groups

layers = keras.layers


@pytest.fixture(autouse=True)
def _in_float64():
    with float64():
        yield


def assert_exact(model, units, constants=None):
    """Checks a removal against the model that is held and never rebuilt."""
    randomize(model, 1)
    x = random_inputs(model, 2)
    smaller = remove_units(model, units, constants=constants)
    expected = held_outputs(model, units, x, constants)
    assert relative_error(outputs_of(smaller, x), expected) <= 1e-10
    assert relative_error(outputs_of(model, x), expected) > 1e-6  # not nothing
    return smaller


def joined(join, widths=(3, 4)):
    inputs = keras.Input((5,))
    parts = [
        layers.Dense(width, "relu", name=f"part{index}")(inputs)
        for index, width in enumerate(widths)
    ]
    return keras.Model(inputs, layers.Dense(2, name="out")(join(parts)))


@pytest.mark.parametrize(
    "join",
    [
        layers.Concatenate(),
        layers.Concatenate(axis=1),
        lambda parts: keras.ops.concatenate(parts, axis=1),
        lambda parts: keras.ops.concatenate(parts, axis=-1),
    ],
)
def test_joined_layers_shrink_each_by_itself(join):
    smaller = assert_exact(joined(join), {"part0": [1], "part1": [0, 3]})
    assert smaller.get_layer("out").kernel.shape == (2 + 2, 2)


def test_constants_fold_through_a_join():
    model = joined(layers.Concatenate())
    constants = {"part0": {1: 0.5}, "part1": {0: -2.0, 3: 1.0}}
    assert_exact(model, {"part0": [1], "part1": [0, 3]}, constants)


def test_a_tensor_may_be_joined_to_itself():
    model = joined(lambda parts: layers.Concatenate()([*parts, parts[0]]))
    smaller = assert_exact(model, {"part0": [2]})
    assert smaller.get_layer("out").kernel.shape == (2 + 4 + 2, 2)


def test_a_join_of_images_reaches_every_consumer():
    inputs = keras.Input((6, 6, 2))
    parts = [
        layers.Conv2D(3, 3, padding="same", name=name)(inputs) for name in "ab"
    ]
    both = layers.BatchNormalization()(layers.Concatenate()(parts))
    heads = [
        layers.Dense(2)(layers.Flatten()(layers.ReLU()(both))),
        layers.Dense(2)(layers.GlobalAveragePooling2D()(both)),
    ]
    groups = unit_groups(keras.Model(inputs, heads))
    assert sum(not group.reason for group in groups) == 3 + 3


def test_channels_joined_along_positions_leave_together():
    inputs = keras.Input((6, 2))
    parts = [layers.Conv1D(3, 3, name=name)(inputs) for name in ("a", "b")]
    both = layers.Concatenate(axis=1, name="join")(parts)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(both)))
    randomize(model, seed=1)
    with pytest.raises(SurgeryError, match=r"a\[0\], b\[0\] can only leave"):
        remove_units(model, {"a": [0]})
    x = random_inputs(model, seed=2)
    smaller = remove_units(model, {"a": [0], "b": [0]})
    expected = held_outputs(model, {"a": [0], "b": [0]}, x)
    assert relative_error(outputs_of(smaller, x), expected) <= 1e-6


def test_an_array_in_a_join_lets_nothing_through():
    inputs = keras.Input((4,), batch_size=2)
    part = layers.Dense(3, "relu", name="fc")(inputs)
    both = keras.ops.concatenate([part, np.ones((2, 1))], axis=-1)
    model = keras.Model(inputs, layers.Dense(2)(both))
    assert "joins an array to its inputs" in explain(model)


def sequence(padding, *between):
    return keras.Sequential(
        [
            keras.Input((9, 2)),
            layers.Conv1D(4, 3, padding=padding, activation="relu", name="one"),
            *between,
            layers.Conv1D(3, 2, padding=padding, name="two"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(2, name="out"),
        ]
    )


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_filters_of_one_dimension_are_removed(padding):
    between = [
        layers.BatchNormalization(center=False),
        layers.SpatialDropout1D(0.5),
        layers.ZeroPadding1D(1),
        layers.AveragePooling1D(2),
    ]
    model = sequence(padding, layers.MaxPooling1D(2))
    smaller = assert_exact(model, {"one": [0, 3], "two": [1]})
    assert smaller.get_layer("two").kernel.shape == (2, 2, 2)
    assert "one    4      4" in explain(sequence(padding, *between))


def test_constants_fold_into_a_valid_convolution():
    assert_exact(sequence("valid"), {"one": [2]}, {"one": {2: 0.75}})


@pytest.mark.parametrize("padding", ["same", "causal"])
def test_a_padded_convolution_refuses_a_constant(padding):
    message = rf"pads with zeros \(padding='{padding}'\)"
    with pytest.raises(SurgeryError, match=message):
        remove_units(
            sequence(padding), {"one": [2]}, constants={"one": {2: 0.7}}
        )


def test_an_inception_block_is_pruned_and_trains_on():
    inputs = keras.Input((8, 8, 1))
    branches = [
        layers.Conv2D(4, 1, activation="relu", name="narrow")(inputs),
        layers.Conv2D(4, 3, padding="same", activation="relu", name="wide")(
            inputs
        ),
        layers.MaxPooling2D(3, strides=1, padding="same")(inputs),
    ]
    x = layers.Concatenate()(branches)
    x = layers.Conv2D(4, 3, activation="relu", name="after")(x)
    x = layers.Dense(2)(layers.Flatten()(x))
    units = {"narrow": [0], "wide": [1, 2], "after": [3]}
    smaller = assert_exact(keras.Model(inputs, x), units)
    smaller.compile("sgd", "mse")
    loss = smaller.fit(
        np.ones((4, 8, 8, 1)), np.ones((4, 2)), verbose=0
    ).history["loss"]
    assert np.isfinite(loss).all()
