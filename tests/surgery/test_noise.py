"""Constants that meet the noise of training, on their way into a bias."""

import keras
import numpy as np
import pytest
from helpers import error_of_removal, float64, randomize, to_numpy

from keras_kddp.surgery import ChannelGraph, remove_units
from keras_kddp.surgery.folding import Folding, fold_constants
from keras_kddp.surgery.rule import Precision

layers = keras.layers
HELD = 0.5


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


def dense_with(*middle) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="fc"),
            *middle,
            layers.Dense(2),
        ]
    )


def images_with(*middle, padding="valid") -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Conv2D(3, 2, name="fc"),
            *middle,
            layers.Conv2D(2, 2, padding=padding, name="next"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def joined(join, first, second=None) -> keras.Model:
    """Two layers side by side; the second is behind noise if it is given."""
    x = keras.Input((2,))
    left = first(layers.Dense(3, name="fc")(x))
    right = layers.Dense(3, name="other")(x)
    right = second(right) if second else right
    return keras.Model(x, layers.Dense(2)(join([left, right])))


def folded(model, held=HELD, **other) -> Folding:
    """Returns how unit 1 of `fc` folds while training."""
    graph = ChannelGraph(model)
    units = {"fc": [1], **other}
    groups = {
        int(graph.group_numbers[graph.units[name][unit]])
        for name, indices in units.items()
        for unit in indices
    }
    constants = {name: {1: held} for name in units}
    return fold_constants(graph, groups, constants, training=True)


def precision_of(folding: Folding) -> Precision:
    assert folding.refusals == {}
    return max(folding.precisions.values(), default=Precision.EXACT)


def noise_of(kind):
    return {
        "Dropout": layers.Dropout,
        "GaussianDropout": layers.GaussianDropout,
        "GaussianNoise": layers.GaussianNoise,
        "SpatialDropout2D": layers.SpatialDropout2D,
    }[kind](0.4)


LINEAR = {
    "another noise": lambda: [layers.GaussianNoise(0.1), layers.Dropout(0.2)],
    "rescaling": lambda: [layers.Rescaling(2.0, offset=1.0)],
    "identity": lambda: [layers.Identity()],
    "frozen": lambda: [layers.BatchNormalization(trainable=False)],
}
LINEAR_IN_IMAGES = {
    **LINEAR,
    "average": lambda: [layers.AveragePooling2D(2, strides=1)],
    "crop": lambda: [layers.Cropping2D(1), layers.UpSampling2D(2)],
    "depthwise": lambda: [layers.DepthwiseConv2D(2)],
    "permute": lambda: [layers.Permute((2, 1, 3))],
}


@pytest.mark.parametrize("kind", ["Dropout", "GaussianDropout"])
@pytest.mark.parametrize(
    ("held", "precision"),
    [(0.0, Precision.EXACT), (HELD, Precision.ON_AVERAGE)],
)
def test_factors_leave_a_zero_alone_and_keep_the_mean_of_the_rest(
    kind, held, precision
):
    folding = folded(dense_with(noise_of(kind)), held)
    assert precision_of(folding) is precision


@pytest.mark.parametrize("held", [0.0, HELD])
def test_added_noise_has_a_mean_too(held):
    folding = folded(dense_with(layers.GaussianNoise(0.1)), held)
    assert precision_of(folding) is Precision.ON_AVERAGE


@pytest.mark.parametrize(
    "kind", ["Dropout", "GaussianDropout", "GaussianNoise"]
)
def test_noise_that_is_switched_off_is_exact(kind):
    layer = getattr(layers, kind)(0.0)
    assert precision_of(folded(dense_with(layer))) is Precision.EXACT


@pytest.mark.parametrize("middle", LINEAR)
@pytest.mark.parametrize("kind", ["Dropout", "GaussianNoise"])
def test_a_mean_goes_through_what_is_linear(kind, middle):
    model = randomize(dense_with(noise_of(kind), *LINEAR[middle]()), 0)
    assert precision_of(folded(model)) is Precision.ON_AVERAGE
    assert error_of_removal(model, {"fc": [1]}, {"fc": {1: HELD}}) <= 1e-10


@pytest.mark.parametrize("middle", LINEAR_IN_IMAGES)
def test_a_mean_goes_through_what_is_linear_in_images(middle):
    noise = noise_of("SpatialDropout2D")
    model = images_with(noise, *LINEAR_IN_IMAGES[middle]())
    model = randomize(model, 0)
    assert precision_of(folded(model)) is Precision.ON_AVERAGE
    assert error_of_removal(model, {"fc": [1]}, {"fc": {1: HELD}}) <= 1e-10


@pytest.mark.parametrize("held", [0.0, HELD])
@pytest.mark.parametrize(
    "pooling", [layers.GlobalAveragePooling2D, layers.Flatten]
)
def test_a_mean_goes_to_the_head_of_an_image_classifier(pooling, held):
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Conv2D(3, 2, name="fc"),
            layers.GaussianNoise(0.1),
            pooling(),
            layers.Dense(2),
        ]
    )
    assert precision_of(folded(model, held)) is Precision.ON_AVERAGE


