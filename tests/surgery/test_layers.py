"""Surgery on layers beyond the plain chain: nested, grouped, gated, moved."""

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
    variable_values,
)
from small_models import randomized_model

import keras_kddp as kddp
from keras_kddp.surgery import (
    ChannelGraph,
    SurgeryError,
    explain,
    plan_removal,
    remove_units,
    unit_groups,
)

layers = keras.layers


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


# Nested models.


def block(channels: int, name: str) -> keras.Model:
    """x + narrow(relu(bn(wide(x)))), as a model of its own."""
    x = keras.Input((channels,))
    y = layers.Dense(6, name="wide")(x)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(y))
    y = layers.Dense(channels, name="narrow")(y)
    return keras.Model(x, layers.Add(name="add")([x, y]), name=name)


def nested_model() -> keras.Model:
    def make(x):
        y = layers.Dense(4, name="stem")(x)
        y = block(4, "first")(y)
        shared = keras.Sequential(
            [keras.Input((4,)), block(4, "inside"), layers.ReLU(name="out")],
            name="shared",
        )
        y = shared(y) + shared(-y)
        return layers.Dense(2, name="head")(y)

    return randomized_model((3,), make)


def test_units_inside_nested_models_leave():
    model = nested_model()
    units = {"first/wide": [0, 3], "shared/inside/wide": [1, 2, 5]}
    assert error_of_removal(model, units) <= 1e-10
    smaller = remove_units(model, units)
    assert smaller.get_layer("first").get_layer("bn").gamma.shape == (4,)
    inside = smaller.get_layer("shared").get_layer("inside")
    assert inside.get_layer("wide").units == 3


def test_units_that_cross_the_border_of_a_nested_model_leave():
    model = nested_model()
    trunk = {
        name: [2] for name in ("stem", "first/narrow", "shared/inside/narrow")
    }
    assert error_of_removal(model, trunk) <= 1e-10
    smaller = remove_units(model, trunk)
    assert smaller.get_layer("first").inputs[0].shape == (None, 3)
    assert smaller.get_layer("shared").inputs[0].shape == (None, 3)
    with pytest.raises(SurgeryError, match=r"Received without first/narrow"):
        plan_removal(model, {"stem": [2]})


def test_a_nested_model_is_left_as_it_was_and_flags_are_kept():
    model = nested_model()
    model.get_layer("first").trainable = False
    model.get_layer("shared").get_layer("inside").get_layer(
        "wide"
    ).trainable = False
    before = variable_values(model), model.to_json()
    smaller = remove_units(model, {"first/wide": [0]})
    after = variable_values(model), model.to_json()
    assert before[1] == after[1]
    for a, b in zip(before[0], after[0], strict=True):
        np.testing.assert_array_equal(a, b)
    for part in (model, smaller):
        assert not part.get_layer("first").get_layer("wide").trainable
        inside = part.get_layer("shared").get_layer("inside")
        assert not inside.get_layer("wide").trainable
        assert inside.get_layer("narrow").trainable


def test_explain_names_nested_layers_by_their_path():
    text = explain(nested_model())
    assert "first/wide " in text
    assert "shared/inside/narrow" in text


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_nested_models_of_several_inputs_and_outputs(structure):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    total = layers.Dense(3, name="fc")(layers.Concatenate()([a, b]))
    inner_in = [a, b] if structure == "list" else {"a": a, "b": b}
    outputs = {"sum": total, "relu": layers.ReLU()(a)}
    inner = keras.Model(inner_in, outputs, name="inner")

    def make(x):
        left = layers.Dense(3, name="left")(x)
        right = layers.Dense(3, name="right")(x)
        given = [left, right]
        if structure == "dict":
            given = {"b": right, "a": left}
        result = inner(given)
        return layers.Dense(2)(result["sum"] * result["relu"])

    model = randomized_model((2,), make)
    units = {"left": [0], "inner/fc": [0], "right": [2]}
    assert error_of_removal(model, units) <= 1e-10


def test_a_layer_in_two_models_is_refused():
    shared = layers.Dense(3, name="fc")
    inner = keras.Sequential([keras.Input((3,)), shared], name="inner")
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(1)(inner(shared(x))))
    with pytest.raises(SurgeryError, match="'fc' and as 'inner/fc'"):
        unit_groups(model)


