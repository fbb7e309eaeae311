"""What looks removable and is not, and what looks proved and is not."""

import keras
import numpy as np
import pytest
from helpers import (
    error_of_removal,
    float64,
    held_outputs,
    outputs_of,
    random_inputs,
    randomize,
    relative_error,
)
from small_models import randomized_model

import keras_kddp as kddp
from keras_kddp.pruning.activity import activity_on
from keras_kddp.surgery import (
    ChannelGraph,
    SurgeryError,
    explain,
    plan_removal,
    remove_units,
)
from keras_kddp.surgery.activity_bounds import activity_bounds

layers, ops = keras.layers, keras.ops


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


def assert_stays(model, layer, reason):
    with pytest.raises(SurgeryError, match=reason):
        plan_removal(model, {layer: [1]})


# Nested models that Keras does not call as they stand.


def test_a_nested_model_of_a_list_may_be_called_with_a_dict():
    b, a = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    inner = keras.Model(
        [b, a],
        layers.Subtract()([layers.Dense(3, name="fb")(b), layers.ReLU()(a)]),
        name="inner",
    )

    def make(x):
        given = {
            "a": layers.Dense(3, name="ta")(x),
            "b": layers.Dense(3, name="tb")(x),
        }
        return layers.Dense(2)(inner(given))

    model = randomized_model((2,), make)
    x = random_inputs(model, seed=2)
    assert relative_error(held_outputs(model, {}, x), outputs_of(model, x)) == 0
    assert (
        error_of_removal(model, {"ta": [0], "tb": [1], "inner/fb": [0]})
        <= 1e-10
    )


def test_a_nested_model_whose_input_is_cast_is_looked_into():
    i = keras.Input((2,), dtype="float32")
    inner = keras.Model(
        i, layers.Dense(5, activation="relu", name="fc")(i), name="inner"
    )
    model = randomized_model(
        (2,), lambda x: layers.Dense(1)(inner(x) + inner(2 * x))
    )
    assert error_of_removal(model, {"inner/fc": [1]}) <= 1e-6


def test_a_nested_model_of_another_rank_stays_in_all_its_calls():
    i = keras.Input((2, 1))
    inner = keras.Model(
        i, layers.Flatten()(layers.Dense(4, name="fc")(i)), name="inner"
    )

    def make(x):
        wide = layers.Dense(2, name="outer")(x)
        ends = [inner(wide), inner(ops.expand_dims(x, -1))]
        return layers.Dense(1)(layers.Concatenate()(ends))

    model = randomized_model((2,), make)
    assert_stays(model, "outer", "inner .Functional. is a nested model that")
    assert "inner/fc" not in explain(model)


def test_a_nested_model_with_a_config_of_its_own_stays():
    class Inner(keras.Model):
        def __init__(self, width, **options):
            x = keras.Input((3,))
            super().__init__(x, layers.Dense(width, name="fc")(x), **options)
            self.width = width

        def get_config(self):
            return {"width": self.width}

    def make(x):
        y = Inner(4, name="inner")(layers.Dense(3, name="stem")(x))
        return layers.Dense(1)(layers.Dense(5, name="after")(y))

    model = randomized_model((2,), make)
    assert_stays(model, "stem", "is a nested model that surgery cannot look")
    assert error_of_removal(model, {"after": [2]}) <= 1e-10


def test_nested_models_of_unknown_width_do_not_break_the_rest():
    i = keras.Input((None,))
    inner = keras.Model(i, layers.ReLU()(i), name="inner")

    def make(x):
        y = inner(layers.Dense(3, name="three")(x))
        z = inner(layers.Dense(4, name="four")(x))
        both = layers.Dense(3, name="after")(layers.Concatenate()([y, z]))
        return layers.Dense(1)(both)

    model = randomized_model((2,), make)
    assert error_of_removal(model, {"after": [0]}) <= 1e-10


# Operations that are more than they seem.


def test_a_maximum_with_an_initial_value_stays():
    def make(x):
        y = layers.Conv1D(4, 1, activation="relu", name="conv")(x)
        return layers.Dense(1)(ops.max(y, axis=1, initial=5.0))

    assert_stays(randomized_model((5, 2), make), "conv", "has an `initial`")


def test_what_an_embedding_looks_up_stays():
    def make(x):
        y = ops.cast(layers.Dense(4, activation="relu", name="fc")(x), "int32")
        return layers.Dense(1)(
            layers.GlobalAveragePooling1D()(layers.Embedding(9, 5)(y))
        )

    assert_stays(randomized_model((3,), make), "fc", "looks it up")