BENT = {
    "ReLU": lambda: layers.ReLU(),
    "Activation": lambda: layers.Activation("tanh"),
    "PReLU": lambda: layers.PReLU(),
    "MaxPooling2D": lambda: layers.MaxPooling2D(2, strides=1),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(2, activation="relu"),
}


@pytest.mark.parametrize("name", BENT)
@pytest.mark.parametrize(
    ("kind", "held"),
    [("SpatialDropout2D", HELD), ("GaussianNoise", 0.0), ("GaussianNoise", -9)],
)
def test_what_bends_behind_noise_refuses_and_is_named(name, kind, held):
    model = images_with(noise_of(kind), BENT[name]())
    (reason,) = folded(model, held).refusals.values()
    assert "the noise of training gives it another mean behind " in reason
    assert reason.endswith(f"({name})")


@pytest.mark.parametrize("name", BENT)
def test_a_zero_behind_dropout_goes_through_what_bends(name):
    model = images_with(noise_of("Dropout"), BENT[name]())
    assert precision_of(folded(model, 0.0)) is Precision.EXACT


def test_noise_does_not_help_a_constant_over_a_padded_border():
    model = images_with(noise_of("SpatialDropout2D"), padding="same")
    assert "pads with zeros" in next(iter(folded(model).refusals.values()))
    noise = layers.GaussianNoise(0.1)
    folding = folded(images_with(noise, padding="same"), 0.0)
    assert precision_of(folding) is Precision.ON_AVERAGE  # its mean is 0


def test_means_stand_side_by_side_and_add_up():
    side_by_side = joined(layers.Concatenate(), noise_of("Dropout"))
    assert precision_of(folded(side_by_side)) is Precision.ON_AVERAGE
    for join in (layers.Add(), layers.Average(), layers.Subtract()):
        noises = noise_of("Dropout"), noise_of("GaussianNoise")
        folding = folded(joined(join, *noises), other=[1])
        assert precision_of(folding) is Precision.ON_AVERAGE


@pytest.mark.parametrize("join", [layers.Multiply, layers.Maximum])
def test_products_and_extremes_of_noise_are_refused(join):
    noises = noise_of("Dropout"), noise_of("GaussianNoise")
    folding = folded(joined(join(), *noises), other=[1])
    (reason,) = folding.refusals.values()
    assert f"another mean behind {join.__name__.lower()}" in reason


def test_noise_times_a_number_keeps_its_mean():
    x = keras.Input((2,))
    noisy = noise_of("Dropout")(layers.Dense(3, name="fc")(x))
    scaled = keras.ops.mean(
        keras.ops.expand_dims(-(noisy * 0.5) - 1, 1), axis=1
    )
    model = randomize(keras.Model(x, layers.Dense(2)(scaled)), 0)
    assert precision_of(folded(model)) is Precision.ON_AVERAGE
    assert error_of_removal(model, {"fc": [1]}, {"fc": {1: HELD}}) <= 1e-10