def test_a_nested_student_shrinks_inside_fit():
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(16, "relu", name="fc")], name="inner"
    )

    def make(x):
        both = layers.Concatenate()([inner(x), inner(x * 2)])
        return layers.Dense(2, name="head")(both)

    rows = np.random.default_rng(0).normal(size=(256, 3))
    labels = (rows[:, 0] > 0).astype(int)
    student = kddp.prepare(randomized_model((3,), make), l1=2.0)
    teacher = randomized_model((3,), lambda x: layers.Dense(2)(x))
    distiller = kddp.Distiller(teacher, student)
    distiller.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    with pytest.warns(UserWarning, match="minimum_units=1 stay in 'inner/fc'"):
        distiller.fit(
            rows,
            labels,
            epochs=10,
            verbose=0,
            callbacks=[kddp.DynamicPruning(threshold=0.1)],
        )
    compact = kddp.finalize(distiller.student)
    assert compact.get_layer("inner").get_layer("fc").units < 16
    np.testing.assert_allclose(
        outputs_of(compact, [rows])[0], outputs_of(distiller.student, [rows])[0]
    )


def test_activity_is_observed_inside_nested_models():
    model = nested_model()
    (x,) = random_inputs(model, seed=3, batch_size=40)
    activity = kddp.collect_activity(model, x)
    inner = model.get_layer("first")
    direct = keras.Model(inner.inputs, inner.get_layer("relu").output)
    expected = np.asarray(direct(model.get_layer("stem")(x)))
    np.testing.assert_allclose(
        activity["first/wide"].mean, expected.mean(axis=0)
    )
    assert activity["shared/inside/wide"].count == 80


# Channels on other axes.


def test_channels_first_from_end_to_end():
    first = {"data_format": "channels_first"}

    def make(x):
        y = layers.SeparableConv2D(4, 2, name="one", **first)(x)
        y = layers.BatchNormalization(axis=1)(y)
        y = layers.PReLU(shared_axes=[2, 3])(y)
        y = layers.ZeroPadding2D(1, **first)(layers.MaxPooling2D(2, **first)(y))
        y = layers.DepthwiseConv2D(2, **first)(y)
        y = layers.Concatenate(axis=1)([y, keras.ops.relu(y)])
        y = layers.Add()([y, layers.UpSampling2D(1, **first)(y)])
        # Not 3 filters: Keras 3.15 adds a bias along the last axis of an
        # image whose width is the number of filters.
        y = layers.SeparableConv2D(5, 1, name="two", **first)(y)
        gate = layers.GlobalAveragePooling2D(keepdims=True, **first)(y)
        y = y * keras.ops.sigmoid(gate)
        return layers.Dense(2)(layers.Flatten(**first)(y))

    model = randomized_model((2, 6, 6), make)
    assert error_of_removal(model, {"one": [0, 2], "two": [1]}) <= 1e-10
    activity = kddp.collect_activity(model, random_inputs(model, 1)[0])
    assert activity["two"].mean.shape == (5,)


def test_channels_first_is_penalized_along_its_axis():
    def make(x):
        y = layers.SeparableConv2D(
            3, 2, name="one", activation="relu", data_format="channels_first"
        )(x)
        return layers.Dense(2)(layers.Flatten()(y))

    model = randomized_model((2, 4, 5), make)
    prepared = kddp.prepare(model, l1=1.0)
    (x,) = random_inputs(model, seed=1)
    prepared(x, training=True)
    seen = kddp.collect_activity(model, x)["one"]
    np.testing.assert_allclose(prepared.losses[0], seen.mean_abs.sum())


def test_convolutions_of_channels_first_are_cut_along_their_axes():
    first = {"data_format": "channels_first"}

    def make(x):
        y = layers.Conv2D(4, 2, name="one", **first)(x)
        y = layers.Conv2DTranspose(3, 2, name="two", **first)(y)
        return layers.Dense(2)(layers.GlobalMaxPooling2D(**first)(y))

    plan = plan_removal(
        randomized_model((2, 6, 6), make), {"one": [1], "two": [0]}
    )
    kernels = {
        name: plan.build().get_layer(name).kernel.shape
        for name in ("one", "two")
    }
    assert kernels == {"one": (2, 2, 2, 3), "two": (2, 2, 2, 3)}


def test_permute_and_transpose_take_channels_along():
    def make(x):
        y = layers.Conv1D(4, 2, name="conv")(x)
        y = layers.Permute((2, 1))(y)
        y = keras.ops.transpose(layers.ReLU()(y), (0, 2, 1))
        return layers.Dense(2)(layers.Flatten()(y))

    assert (
        error_of_removal(randomized_model((5, 2), make), {"conv": [0, 3]})
        <= 1e-10
    )


def test_a_dense_layer_across_positions_keeps_the_channels_before_it():
    def make(x):
        y = layers.Permute((2, 1))(layers.Conv1D(4, 2, name="conv")(x))
        return layers.Flatten()(layers.Dense(3, name="over")(y))

    text = explain(randomized_model((5, 2), make))
    assert "over (Dense) reads axis 2 of a tensor with channels on axis 1" in (
        text
    )


# Reshapes.