def test_units_that_make_a_mask_stay():
    def make(x):
        y = layers.Conv1D(4, 1, name="conv")(x)
        mask = layers.Dense(5, name="mask")(layers.Flatten()(x)) > 0
        return layers.Dense(1)(layers.GlobalAveragePooling1D()(y, mask=mask))

    model = randomized_model((5, 2), make)
    assert_stays(model, "mask", "Pooling1D.* takes it as a mask")
    assert error_of_removal(model, {"conv": [1]}) <= 1e-10


def test_a_squeeze_of_whatever_is_one_stays():
    def make(x):
        return layers.Dense(1)(ops.squeeze(layers.Conv1D(3, 4, name="c")(x)))

    x = keras.Input((4, 2), batch_size=3)
    model = keras.Model(x, make(x))
    assert_stays(model, "c", "drops whatever axis has one entry")


@pytest.mark.parametrize(
    "hide",
    [
        lambda x: layers.ReLU(threshold=0.3)(x),
        ops.hard_shrink,
        ops.soft_shrink,
        lambda x: ops.threshold(x, 0.1, 0.2),
        ops.nan_to_num,
    ],
)
def test_a_constant_that_varies_is_not_hidden_by_a_comparison(hide):
    """The padding makes it vary; a second unit is a true constant."""

    def make(x):
        y = layers.MaxPooling1D(2)(layers.Conv1D(4, 1, name="c")(x))
        y = layers.ZeroPadding1D(1)(layers.BatchNormalization(name="bn")(y))
        return layers.Dense(1)(layers.GlobalAveragePooling1D()(hide(y)))

    model = randomized_model((6, 2), make)
    bn = model.get_layer("bn")
    mean, beta = np.array(bn.moving_mean), np.array(bn.beta)
    mean[:2], beta[:2] = 0, (0, 1.7)
    bn.moving_mean.assign(mean)
    bn.beta.assign(beta)
    assert error_of_removal(model, {"c": [0]}) <= 1e-10
    with pytest.raises(SurgeryError, match="no constant behind zero_padding1d"):
        plan_removal(model, {"c": [0, 1]})


def test_a_noise_shape_may_be_shorter_than_the_tensor():
    def make(x):
        y = layers.Dense(4, name="fc")(x)
        return layers.Dense(1)(layers.Dropout(0.5, noise_shape=(4,))(y))

    x = keras.Input((3,), batch_size=2)
    assert_stays(keras.Model(x, make(x)), "fc", "noise_shape with 4 channels")


def test_weights_that_start_from_an_array_are_cut():
    table = np.arange(28.0).reshape(7, 4)
    start = keras.initializers.Constant(table)
    x = keras.Input((3,), dtype="int32")
    y = layers.Embedding(7, 4, embeddings_initializer=start, name="e")(x)
    model = keras.Model(x, layers.Dense(1)(layers.GlobalMaxPooling1D()(y)))
    smaller = remove_units(model, {"e": [1]})
    np.testing.assert_array_equal(
        smaller.get_layer("e").embeddings, table[:, [0, 2, 3]]
    )


# Penalties at the border of a nested model.


def test_a_shared_nested_model_is_charged_once_per_call():
    i = keras.Input((3,))
    inner = keras.Model(i, layers.Dense(5, name="fc")(i), name="inner")

    def make(x):
        left = layers.ReLU(name="outer")(inner(x))
        return layers.Dense(1)(left) + layers.Dense(1)(inner(x * 2))

    prepared = kddp.prepare(randomized_model((3,), make), l1=1.0)
    again = kddp.prepare(prepared, l1=2.0)
    (x,) = random_inputs(again, seed=1)
    again(x, training=True)
    charges = [float(loss) for loss in again.losses]
    seen = kddp.collect_activity(again, x)["inner/fc"]
    assert len(charges) == 2
    assert sum(charges) == pytest.approx(2 * 2 * seen.mean_abs.sum())


# Bounds that hold for every input.


