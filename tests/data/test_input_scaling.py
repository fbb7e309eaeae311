"""A model that scales its inputs gets them unscaled, or a warning."""

import warnings

import keras
import numpy as np
import pytest

from keras_kddp.data.input_scaling import warn_of_scaling

layers = keras.layers
PIXELS = np.arange(40 * 12).reshape(40, 4, 3, 1).astype("float32") % 256


def sequential(*first):
    return keras.Sequential(
        [
            keras.Input((4, 3, 1)),
            *first,
            layers.Flatten(),
            layers.Dense(2, name="fc"),
        ]
    )


def functional(first):
    inputs = keras.Input((4, 3, 1))
    x = layers.Flatten()(first(inputs))
    return keras.Model(inputs, layers.Dense(2, name="fc")(x))


def adapted(**options):
    layer = layers.Normalization(name="scaler", **options)
    layer.adapt(PIXELS)
    return layer


def nested():
    inner = [keras.Input((4, 3, 1)), layers.Rescaling(1 / 255, name="scaler")]
    return functional(keras.Sequential(inner, name="before"))


def behind_a_nested_model():
    inner = [keras.Input((4, 3, 1)), layers.Reshape((12,))]
    inside = keras.Sequential(inner, name="before")
    return functional(
        lambda x: layers.Rescaling(1 / 255, name="scaler")(inside(x))
    )


def made(name):
    rescaling = layers.Rescaling(1 / 255, name="scaler")
    return {
        "first": lambda: sequential(rescaling),
        "to -1": lambda: sequential(
            layers.Rescaling(1 / 127.5, offset=-1, name="scaler")
        ),
        "of channels": lambda: sequential(
            layers.Rescaling([1 / 255], [0.0], name="scaler")
        ),
        "behind others": lambda: sequential(
            layers.RandomFlip(),
            layers.ZeroPadding2D(),
            layers.Reshape((30,)),
            layers.Dropout(0.5),
            rescaling,
        ),
        "nested": nested,
        "behind a nested model": behind_a_nested_model,
        "division": lambda: functional(lambda x: x / 255.0),
        "product": lambda: functional(lambda x: 0.0039 * x),
        "lambda": lambda: sequential(
            layers.Lambda(lambda x: x / 255, name="scaler")
        ),
        "adapted": lambda: sequential(adapted()),
        "adapted as a whole": lambda: sequential(adapted(axis=None)),
        "half precision": lambda: sequential(
            layers.Rescaling(1 / 255, dtype="mixed_float16", name="scaler")
        ),
        "two inputs": lambda: two_inputs(rescaling),
    }[name]()


def two_inputs(rescaling):
    inputs = [keras.Input((4, 3, 1)), keras.Input((4, 3, 1))]
    both = layers.Concatenate()([inputs[0], rescaling(inputs[1])])
    outputs = layers.Dense(2, name="fc")(layers.Flatten()(both))
    return keras.Model(inputs, outputs)


KINDS = [
    *("first", "to -1", "of channels", "behind others", "nested"),
    *("behind a nested model", "division", "product", "lambda", "adapted"),
    *("adapted as a whole", "half precision", "two inputs"),
]


def given(kind, x):
    return [x, x] if kind == "two inputs" else x


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_were_scaled_before_warn(kind):
    model = made(kind)
    with pytest.warns(UserWarning, match="span 0 to 1 before the teacher's '"):
        warn_of_scaling(model, given(kind, PIXELS / 255), "teacher")


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_do_not_warn(kind):
    model = made(kind)
    before = model.get_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scaling(model, given(kind, PIXELS), "teacher")
    np.testing.assert_equal(model.get_weights(), before)


def test_the_warning_names_layer_and_model():
    with pytest.warns(UserWarning, match=r"the student's 'before/scaler' \(Re"):
        warn_of_scaling(nested(), PIXELS / 255, "student")


def test_pixels_far_from_what_a_layer_was_adapted_to_warn():
    layer = layers.Normalization(name="scaler")
    layer.adapt(PIXELS / 255)
    with pytest.warns(UserWarning, match=r"'scaler' \(Normalization\)"):
        warn_of_scaling(sequential(layer), PIXELS, "teacher")