@pytest.mark.parametrize(
    "target", [(16, 4), (-1, 4), (2, 8, 4), (1, 64), (64,)]
)
def test_positions_may_be_merged_and_split(target):
    def make(x):
        y = layers.Reshape(target)(layers.Conv2D(4, 1, name="conv")(x))
        return layers.Dense(2)(layers.Flatten()(y))

    assert (
        error_of_removal(randomized_model((4, 4, 2), make), {"conv": [1]})
        <= 1e-10
    )


def test_channels_that_a_reshape_splits_in_two_axes_leave_in_columns():
    def make(x):
        y = layers.Conv2D(4, 1, name="conv")(x)
        y = layers.Reshape((4, 2, 2, 2))(y)
        return layers.Dense(2)(layers.Flatten()(y))

    model = randomized_model((2, 4, 2), make)
    with pytest.raises(SurgeryError, match=r"conv\[0\], conv\[2\] can only"):
        plan_removal(model, {"conv": [0]})
    assert error_of_removal(model, {"conv": [0, 2]}) <= 1e-10


@pytest.mark.parametrize("raw", [False, True])
def test_a_decoder_shapes_a_vector_into_an_image(raw):
    def make(x):
        y = layers.Dense(2 * 2 * 3, name="fc")(x)
        if raw:
            y = keras.ops.reshape(y, (-1, 2, 2, 3))
        else:
            y = layers.Reshape((2, 2, 3))(y)
        y = layers.Conv2DTranspose(4, 2, name="up")(layers.UpSampling2D()(y))
        return layers.Dense(1)(layers.GlobalAveragePooling2D()(y))

    model = randomized_model((3,), make)
    (group,) = [g for g in unit_groups(model) if ("fc", 1) in g.members]
    assert [unit for _, unit in group.members] == [1, 4, 7, 10]
    assert error_of_removal(model, {"fc": [1, 4, 7, 10], "up": [0]}) <= 1e-10


def test_channels_that_a_reshape_takes_apart_stay():
    def make(x):
        y = layers.Reshape((4, 6), name="apart")(
            layers.Conv2D(4, 1, name="conv")(x)
        )
        return layers.Dense(2)(layers.Flatten()(y))

    model = randomized_model((2, 3, 2), make)
    with pytest.raises(SurgeryError, match="apart .Reshape. takes channels"):
        plan_removal(model, {"conv": [0]})


# Kernels of other shapes.