BOUNDED = {
    "negative alpha": lambda x: layers.ELU(alpha=-1.0)(x),
    "negative slope": lambda x: ops.leaky_relu(x, negative_slope=-0.5),
    "falling": lambda x: 1.0 - 2.0 * x,
    "threshold": lambda x: layers.ReLU(threshold=0.5, max_value=2.0)(x),
    "other axis": lambda x: layers.Permute((2, 1))(x),
    "maximum of channels": lambda x: ops.max(x, axis=-1),
    "table": lambda x: x + np.arange(9.0).reshape(1, 3, 3),
    "normalized positions": lambda x: layers.BatchNormalization(axis=1)(x),
    "pooled channels": lambda x: layers.MaxPooling1D(
        2, data_format="channels_first"
    )(x),
    "shared sum": lambda x: layers.Add()([x, x]),
    "difference": lambda x: layers.Subtract()([x, ops.relu(x)]),
}


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("seed", range(3))
def test_no_activity_leaves_its_bounds_behind(name, seed):
    def make(x):
        y = layers.Conv1D(3, 1, activation="relu", name="before")(x)
        y = BOUNDED[name](y)
        y = layers.Dense(3, activation="relu", name="after")(y)
        return layers.Dense(2)(layers.Flatten()(y))

    model = randomized_model((3, 2), make, seed)
    x = np.random.default_rng(seed).uniform(-1, 1, (300, 3, 2))
    graph = ChannelGraph(model)
    seen = activity_on(graph, x)
    for layer, (low, high) in activity_bounds(graph, (-1, 1)).items():
        assert (low <= seen[layer].minimum).all()
        assert (high >= seen[layer].maximum).all()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_upsampling_may_overshoot(interpolation):
    def make(x):
        y = layers.Conv2D(3, 1, name="before")(x)
        y = layers.UpSampling2D(3, interpolation=interpolation)(y)
        y = layers.Conv2D(4, 1, name="after")(y)
        return layers.GlobalMaxPooling2D()(layers.Conv2D(1, 1)(y))

    model = randomized_model((4, 4, 2), make)
    x = np.random.default_rng(0).integers(0, 2, (300, 4, 4, 2)).astype(float)
    graph = ChannelGraph(model)
    low, high = activity_bounds(graph, (0, 1))["after"]
    seen = activity_on(graph, x)["after"]
    assert (low <= seen.minimum).all()
    assert (high >= seen.maximum).all()
    assert np.isfinite(low).all() == (interpolation != "bicubic")


def test_nothing_is_proved_in_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = randomized_model(
        (3,), lambda x: layers.Dense(1)(layers.Dense(2, "relu", name="fc")(x))
    )
    low, high = activity_bounds(ChannelGraph(model), (0, 1))["fc"]
    assert np.isinf(low).all()
    assert np.isinf(high).all()


def test_examples_are_rows_of_the_inputs():
    def make(x):
        y = layers.Dense(4, name="fc")(ops.reshape(x, (-1, 2)))
        return layers.Dense(1)(ops.reshape(y, (-1, 200)))

    model = randomized_model((50, 2), make)
    seen = kddp.collect_activity(model, np.ones((10, 50, 2)))
    assert all(statistics.examples == 10 for statistics in seen.values())


# Errors of approximate folds.


def test_the_error_is_the_largest_of_a_shared_layers_calls():
    inputs = [keras.Input((20, 2)), keras.Input((3, 2))]
    one = layers.Conv1D(3, 1, name="one")
    two = layers.Conv1D(2, 5, padding="same", name="two")
    ends = [layers.GlobalMaxPooling1D()(two(one(x))) for x in inputs]
    model = keras.Model(inputs, layers.Dense(1)(layers.Add()(ends)))
    randomize(model, seed=1)

    def error(model):
        return plan_removal(
            model,
            {"one": [0]},
            constants={"one": {0: 1.5}},
            approximate=True,
        ).errors["two"]

    parts = [
        error(keras.Model(x, layers.Dense(1)(end)))
        for x, end in zip(inputs, ends, strict=True)
    ]
    assert error(model) == max(parts)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_the_error_is_measured_where_sizes_are_unknown(data_format):
    is_last = data_format == "channels_last"
    options = {"padding": "same", "data_format": data_format}

    def error(width):
        shape = (8, width, 2) if is_last else (2, 8, width)
        x = keras.Input(shape)
        y = layers.Conv2D(3, 1, name="one", **options)(x)
        y = layers.Conv2D(
            2, (1, 5), dilation_rate=(1, 2), name="two", **options
        )(y)
        y = layers.GlobalMaxPooling2D(data_format=data_format)(y)
        return plan_removal(
            randomize(keras.Model(x, layers.Dense(1)(y)), seed=1),
            {"one": [0]},
            constants={"one": {0: 1.5}},
            approximate=True,
        ).errors["two"]

    assert error(None) == pytest.approx(error(60))


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    "make", [keras.layers.PReLU, keras.layers.BatchNormalization]
)
def test_weights_that_an_input_passes_too_stay_whole(make, is_first):
    inputs = keras.Input((3, 3, 4))
    hidden = keras.layers.Conv2D(4, 1, name="conv")(inputs)
    shared = make(name="shared")
    tensors = [inputs, hidden] if is_first else [hidden, inputs]
    first, second = map(shared, tensors)
    pooled = [
        keras.layers.GlobalMaxPooling2D()(tensor) for tensor in (first, second)
    ]
    outputs = [keras.layers.Dense(2)(tensor) for tensor in pooled]

    assert_stays(
        keras.Model(inputs, outputs), "conv", "it is an input of the model"
    )