def test_noise_divided_by_a_number_keeps_its_mean():
    x = keras.Input((2,))
    noisy = noise_of("Dropout")(layers.Dense(3, name="fc")(x))
    model = randomize(keras.Model(x, layers.Dense(2)(noisy / 4.0)), 0)
    assert precision_of(folded(model)) is Precision.ON_AVERAGE
    assert error_of_removal(model, {"fc": [1]}, {"fc": {1: HELD}}) <= 1e-10


@pytest.mark.parametrize(
    "divide",
    [lambda noisy, other: 4.0 / noisy, lambda noisy, other: noisy / other],
    ids=["of a number", "by a tensor"],
)
def test_other_divisions_behind_noise_are_refused(divide):
    x = keras.Input((2,))
    noisy = noise_of("Dropout")(layers.Dense(3, name="fc")(x))
    other = keras.ops.sum(keras.ops.exp(x), axis=1, keepdims=True)
    model = keras.Model(x, layers.Dense(2)(divide(noisy, other)))
    (reason,) = folded(model).refusals.values()
    assert "divide" in reason


def test_rate_one_has_another_mean_than_inference():
    folding = folded(dense_with(layers.Dropout(1.0)))
    assert "no constant behind" in next(iter(folding.refusals.values()))
    assert precision_of(folded(dense_with(layers.Dropout(1.0)), 0.0)) == 0


@pytest.mark.parametrize(
    "kind", ["Dropout", "GaussianDropout", "GaussianNoise"]
)
def test_the_mean_over_the_noise_is_that_of_the_smaller_model(kind):
    keras.utils.set_random_seed(0)
    model = randomize(dense_with(noise_of(kind)), 0)
    model.layers[0].kernel.assign(np.zeros((2, 3)))  # always the same units
    model.layers[0].bias.assign([0.0, HELD, 0.0])
    smaller = remove_units(model, {"fc": [1]}, constants={"fc": {1: HELD}})
    rows = np.ones((40_000, 2))
    drawn = to_numpy(model(rows, training=True))
    error = drawn.std(axis=0) / np.sqrt(len(rows))
    expected = to_numpy(smaller(rows[:1]))[0]
    assert (np.abs(drawn.mean(axis=0) - expected) <= 4 * error).all()


def normalized(moving_mean: float, *noise) -> keras.Model:
    """fc, a branch, and a normalization of variance 4 - epsilon."""
    x = keras.Input((2,))
    hidden = layers.Dense(3, name="fc")(x)
    normalize = layers.BatchNormalization(epsilon=0.001)
    y = hidden
    for layer in (*noise, normalize):
        y = layer(y)
    model = keras.Model(x, [layers.Dense(2)(hidden), layers.Dense(2)(y)])
    normalize.moving_mean.assign([0.0, moving_mean, 0.0])
    normalize.moving_variance.assign([4 - 0.001] * 3)
    return model


@pytest.mark.parametrize(
    ("moving_mean", "precision"),
    [
        (HELD, Precision.EXACT),
        (HELD + 2 * 0.04, Precision.NEARLY),  # 0.04 of the deviation 2
        (HELD - 2 * 0.04, Precision.NEARLY),
    ],
)
def test_a_normalization_that_has_settled_agrees(moving_mean, precision):
    model = normalized(moving_mean)
    assert precision_of(folded(model)) is precision
    assert error_of_removal(model, {"fc": [1]}, {"fc": {1: HELD}}) <= 1e-10


def test_a_normalization_that_lags_behind_is_refused_for_now():
    folding = folded(normalized(HELD + 2 * 0.06))
    (reason,) = folding.refusals.values()
    assert reason.endswith("is 0 in training and -0.06 at inference")
    assert folding.unsettled == set(folding.refusals)


def test_what_noise_forbids_is_refused_for_good():
    folding = folded(images_with(noise_of("GaussianNoise"), layers.ReLU()))
    assert folding.refusals and not folding.unsettled


def test_noise_in_front_of_a_settled_normalization_is_a_mean():
    model = normalized(HELD, noise_of("GaussianNoise"))
    assert precision_of(folded(model)) is Precision.ON_AVERAGE