def test_grouped_convolutions_lose_whole_groups():
    def make(x):
        y = layers.Conv2D(6, 1, activation="relu", name="one")(x)
        y = layers.Conv2D(9, 2, groups=3, activation="relu", name="three")(y)
        return layers.Dense(2)(layers.Flatten()(y))

    model = randomized_model((4, 4, 2), make)
    group = {"one": [2, 3], "three": [3, 4, 5]}
    with pytest.raises(SurgeryError, match="can only leave together"):
        plan_removal(model, {"three": [3]})
    assert error_of_removal(model, group) <= 1e-10
    smaller = remove_units(model, group).get_layer("three")
    assert (smaller.groups, smaller.filters) == (2, 6)


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_depthwise_kernels_leave_with_their_channels(multiplier, padding):
    def make(x):
        y = layers.Conv2D(4, 1, name="expand")(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.DepthwiseConv2D(
            2, depth_multiplier=multiplier, padding=padding
        )(y)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        return layers.GlobalMaxPooling2D()(layers.Conv2D(2, 1)(y))

    model = randomized_model((4, 4, 2), make)
    assert error_of_removal(model, {"expand": [0, 3]}) <= 1e-10
    (point,) = ChannelGraph(model).observation_points("expand")
    # Behind the depthwise convolution where the channels are still the units.
    assert point.shape[1] == (
        3 if padding == "valid" and multiplier == 1 else 4
    )


def test_embeddings_and_recurrent_layers():
    def make(x):
        y = layers.Embedding(7, 5, name="vectors")(x)
        y = layers.GRU(4, name="gru", return_sequences=True)(y)
        y = layers.Conv1D(6, 2, activation="relu", name="conv")(y)
        return layers.Dense(2)(layers.LSTM(3, name="lstm")(y))

    x = keras.Input((5,), dtype="int32")
    model = randomize(keras.Model(x, make(x)), seed=1)
    rows = np.random.default_rng(0).integers(0, 7, (3, 5))
    units = {"vectors": [0, 4], "conv": [1]}
    smaller = remove_units(model, units)
    expected = held_outputs(model, units, rows)
    assert relative_error(outputs_of(smaller, [rows]), expected) <= 1e-10
    assert "gru (GRU) ties its units by their recurrence" in explain(model)
    with pytest.raises(SurgeryError, match="lstm .LSTM. cannot take a constan"):
        remove_units(model, {"conv": [1]}, constants={"conv": {1: 0.5}})


# Gates and broadcasts.


def test_a_gate_leaves_with_what_it_multiplies():
    def make(x):
        y = layers.Conv2D(4, 2, activation="swish", name="conv")(x)
        gate = layers.GlobalAveragePooling2D()(y)
        gate = layers.Reshape((1, 1, 4), name="reshape")(gate)
        gate = layers.Conv2D(2, 1, activation="relu", name="squeeze")(gate)
        gate = layers.Conv2D(4, 1, activation="sigmoid", name="excite")(gate)
        return layers.Dense(2)(layers.Flatten()(layers.Multiply()([y, gate])))

    model = randomized_model((4, 4, 2), make)
    with pytest.raises(SurgeryError, match=r"conv\[1\], excite\[1\] can only"):
        plan_removal(model, {"conv": [1]})
    units = {"conv": [1], "excite": [1], "squeeze": [0]}
    assert error_of_removal(model, units) <= 1e-10
    target = remove_units(model, units).get_layer("reshape").target_shape
    assert target == (1, 1, 3)


def test_a_map_over_positions_multiplies_all_channels():
    def make(x):
        y = layers.Conv2D(4, 1, name="conv")(x)
        where = layers.Conv2D(1, 1, activation="sigmoid", name="where")(y)
        return layers.Dense(2)(layers.Flatten()(y * where))

    model = randomized_model((3, 3, 2), make)
    assert error_of_removal(model, {"conv": [0, 2]}) <= 1e-10
    with pytest.raises(SurgeryError, match="spreads it over all channels"):
        plan_removal(model, {"where": [0]})


@pytest.mark.parametrize("reduce", ["mean", "max", "min", "sum"])
@pytest.mark.parametrize("keepdims", [True, False])
def test_reductions_over_positions_take_channels_along(reduce, keepdims):
    def make(x):
        y = layers.Conv2D(4, 2, activation="relu", name="conv")(x)
        y = getattr(keras.ops, reduce)(y, axis=(1, -2), keepdims=keepdims)
        return layers.Dense(2)(layers.Flatten()(y) if keepdims else y)

    assert (
        error_of_removal(randomized_model((4, 4, 2), make), {"conv": [0, 2]})
        <= 1e-10
    )


# Approximate folds.


def padded_model() -> keras.Model:
    def make(x):
        y = layers.Conv2D(3, 1, name="one")(x)
        y = layers.Conv2D(2, 3, padding="same", name="two")(y)
        return layers.Dense(1)(layers.Flatten()(y))

    return randomized_model((6, 6, 2), make)


def test_an_approximate_fold_is_right_inside_and_says_how_wrong_at_the_border():
    model = padded_model()
    given = {"constants": {"one": {0: 1.5}}}
    with pytest.raises(SurgeryError, match="looks different at the border"):
        plan_removal(model, {"one": [0]}, **given)
    plan = plan_removal(model, {"one": [0]}, approximate=True, **given)
    (x,) = random_inputs(model, seed=1)
    smaller = plan.build()
    received = outputs_of(
        keras.Model(smaller.inputs[0], smaller.get_layer("two").output), [x]
    )[0]
    held = np.asarray(model.get_layer("one")(x)).copy()
    held[..., 0] = 1.5
    expected = np.asarray(model.get_layer("two")(held))
    error = np.abs(received - expected)
    assert error[:, 1:-1, 1:-1].max() <= 1e-12
    assert plan.errors["two"] == pytest.approx(error.max())
    assert "two: constants fold into bias, off by" in str(plan)


def test_removing_approximately_warns_of_the_error():
    with pytest.warns(UserWarning, match="are off: two by 0."):
        remove_units(
            padded_model(),
            {"one": [0]},
            constants={"one": {0: 0.1}},
            approximate=True,
        )


@pytest.mark.filterwarnings("error:`approximate=True`")
def test_what_is_exact_is_no_approximation():
    model = padded_model()
    assert plan_removal(model, {"one": [0]}, approximate=True).errors == {}
    remove_units(model, {"one": [0]}, approximate=True)


def test_a_cut_nested_model_trains_saves_and_runs_on_litert(tmp_path):
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    smaller = remove_units(
        nested_model(),
        {
            name: [2]
            for name in ("stem", "first/narrow", "shared/inside/narrow")
        },
    )
    rows = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    smaller.compile("adam", "mse")
    smaller.fit(rows, rows[:, :2], verbose=0)
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(loaded(rows), smaller(rows))
    file = kddp.export.to_tflite(loaded, tmp_path / "smaller.tflite")
    assert kddp.export.verify(loaded, file, rows).passed