def test_pixels_that_never_varied_say_nothing_of_the_range():
    seen = PIXELS.copy()
    seen[:, 0] = 0
    layer = layers.Normalization(axis=(1, 2, 3), name="scaler")
    layer.adapt(seen)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scaling(sequential(layer), PIXELS, "teacher")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(sequential(), id="no scaling"),
        pytest.param(
            sequential(layers.Rescaling(255.0), layers.Rescaling(1 / 255)),
            id="there and back",
        ),
        pytest.param(
            sequential(layers.Conv2D(2, 1), layers.Rescaling(1 / 255)),
            id="behind weights",
        ),
        pytest.param(sequential(layers.Rescaling(0.5)), id="halved"),
        pytest.param(functional(lambda x: x * 0.1), id="a tenth"),
        pytest.param(functional(lambda x: x + 0.1 * x), id="a tenth more"),
        pytest.param(functional(lambda x: x / 30.0), id="a thirtieth"),
    ],
)
def test_what_suits_the_range_does_not_warn(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scaling(model, PIXELS / 255, "teacher")


def test_a_layer_that_fails_on_examples_is_passed_over():
    def fail_on_numbers(x):
        if not isinstance(x, keras.KerasTensor):
            raise TypeError("symbols only")
        return x / 255

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = sequential(layers.Lambda(fail_on_numbers))
        warn_of_scaling(model, PIXELS / 255, "teacher")


def test_of_a_model_without_a_graph_nothing_is_said():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs / 255

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scaling(Own(), PIXELS / 255, "teacher")


def is_told(model, x):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_of_scaling(model, x, "teacher")
    assert len(told) < 2, "what was said once needs no second warning"
    return bool(told)


@pytest.mark.parametrize("divisor", [50, 100, 127.5, 256, 65535])
@pytest.mark.parametrize("lowest", [0, -1])
def test_usual_divisors_on_scaled_inputs_warn(divisor, lowest):
    model = sequential(layers.Rescaling(1 / divisor))
    x = PIXELS / 255 * (1 - lowest) + lowest
    assert is_told(model, x)


@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(
            lambda x: x - keras.ops.mean(x, axis=1, keepdims=True), id="mean"
        ),
        pytest.param(lambda x: keras.ops.softmax(x * 1.0), id="softmax"),
        pytest.param(
            lambda x: x / keras.ops.norm(x, axis=1, keepdims=True), id="norm"
        ),
        pytest.param(
            lambda x: keras.ops.mean(x, axis=1, keepdims=True), id="pooling"
        ),
        pytest.param(lambda x: x[:, 1:] - x[:, :-1], id="difference"),
    ],
)
def test_a_function_that_is_no_scaling_does_not_warn(function, size):
    inputs = keras.Input((size**2,))
    outputs = layers.Dense(2)(layers.Lambda(function)(inputs))
    x = np.random.default_rng(0).random((64, size**2)).astype("float32")
    x = 0.5 + np.cumsum(x - 0.5, axis=1) * 0.01
    assert not is_told(keras.Model(inputs, outputs), x)


@pytest.mark.parametrize("highest", [16, 6])
def test_dark_pixels_do_not_warn(highest):
    x = PIXELS % (highest + 1)
    assert not is_told(sequential(layers.Rescaling(1 / 255)), x)
    assert is_told(sequential(layers.Rescaling(1 / 255)), x / highest)


def test_a_layer_that_was_adapted_to_larger_numbers_warns():
    """Pixels that hardly vary do not hide that others are too close."""
    seen = PIXELS.copy()
    seen[:, 0] = seen[:, 0] > 127
    layer = layers.Normalization(axis=(1, 2, 3))
    layer.adapt(seen)
    assert not is_told(sequential(layer), seen)
    assert is_told(sequential(layer), seen / 16)


def test_means_of_pixels_are_not_taken_off_scaled_ones():
    inputs = keras.Input((4, 3, 3))
    x = keras.applications.vgg16.preprocess_input(inputs)
    outputs = layers.Dense(2)(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    pixels = np.repeat(PIXELS, 3, axis=-1)
    assert not is_told(model, pixels)
    assert is_told(model, pixels / 255)
    assert is_told(model, pixels / 127.5 - 1)
