"""Small models, and layers without a rule, that several tests ask for."""

import keras
import numpy as np
from helpers import randomize

layers = keras.layers


def dense_model() -> keras.Sequential:
    """fc = [[1, 2, 3], [4, 5, 6]] x + [7, 8, 9]; head = [10, 20, 30] fc + 1."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="fc"),
            layers.Dense(1, name="head"),
        ]
    )
    model.set_weights(
        [
            np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
            np.array([7.0, 8.0, 9.0]),
            np.array([[10.0], [20.0], [30.0]]),
            np.array([1.0]),
        ]
    )
    return model


def image_model(*middle: keras.layers.Layer) -> keras.Sequential:
    """A convolution `conv`, what a test is about, and a Dense `head`."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Conv2D(3, 2, name="conv"),
            *middle,
            layers.Flatten(name="flatten"),
            layers.Dense(2, name="head"),
        ]
    )
    return randomize(model, seed=1)


def residual_model() -> keras.Model:
    """relu(first(x) + second(first(x))), then `inner` and `head`."""
    x = keras.Input((2,), name="x")
    trunk = layers.Dense(3, name="first")(x)
    branch = layers.Dense(3, name="second")(trunk)
    total = layers.ReLU(name="relu")(layers.Add(name="add")([trunk, branch]))
    inner = layers.Dense(4, activation="relu", name="inner")(total)
    return randomize(
        keras.Model(x, layers.Dense(2, name="head")(inner)), seed=1
    )


def model_with_late_normalization(**options) -> keras.Model:
    """fc is read by `other` and by `bn`, whose shift reaches `reader`.

    Held at 0, unit 0 leaves (0 - 1) / 2 * 3 + 5 = 3.5 behind bn; in training
    only the shift 5.
    """
    x = keras.Input((2,))
    hidden = layers.Dense(2, name="fc")(x)
    normalized = layers.BatchNormalization(epsilon=0.001, name="bn")(
        hidden, training=options.get("bn_training")
    )
    if "dropout" in options:
        normalized = layers.Dropout(options["dropout"], name="drop")(normalized)
    reader = layers.Dense(
        1,
        use_bias=options.get("use_bias", True),
        bias_initializer=options.get("bias_initializer", "zeros"),
        bias_constraint=options.get("bias_constraint"),
        name="reader",
    )
    model = keras.Model(
        x, [reader(normalized), layers.Dense(1, name="other")(hidden)]
    )
    randomize(model, seed=1)
    bn = model.get_layer("bn")
    bn.moving_mean.assign([1.0, 0.0])
    bn.moving_variance.assign([4 - 0.001, 1.0])
    bn.gamma.assign([3.0, 1.0])
    bn.beta.assign([5.0, 0.0])
    reader.kernel.assign([[10.0], [1.0]])
    if reader.use_bias:
        reader.bias.assign([7.0])
    return model


def small_model(**options) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activation="relu", name="fc"),
            layers.Dense(2, name="out"),
        ],
        **options,
    )


class Doubling(layers.Layer):
    """A layer of somebody else's, without a rule."""

    def call(self, inputs):
        return 2 * inputs


class RenamedDense(layers.Dense):
    """Only another name: it computes what Dense computes."""


def randomized_model(shape, make, seed=1) -> keras.Model:
    """Returns a model with random weights; `make` maps input to output."""
    x = keras.Input(shape, name="x")
    return randomize(keras.Model(x, make(x)), seed)
