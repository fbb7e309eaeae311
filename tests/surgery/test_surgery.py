"""Surgery on hand-made graphs: what goes, what stays and why, what is kept."""

import dataclasses
import json
import random

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
    to_numpy,
    variable_values,
)

from keras_kddp import _compat
from keras_kddp.surgery import (
    ChannelGraph,
    Rule,
    SurgeryError,
    UnitGroup,
    explain,
    plan_removal,
    register_rule,
    registry,
    remove_units,
    unit_groups,
)
from keras_kddp.surgery.folding import fold_constants
from keras_kddp.surgery.norms import outgoing_norms

layers = keras.layers


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


@pytest.fixture(autouse=True)
def own_rules(monkeypatch):
    """Forgets the rules that a test registers."""
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))


class Doubling(layers.Layer):
    """A layer of somebody else's, without a rule."""

    def call(self, inputs):
        return 2 * inputs


class FlippedDense(layers.Dense):
    def call(self, inputs):
        return keras.ops.flip(super().call(inputs), -1)


class FlippedReLU(layers.ReLU):
    def call(self, inputs):
        return keras.ops.flip(super().call(inputs), -1)


class StandardizedConv2D(layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel / keras.ops.std(kernel))


class OwnCall(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class RenamedDense(layers.Dense):
    """Only another name: it computes what Dense computes."""


def oddly(x):
    return keras.ops.flip(x, -1)


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


def error_of_removal(model, units, constants=None) -> float:
    """Returns how far a removal is from the oracle."""
    x = random_inputs(model, seed=2)
    smaller = remove_units(model, units, constants=constants)
    expected = held_outputs(model, units, x, constants)
    return relative_error(outputs_of(smaller, x), expected)


def reason_of(model, layer_name) -> str:
    """Returns why the units of a layer must stay."""
    graph = ChannelGraph(model)
    groups = set(graph.group_numbers[graph.units[layer_name]].tolist())
    return "; ".join(
        dict.fromkeys(graph.reasons.get(group, "") for group in groups)
    )


# What goes.


def test_a_unit_takes_its_column_bias_and_the_row_of_its_reader_along():
    smaller = remove_units(dense_model(), {"fc": [1]})
    kernel, bias, head_kernel, head_bias = smaller.get_weights()
    np.testing.assert_array_equal(kernel, [[1, 3], [4, 6]])
    np.testing.assert_array_equal(bias, [7, 9])
    np.testing.assert_array_equal(head_kernel, [[10], [30]])
    np.testing.assert_array_equal(head_bias, [1])
    output = smaller(np.ones((1, 2)))
    assert float(output[0, 0]) == 10 * (1 + 4 + 7) + 30 * (3 + 6 + 9) + 1


@pytest.mark.parametrize("removed", [[0], [2], [0, 1], np.array([1, 2])])
def test_filters_go_through_normalization_activation_and_flatten(removed):
    model = image_model(
        layers.BatchNormalization(name="bn"), layers.ReLU(name="relu")
    )
    smaller = remove_units(model, {"conv": removed})
    kept = 3 - len(removed)
    assert smaller.get_layer("conv").filters == kept
    assert smaller.get_layer("bn").moving_mean.shape == (kept,)
    assert smaller.get_layer("head").kernel.shape == (3 * 3 * kept, 2)
    assert error_of_removal(model, {"conv": removed}) <= 1e-10


@pytest.mark.parametrize(
    "middle",
    [
        layers.MaxPooling2D(2),
        layers.AveragePooling2D(2, padding="same"),
        layers.GlobalAveragePooling2D(),
        layers.GlobalMaxPooling2D(keepdims=True),
        layers.ZeroPadding2D(1),
        layers.Dropout(0.5),
        layers.Dropout(0.5, noise_shape=(None, 1, 1, 1)),
        layers.SpatialDropout2D(0.5),
        layers.Identity(),
        layers.Rescaling(2.0, offset=0.5),
        layers.LeakyReLU(),
        layers.ELU(),
        layers.Activation("gelu"),
        layers.Dense(4),
        layers.Conv2D(4, 2, strides=2, padding="same"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_filters_go_through_every_layer_with_a_rule(middle):
    with float64():
        middle = type(middle).from_config(
            {**middle.get_config(), "dtype": "float64"}
        )
    model = image_model(middle)
    assert error_of_removal(model, {"conv": [0, 2]}) <= 1e-10


@pytest.mark.parametrize(
    "operation",
    [
        keras.ops.relu,
        keras.ops.sigmoid,
        keras.ops.abs,
        keras.ops.square,
        lambda x: -x,
        lambda x: x + 2.0,
        lambda x: 2.0 + x,
        lambda x: x * 2,
        lambda x: 2.0 - x,
        lambda x: x / 2,
        lambda x: 2 / (x + 9),
        lambda x: x**2,
        lambda x: keras.ops.clip(x, -1.0, 1.0),
        lambda x: keras.ops.maximum(x, 0.5),
        lambda x: x * keras.ops.sigmoid(x),
        lambda x: keras.ops.leaky_relu(x, negative_slope=0.3),
    ],
)
def test_units_go_through_raw_operations(operation):
    x = keras.Input((2,))
    hidden = operation(layers.Dense(3, name="fc")(x))
    model = randomize(keras.Model(x, layers.Dense(2)(hidden)), seed=1)
    assert error_of_removal(model, {"fc": [1]}) <= 1e-10


def test_both_sides_of_a_residual_sum_leave_together():
    model = residual_model()
    units = {"first": [1], "second": [1], "inner": [0, 3]}
    assert error_of_removal(model, units) <= 1e-10


def test_a_residual_group_names_the_partners_that_are_missing():
    with pytest.raises(
        SurgeryError,
        match=r"Units first\[1\], second\[1\] can only leave together. "
        r"Received without second\[1\]. Add them",
    ):
        plan_removal(residual_model(), {"first": [1]})


def test_unit_groups_list_members_and_reasons_in_the_order_of_the_graph():
    groups = unit_groups(residual_model())
    assert groups[:3] == [
        UnitGroup((("first", unit), ("second", unit)), "") for unit in range(3)
    ]
    assert groups[3] == UnitGroup((("inner", 0),), "")
    assert groups[-1] == UnitGroup(
        (("head", 1),), "it is an output of the model"
    )


def test_a_shared_layer_ties_what_it_reads_and_is_cut_once():
    x = keras.Input((2,))
    shared = layers.Dense(3, activation="relu", name="shared")
    left = layers.Dense(4, name="left")(x)
    right = layers.Dense(4, name="right")(x)
    total = shared(left) + keras.ops.tanh(shared(right))
    model = randomize(keras.Model(x, layers.Dense(2)(total)), seed=1)
    with pytest.raises(SurgeryError, match=r"right\[0\], left\[0\] can only"):
        plan_removal(model, {"left": [0]})
    units = {"left": [0], "right": [0], "shared": [2]}
    assert error_of_removal(model, units) <= 1e-10


def test_a_layer_read_by_two_others_is_cut_out_of_both():
    x = keras.Input((2,))
    hidden = layers.Dense(3, activation="relu", name="fc")(x)
    heads = [layers.Dense(2, name=f"head{i}")(hidden) for i in range(2)]
    model = randomize(keras.Model(x, heads), seed=1)
    smaller = remove_units(model, {"fc": [0]})
    assert [smaller.get_layer(h).kernel.shape for h in ("head0", "head1")] == [
        (2, 2),
        (2, 2),
    ]
    assert error_of_removal(model, {"fc": [0]}) <= 1e-10


def test_flatten_and_a_wide_dense_tie_every_position_of_a_channel():
    x = keras.Input((2, 1, 1))
    image = layers.Flatten()(layers.Conv2D(2, 1, name="conv")(x))
    vector = layers.Dense(4, name="fc")(layers.Flatten()(x))
    model = keras.Model(x, layers.Dense(1)(image + vector))
    # Channels of the flattened image: position 0 (0, 1), position 1 (0, 1).
    assert unit_groups(model)[0].members == (
        ("conv", 0),
        ("fc", 0),
        ("fc", 2),
    )


@pytest.mark.parametrize(
    "build", [lambda m: m.build((None, 2)), lambda m: m(np.ones((1, 2)))]
)
def test_a_sequential_model_may_be_built_late(build):
    model = keras.Sequential([layers.Dense(3, name="fc"), layers.Dense(1)])
    build(model)
    randomize(model, seed=1)
    assert error_of_removal(model, {"fc": [1]}) <= 1e-10


def test_images_may_be_of_any_size_behind_global_pooling():
    model = keras.Sequential(
        [
            keras.Input((None, None, 2)),
            layers.Conv2D(3, 2, name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1),
        ]
    )
    randomize(model, seed=1)
    x = np.random.default_rng(2).normal(size=(2, 5, 4, 2))
    smaller = remove_units(model, {"conv": [1]})
    expected = held_outputs(model, {"conv": [1]}, x)
    assert relative_error(outputs_of(smaller, x), expected) <= 1e-10


def test_models_that_share_layers_are_cut_one_at_a_time():
    model = residual_model()
    x = keras.Input((2,))
    other = keras.Model(x, layers.Dense(1)(model.get_layer("first")(x)))
    tail = keras.Model(model.get_layer("add").output, model.output)
    units = {"first": [0], "second": [0]}
    assert error_of_removal(model, units) <= 1e-10
    assert error_of_removal(other, {"first": [0]}) <= 1e-10
    assert error_of_removal(tail, {"inner": [0]}) <= 1e-10


def test_a_float32_model_folds_in_float32():
    keras.config.set_dtype_policy("float32")
    model = model_with_late_normalization(use_bias=False)
    assert error_of_removal(model, {"fc": [0]}) <= 1e-6


# Where activity is observed.


def observed_names(model, layer_name) -> list[str]:
    points = ChannelGraph(model).observation_points(layer_name)
    return [_compat.producing_node(t).operation.name for t in points]


def test_activity_is_observed_behind_normalization_and_activation():
    model = image_model(
        layers.BatchNormalization(), layers.ReLU(name="relu"), layers.Dropout(1)
    )
    assert observed_names(model, "conv") == ["relu"]


@pytest.mark.parametrize(
    "layer_class",
    [
        layers.Dropout,
        layers.MaxPooling2D,
        layers.AveragePooling2D,
        layers.GlobalAveragePooling2D,
        layers.GlobalMaxPooling2D,
        layers.ZeroPadding2D,
        layers.Flatten,
        layers.Dense,
        Doubling,
    ],
)
def test_activity_is_observed_before_what_moves_mixes_or_drops(layer_class):
    arguments = {
        layers.Dropout: [0.5],
        layers.Dense: [1],
        layers.AveragePooling2D: [2],
    }
    middle = layer_class(*arguments.get(layer_class, []), name="middle")
    model = image_model(layers.ReLU(name="relu"), middle, layers.ReLU())
    assert observed_names(model, "conv") == ["relu"]


def test_activity_is_observed_before_a_branch_and_behind_a_sum():
    model = residual_model()
    assert observed_names(model, "first") == ["first"]
    assert observed_names(model, "second") == ["relu"]


def test_activity_of_a_shared_layer_is_observed_at_each_call():
    x = keras.Input((2,))
    shared = layers.Dense(2, name="shared")
    first = layers.ReLU(name="relu")(shared(x))
    model = keras.Model(x, layers.Dense(1)(first) + layers.Dense(1)(shared(x)))
    assert sorted(observed_names(model, "shared")) == ["relu", "shared"]


# What stays, and why.


def removable_units(model) -> dict[str, int]:
    graph = ChannelGraph(model)
    return {
        name: sum(
            group not in graph.reasons for group in graph.group_numbers[labels]
        )
        for name, labels in graph.units.items()
    }


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (lambda: Doubling(name="d"), r"d \(Doubling\) has no surgery rule"),
        (lambda: FlippedReLU(name="d"), r"d \(FlippedReLU\) has no surgery"),
        (
            lambda: StandardizedConv2D(2, 1, name="d"),
            r"d \(StandardizedConv2D\) has no surgery rule",
        ),
        (lambda: layers.Softmax(name="d"), r"d \(Softmax\) mixes its channels"),
        (
            lambda: layers.Activation("softmax", name="d"),
            r"d \(Activation\) ends in the activation softmax, which is not",
        ),
        (lambda: layers.Activation(oddly), "ends in the activation oddly"),
        (
            lambda: layers.BatchNormalization(axis=1, name="d"),
            r"d \(BatchNormalization\) reads axis 1 of a tensor with channels "
            "on axis 3",
        ),
        (
            lambda: layers.Rescaling([1.0, 2.0, 3.0]),
            "scales each channel by a number of its own",
        ),
        (
            lambda: layers.MaxPooling2D(1, data_format="channels_first"),
            "reads axis 1 of a tensor with channels on axis 3",
        ),
        (
            lambda: layers.Dropout(0.5, noise_shape=(None, 1, 1, 3), name="d"),
            r"d \(Dropout\) has a noise_shape with 3 channels",
        ),
        (
            lambda: OwnCall([layers.ReLU()], name="d"),
            r"d \(OwnCall\) is a nested model that surgery cannot look into",
        ),
    ],
)
def test_a_layer_that_channels_cannot_pass_says_why(middle, reason):
    model = image_model(middle())
    with pytest.raises(
        SurgeryError,
        match=rf"Units conv\[0\]\S* .*cannot be removed: .*{reason}",
    ):
        plan_removal(model, {"conv": [0]})


def test_zero_padding_in_channels_first_blocks():
    padding = layers.ZeroPadding2D(1, data_format="channels_first")
    model = image_model(padding)
    assert "reads axis 1 of a tensor" in reason_of(model, "conv")


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (keras.ops.softmax, r"softmax\S* \(Softmax\) has no surgery rule"),
        (lambda x: x / (x + 1), "takes a tensor where surgery only follows a"),
        (lambda x: keras.ops.split(x, 3, axis=-1)[0], "has several outputs"),
        (
            lambda x: x + np.array([1.0, 2.0, 3.0]),
            "joins an array to its input",
        ),
        (
            lambda x: x + x[:, :1],
            r"\(GetItem\) has no surgery rule",
        ),
    ],
)
def test_a_raw_operation_without_a_rule_says_so(operation, reason):
    x = keras.Input((2,))
    hidden = operation(layers.Dense(3, name="fc")(x))
    model = keras.Model(x, layers.Dense(2)(hidden))
    with pytest.raises(SurgeryError, match=rf"fc\[0\].*: .*{reason}"):
        plan_removal(model, {"fc": [0]})


def test_an_operation_with_a_scalar_result_blocks_what_it_reads_only():
    x = keras.Input((2,))
    hidden = layers.Dense(3, name="fc")(x)
    hidden = hidden / keras.ops.max(hidden)
    last = layers.Dense(3, activation="relu", name="last")(hidden)
    model = randomize(keras.Model(x, layers.Dense(2)(last)), seed=1)
    assert "reduces the axis of channels" in reason_of(model, "fc")
    assert error_of_removal(model, {"last": [0]}) <= 1e-10


def test_one_channel_that_a_sum_spreads_over_others_stays_and_they_may_go():
    x = keras.Input((2,))
    # Never 3 units: Keras 3.15 takes (3, 1), a batch of 3, for a bias of 3.
    wide = layers.Dense(5, name="wide")(x)
    narrow = layers.Dense(1, name="narrow")(x)
    total = layers.Add(name="add")([wide, narrow])
    model = randomize(keras.Model(x, layers.Dense(2)(total)), seed=1)
    assert reason_of(model, "narrow") == (
        "add (Add) spreads it over all channels"
    )
    assert error_of_removal(model, {"wide": [1]}) <= 1e-10


def test_outputs_stay():
    with pytest.raises(
        SurgeryError,
        match=r"Units head\[0\] cannot be removed: it is an output of the",
    ):
        plan_removal(dense_model(), {"head": [0]})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layer: layer.enable_lora(1), "carries LoRA weights"),
        (lambda layer: layer.quantize("int8"), "is quantized"),
    ],
)
def test_what_a_changed_kernel_reads_stays(change, reason):
    model = dense_model()
    change(model.get_layer("head"))
    assert reason_of(model, "fc") == f"head (Dense) {reason}"


def test_flatten_of_an_unknown_size_blocks():
    x = keras.Input((None, 4, 2))
    image = layers.Conv2D(3, 2, name="conv")(x)
    model = keras.Model(x, layers.Flatten(name="flat")(image))
    assert reason_of(model, "conv") == (
        "flat (Flatten) takes channels apart or does not know the size of its "
        "input (None, None, 3, 3)"
    )


def test_a_sum_with_an_input_stays():
    x = keras.Input((3,))
    hidden = layers.Dense(3, name="fc")(x) + x
    model = keras.Model(x, layers.Dense(1)(hidden))
    assert reason_of(model, "fc") == "it is an input of the model"


def test_a_dense_layer_with_softmax_inside_stays():
    x = keras.Input((3,))
    hidden = layers.Dense(3, activation="softmax", name="fc")(x)
    model = keras.Model(x, layers.Dense(1)(hidden))
    assert reason_of(model, "fc").startswith(
        "fc (Dense) ends in the activation softmax"
    )


def test_a_layer_as_activation_passes_only_while_it_computes_what_keras_does():
    def model_with(activation):
        return image_model(layers.Dense(3, activation=activation, name="fc"))

    model = model_with(layers.LeakyReLU(0.3))
    assert error_of_removal(model, {"fc": [0]}) <= 1e-10
    for mixing in (layers.Activation("softmax"), layers.Softmax()):
        assert "ends in the activation" in reason_of(model_with(mixing), "fc")
    model = model_with(FlippedReLU())
    assert "ends in the activation FlippedReLU" in reason_of(model, "fc")


def test_pinned_layers_stay():
    graph = ChannelGraph(dense_model(), {"fc": "the loss matches its width"})
    assert set(graph.reasons.values()) == {
        "the loss matches its width",
        "it is an input of the model",
        "it is an output of the model",
    }
    assert graph.removable_layers() == []


def test_what_blocks_one_layer_leaves_the_others_free():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="a"),
            FlippedDense(3, name="b"),
            layers.Dense(3, activation=oddly, name="c"),
            RenamedDense(3, name="d"),
            layers.Dense(1, name="head"),
        ]
    )
    randomize(model, seed=1)
    # b has no units of its own: what it does to channels is not known.
    assert removable_units(model) == {"a": 0, "c": 0, "d": 3, "head": 0}
    assert error_of_removal(model, {"d": [0, 2]}) <= 1e-10


@pytest.mark.filterwarnings("ignore:The object being serialized includes")
def test_a_lambda_as_activation_stays_but_the_rest_can_go():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, activation=lambda x: 2 * x, name="doubled"),
            layers.Dense(3, activation=lambda x: 3 * x, name="tripled"),
            layers.Dense(3, name="fc"),
            layers.Dense(1, name="head"),
        ]
    )
    randomize(model, seed=1)
    assert removable_units(model)["fc"] == 3
    assert error_of_removal(model, {"fc": [1]}) <= 1e-10


def test_activations_with_the_name_of_another_survive():
    def relu(x):
        return 7 * x

    def named_alike():
        def relu(x):
            return 5 * x

        return relu

    nested = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, activation=named_alike())]
    )
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, activation=relu),
            layers.Dense(3, activation=named_alike()),
            RenamedDense(3, activation=relu),
            layers.Dense(3, activation="relu"),
            layers.Activation("relu"),
            nested,
            layers.Dense(3, name="fc"),
            layers.Dense(1),
        ]
    )
    randomize(model, seed=1)
    assert error_of_removal(model, {"fc": [1]}) <= 1e-10


def test_an_activation_in_a_layer_with_its_own_from_config_survives():
    def tripled(x):
        return 3 * x

    class Own(layers.Dense):
        @classmethod
        def from_config(cls, config):
            activation = keras.activations.deserialize(config["activation"])
            return cls(**{**config, "activation": activation})

    model = keras.Sequential(
        [
            keras.Input((2,)),
            Own(3, activation=tripled),
            layers.Dense(3, name="fc"),
            layers.Dense(1),
        ]
    )
    randomize(model, seed=1)
    assert error_of_removal(model, {"fc": [1]}) <= 1e-10


def test_a_registered_rule_lets_a_layer_of_the_user_through():
    class Scaling(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(
                name="scale", shape=(shape[-1],), initializer="ones"
            )

        def call(self, inputs):
            return inputs * self.scale

    @register_rule(Scaling)
    class ScalingRule(Rule):
        channelwise = True

        def flow(self, call):
            call.slice("scale", 0, call.inputs[0])
            return call.inputs[0]

    model = image_model(Scaling(name="scaling"))
    smaller = remove_units(model, {"conv": [1]})
    expected = to_numpy(model.get_layer("scaling").scale)[[0, 2]]
    received = to_numpy(smaller.get_layer("scaling").scale)
    np.testing.assert_array_equal(received, expected)
    assert observed_names(model, "conv") == ["scaling"]
    assert error_of_removal(model, {"conv": [1]}) <= 1e-10


class Mixing(layers.Layer):
    """Multiplies the sum of its inputs by a matrix."""

    def build(self, a_shape, b_shape=None):
        self.kernel = self.add_weight(name="kernel", shape=(a_shape[-1], 2))

    def call(self, a, b=None):
        total = a if b is None else a + b
        return keras.ops.matmul(total, self.kernel)


class MixingRule(Rule):
    """Reads channels, makes new ones that stay, folds nothing."""

    def flow(self, call):
        for labels in call.inputs:
            call.consume("kernel", 0, labels)
        return np.array([], dtype=int)


@pytest.mark.parametrize("number_of_inputs", [1, 2])
def test_a_reader_whose_rule_folds_nothing_takes_zeros_only(number_of_inputs):
    register_rule(Mixing)(MixingRule)
    x = keras.Input((2,))
    read = [layers.Dense(3, name=name)(x) for name in "ab"[:number_of_inputs]]
    model = randomize(keras.Model(x, Mixing(name="mix")(*read)), seed=1)
    units = {name: [1] for name in "ab"[:number_of_inputs]}
    assert error_of_removal(model, units) <= 1e-10
    with pytest.raises(
        SurgeryError,
        match=r"a\[1\].*cannot be removed: mix \(Mixing\) cannot take a "
        "constant into a bias",
    ):
        plan_removal(model, units, constants={"a": {1: 1.0}})


def test_a_registered_rule_can_fold_into_a_bias_that_is_always_there():
    class Biased(Mixing):
        def build(self, a_shape):
            super().build(a_shape)
            self.bias = self.add_weight(name="bias", shape=(2,))

        def call(self, a):
            return super().call(a) + self.bias

    @register_rule(Biased)
    class BiasedRule(MixingRule):
        def fold(self, node, values):
            return values @ to_numpy(node.operation.kernel)

    x = keras.Input((2,))
    hidden = layers.Dense(3, name="fc")(x)
    model = randomize(keras.Model(x, Biased(name="mix")(hidden)), seed=1)
    plan = plan_removal(model, {"fc": [1]}, constants={"fc": {1: 2.0}})
    row = to_numpy(model.get_layer("mix").kernel)[1]
    np.testing.assert_allclose(plan.folds["mix"], 2.0 * row, rtol=1e-12)
    assert error_of_removal(model, {"fc": [1]}, {"fc": {1: 2.0}}) <= 1e-10


def test_a_rule_without_flow_lets_nothing_through():
    register_rule(Doubling)(type("DoublingRule", (Rule,), {}))
    assert reason_of(image_model(Doubling(name="d")), "conv") == (
        "d (Doubling) has a rule that lets nothing through"
    )


# Constants.


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


def groups_of(graph, layer_name, unit) -> set[int]:
    return {int(graph.group_numbers[graph.units[layer_name][unit]])}


def test_a_shift_behind_a_removed_unit_moves_into_the_bias_of_its_reader():
    model = model_with_late_normalization()
    plan = plan_removal(model, {"fc": [0]})
    assert plan.folds == {"reader": (pytest.approx(3.5 * 10),)}
    bias = to_numpy(plan.build().get_layer("reader").bias)
    np.testing.assert_allclose(bias, [7 + 35], rtol=1e-12)
    assert error_of_removal(model, {"fc": [0]}) <= 1e-10


@pytest.mark.parametrize("initializer", ["zeros", "ones"])
def test_a_reader_without_bias_gains_one(initializer):
    model = model_with_late_normalization(
        use_bias=False, bias_initializer=initializer
    )
    smaller = remove_units(model, {"fc": [0]})
    assert smaller.get_layer("reader").use_bias
    bias = to_numpy(smaller.get_layer("reader").bias)
    np.testing.assert_allclose(bias, [35], rtol=1e-12)
    assert error_of_removal(model, {"fc": [0]}) <= 1e-10


def test_a_given_constant_moves_into_the_bias():
    model = dense_model()
    smaller = remove_units(model, {"fc": [1, 2]}, constants={"fc": {1: 0.5}})
    bias = to_numpy(smaller.get_layer("head").bias)
    np.testing.assert_array_equal(bias, [1 + 0.5 * 20 + 0 * 30])


def test_a_constant_moves_through_pooling_and_flatten_and_valid_convolution():
    model = image_model(
        layers.MaxPooling2D(2, padding="same"), layers.Conv2D(2, 2, name="next")
    )
    kernel = to_numpy(model.get_layer("next").kernel)  # (2, 2, 3, 2)
    plan = plan_removal(model, {"conv": [1]}, constants={"conv": {1: -2.0}})
    expected = -2 * kernel[:, :, 1, :].sum(axis=(0, 1))
    np.testing.assert_allclose(plan.folds["next"], expected, rtol=1e-12)
    constants = {"conv": {1: -2.0}}
    assert error_of_removal(model, {"conv": [1]}, constants) <= 1e-10


def test_a_fold_leaves_out_units_of_the_reader_that_go_too():
    model = residual_model()
    units = {"first": [0], "second": [0], "inner": [1, 2]}
    constants = {"first": {0: 2.0}, "second": {0: 0.5}}
    assert error_of_removal(model, units, constants) <= 1e-10


def test_a_constant_that_meets_same_padding_is_refused():
    model = image_model(layers.Conv2D(2, 2, padding="same", name="next"))
    with pytest.raises(
        SurgeryError,
        match=r"Units conv\[1\] cannot be removed: next \(Conv2D\) pads with "
        r"zeros \(padding='same'\), so a constant input looks different at",
    ):
        plan_removal(model, {"conv": [1]}, constants={"conv": {1: 1.0}})
    assert error_of_removal(model, {"conv": [1]}) <= 1e-10  # at 0 it is fine


def test_a_pointwise_convolution_takes_a_constant_in_spite_of_same_padding():
    model = image_model(layers.Conv2D(2, 1, padding="same"))
    constants = {"conv": {1: 1.0}}
    assert error_of_removal(model, {"conv": [1]}, constants) <= 1e-10


def test_a_constant_behind_zero_padding_is_refused():
    model = image_model(layers.ZeroPadding2D(1, name="pad"))
    with pytest.raises(
        SurgeryError,
        match=r"conv\[1\] cannot be removed: its value is no constant behind "
        r"pad \(ZeroPadding2D\)\.",
    ):
        plan_removal(model, {"conv": [1]}, constants={"conv": {1: 1.0}})


def test_a_refusal_names_the_layer_behind_which_the_constant_is_lost():
    x = keras.Input((4, 4, 2))
    first = layers.Conv2D(2, 1, name="first")(x)
    second = layers.Conv2D(2, 1, name="second")(first)
    total = layers.ReLU(name="relu")(first + second)
    padded = layers.Identity()(layers.ZeroPadding2D(1, name="pad")(total))
    third = layers.Conv2D(2, 1, name="third")(padded)
    model = keras.Model(x, layers.Dense(1)(layers.Flatten()(third)))
    units = {"first": [0], "second": [0], "third": [0]}
    with pytest.raises(SurgeryError, match=r"no constant behind pad \(Zero"):
        plan_removal(model, units, constants={"second": {0: 1.0}})


@pytest.mark.parametrize("constants", [(1.0, 2.0), (1.0, 0.0), (0.0, 1.0)])
def test_a_shared_reader_that_gets_two_different_constants_is_refused(
    constants,
):
    x = keras.Input((2,))
    shared = layers.Dense(2, name="shared")
    left, right = layers.Dense(2, name="a")(x), layers.Dense(2, name="b")(x)
    model = keras.Model(x, [shared(left), shared(right)])
    randomize(model, seed=1)
    units = {"a": [0], "b": [0]}
    first, second = constants
    with pytest.raises(
        SurgeryError,
        match=r"cannot be removed: layer 'shared' is called twice, with "
        "constants that differ",
    ):
        plan_removal(
            model, units, constants={"a": {0: first}, "b": {0: second}}
        )
    equal = {"a": {0: 2.0}, "b": {0: 2.0}}
    assert error_of_removal(model, units, equal) <= 1e-10


def test_partners_observed_at_one_tensor_share_a_constant():
    x = keras.Input((2,))
    total = layers.Dense(2, name="a")(x) + layers.Dense(2, name="b")(x)
    model = randomize(keras.Model(x, layers.Dense(1)(total)), seed=1)
    units = {"a": [0], "b": [0]}
    with pytest.raises(
        SurgeryError,
        match="they are observed at the same tensor, which cannot be held at "
        "(2 and 3|3 and 2)",
    ):
        plan_removal(model, units, constants={"a": {0: 2.0}, "b": {0: 3.0}})
    for constants in (
        {"a": {0: 2.0}},
        {"b": {0: 2.0}},
        {"a": {0: 2.0}, "b": {0: 2.0}},
    ):
        assert error_of_removal(model, units, constants) <= 1e-10


def test_training_refuses_a_shift_that_differs_from_inference():
    graph = ChannelGraph(model_with_late_normalization())
    groups = groups_of(graph, "fc", 0)
    assert fold_constants(graph, groups, {}, training=False).refusals == {}
    assert list(
        fold_constants(graph, groups, {}, training=True).refusals.values()
    ) == ["the constant it leaves behind is 5 in training and 3.5 at inference"]


def test_training_accepts_the_shift_of_a_frozen_normalization():
    model = model_with_late_normalization()
    model.get_layer("bn").trainable = False
    graph = ChannelGraph(model)
    folding = fold_constants(
        graph, groups_of(graph, "fc", 0), {}, training=True
    )
    assert folding.refusals == {}
    np.testing.assert_allclose(folding.increments["reader"], [35])


def test_training_refuses_a_constant_behind_dropout():
    model = model_with_late_normalization(dropout=0.5)
    model.get_layer("bn").trainable = False
    graph = ChannelGraph(model)
    groups = groups_of(graph, "fc", 0)
    refusals = fold_constants(graph, groups, {}, training=True).refusals
    assert list(refusals.values()) == [
        "its value is no constant behind drop (Dropout)"
    ]
    assert error_of_removal(model, {"fc": [0]}) <= 1e-10  # at inference


@pytest.mark.parametrize("bn_training", [True, False])
def test_the_mode_of_the_model_wins_over_the_mode_given_to_a_call(bn_training):
    # Keras passes its own `training` to every layer of a graph.
    model = model_with_late_normalization(bn_training=bn_training)
    assert error_of_removal(model, {"fc": [0]}) <= 1e-10
    graph = ChannelGraph(model)
    groups = groups_of(graph, "fc", 0)
    assert fold_constants(graph, groups, {}, training=True).refusals


def test_training_accepts_a_zero_behind_dropout():
    graph = ChannelGraph(image_model(layers.Dropout(0.5)))
    groups = groups_of(graph, "conv", 0)
    assert fold_constants(graph, groups, {}, training=True).refusals == {}


# What is carried over.


def decorated_model() -> keras.Model:
    x = keras.Input((2,), name="pixels")
    y = layers.Dense(
        3,
        activation="relu",
        kernel_regularizer=keras.regularizers.L2(0.1),
        activity_regularizer=keras.regularizers.L1(0.1),
        name="fc",
    )(x)
    y = layers.BatchNormalization(name="bn")(y)
    z = layers.Dropout(0.5, seed=3, name="drop")(x)
    z = layers.Dense(2, dtype="float32", name="side")(z)
    frozen = layers.Dense(2, trainable=False, name="frozen")(y)
    model = keras.Model(
        inputs={"pixels": x}, outputs={"main": frozen, "side": z}, name="deco"
    )
    return randomize(model, seed=1)


def test_names_flags_dtypes_and_structure_survive():
    model = decorated_model()
    smaller = remove_units(model, {"fc": [1]})
    assert smaller.name == "deco"
    assert [x.name for x in smaller.layers] == [x.name for x in model.layers]
    for old, new in zip(model.layers, smaller.layers, strict=True):
        assert type(new) is type(old)
        assert new.trainable == old.trainable
        assert new.dtype_policy == old.dtype_policy
    assert [x.name for x in smaller.inputs] == ["pixels"]
    assert smaller.output_names == model.output_names
    assert len(smaller.losses) == len(model.losses)
    assert not smaller.compiled
    assert set(smaller({"pixels": np.ones((1, 2))})) == {"main", "side"}


def trainable_flags(model):
    return (
        model.trainable,
        [layer.trainable for layer in model.layers],
        [variable.trainable for variable in model.variables],
        len(model.trainable_weights),
    )


def test_a_single_frozen_weight_stays_frozen():
    model = residual_model()
    model.get_layer("second").kernel.trainable = False
    smaller = remove_units(model, {"inner": [0]})
    assert trainable_flags(smaller) == trainable_flags(model)
    assert len(smaller.trainable_weights) == len(model.weights) - 1


def test_a_frozen_model_stays_frozen():
    model = dense_model()
    model.trainable = False
    model.get_layer("fc").trainable = True  # without effect while it is frozen
    smaller = remove_units(model, {"fc": [0]})
    assert trainable_flags(smaller) == trainable_flags(model)
    assert smaller.trainable_weights == []


def test_a_frozen_layer_that_gains_a_bias_stays_frozen():
    model = model_with_late_normalization(use_bias=False)
    model.get_layer("reader").trainable = False
    smaller = remove_units(model, {"fc": [0]})
    assert smaller.get_layer("reader").trainable_weights == []


def test_the_given_model_is_left_as_it_was():
    model = model_with_late_normalization(use_bias=False)
    model.compile(keras.optimizers.Adam(), loss="mse")
    x, y = np.ones((4, 2)), [np.ones((4, 1)), np.ones((4, 1))]
    model.fit(x, y, verbose=0)
    optimizer, config = model.optimizer, model.get_config()
    values = variable_values(model)
    slots = [to_numpy(v) for v in optimizer.variables]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]

    remove_units(model, {"fc": [0]}, constants={"fc": {0: 1.0}})

    assert model.optimizer is optimizer
    assert model.compiled
    assert model.get_config() == config
    assert model.losses == []
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    for a, b in zip(variable_values(model), values, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(optimizer.variables, slots, strict=True):
        np.testing.assert_array_equal(to_numpy(a), b)
    model.fit(x, y, verbose=0)


def test_planning_leaves_no_loss_and_no_state_in_a_layer_it_replays():
    class Counting(layers.Layer):
        def build(self, shape):
            self.calls = self.add_weight(
                name="calls", shape=(), initializer="zeros", trainable=False
            )

        def call(self, inputs):
            self.calls.assign_add(1.0)
            self.add_loss(keras.ops.sum(inputs))
            return inputs + 1

    @register_rule(Counting)
    class CountingRule(Rule):
        channelwise = True

        def flow(self, call):
            return call.inputs[0]

    model = image_model(layers.MaxPooling2D(1), Counting(name="counting"))
    before = len(model.losses), to_numpy(model.get_layer("counting").calls)
    plan = plan_removal(model, {"conv": [1]})
    assert plan.folds  # so it was replayed
    after = len(model.losses), to_numpy(model.get_layer("counting").calls)
    assert after == before


def test_the_global_random_state_is_left_as_it_was():
    model = decorated_model()
    keras.utils.set_random_seed(1)
    expected = global_draws()
    keras.utils.set_random_seed(1)
    remove_units(model, {"fc": [1]})
    assert global_draws() == expected


def test_a_missing_global_generator_of_keras_stays_missing():
    model = decorated_model()
    keras.utils.clear_session()
    random.seed(1)
    expected = global_draws()
    keras.utils.clear_session()
    random.seed(1)
    np.random.seed(1)
    remove_units(model, {"fc": [1]})
    assert global_draws()[::2] == expected[::2]


def global_draws() -> tuple[float, float, float]:
    keras_draw = float(keras.random.uniform(()))
    return keras_draw, float(np.random.rand()), random.random()


def test_dropout_goes_on_where_it_was():
    model = decorated_model()
    x = {"pixels": np.ones((8, 2))}
    model(x, training=True)  # moves the seed on
    smaller = remove_units(model, {"fc": [1]})
    expected, received = model(x, training=True), smaller(x, training=True)
    assert len(np.unique(expected["side"], axis=0)) > 1
    np.testing.assert_array_equal(received["side"], expected["side"])


def test_the_smaller_model_trains_saves_and_loads(tmp_path):
    smaller = remove_units(residual_model(), {"inner": [0, 1]})
    smaller.compile("adam", loss="mse")
    x, y = np.ones((4, 2)), np.ones((4, 2))
    losses = smaller.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(loaded(x), smaller(x))


# The plan.


def test_a_plan_prints_the_dry_run():
    plan = plan_removal(model_with_late_normalization(), {"fc": [0]})
    assert str(plan).splitlines() == [
        "fc: 2 -> 1 units, without 0",
        "  fc: kernel axis 1 to 1, bias axis 0 to 1",
        "  bn: gamma axis 0 to 1, beta axis 0 to 1, moving_mean axis 0 to 1, "
        "moving_variance axis 0 to 1",
        "  other: kernel axis 0 to 1",
        "  reader: kernel axis 0 to 1",
        "  reader: constants fold into bias",
    ]


def test_a_plan_shortens_long_lists():
    model = keras.Sequential(
        [keras.Input((1,)), layers.Dense(20, name="fc"), layers.Dense(1)]
    )
    plan = plan_removal(model, {"fc": range(15)})
    assert str(plan).startswith(
        "fc: 20 -> 5 units, without 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 "
        "more"
    )


def test_an_empty_plan_says_so():
    assert str(plan_removal(dense_model(), {})) == "Nothing is removed."
    assert str(plan_removal(dense_model(), {"fc": []})) == "Nothing is removed."


def test_a_plan_becomes_json():
    plan = plan_removal(dense_model(), {"fc": [1]}, constants={"fc": {1: 0.5}})
    assert json.loads(plan.to_json()) == {
        "removed": {"fc": [1]},
        "arguments": {"fc": {"units": 2}},
        "slices": {
            "fc": {"kernel": {"1": [0, 2]}, "bias": {"0": [0, 2]}},
            "head": {"kernel": {"0": [0, 2]}},
        },
        "folds": {"head": [0.5 * 20]},
        "errors": {},
    }


def test_a_plan_is_frozen():
    plan = plan_removal(dense_model(), {"fc": [1]})
    with pytest.raises(dataclasses.FrozenInstanceError, match="removed"):
        plan.removed = {}


def test_a_plan_can_be_built_twice():
    plan = plan_removal(dense_model(), {"fc": [1]})
    first, second = plan.build(), plan.build()
    assert first is not second
    for a, b in zip(first.weights, second.weights, strict=True):
        assert a is not b
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def test_explain_shows_a_line_a_layer():
    assert explain(residual_model()).splitlines() == [
        "layer   units  removable  partners  why not",
        "first   3      3          second",
        "second  3      3          first",
        "inner   4      4",
        "head    2      0                    it is an output of the model",
    ]


def test_outgoing_norms_count_every_reader_of_a_group():
    norms = outgoing_norms(ChannelGraph(dense_model()))
    np.testing.assert_allclose(norms["fc"], [10, 20, 30])
    np.testing.assert_allclose(norms["head"], [0])
    model = residual_model()
    # A unit of `first` is read by `second` and, through the sum, by `inner`.
    readers = [to_numpy(model.get_layer(n).kernel) for n in ("second", "inner")]
    squares = sum((kernel**2).sum(axis=1) for kernel in readers)
    norms = outgoing_norms(ChannelGraph(model))
    np.testing.assert_allclose(norms["first"], np.sqrt(squares))
    np.testing.assert_allclose(norms["second"], np.sqrt(squares))


# Bad input.


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (
            {"nowhere": [0]},
            r"`units` must name layers that have removable units: \['fc'\]. "
            "Received: 'nowhere'",
        ),
        ({"fc": 1}, "'fc' must be a list of integers. Received: 1"),
        ({"fc": "1"}, "'fc' must be integers from 0 to 2. Received: '1'"),
        ({"fc": [3]}, "'fc' must be integers from 0 to 2. Received: 3"),
        ({"fc": [-1]}, "integers from 0 to 2. Received: -1"),
        ({"fc": [1.0]}, "integers from 0 to 2. Received: 1.0"),
        ({"fc": [True]}, "integers from 0 to 2. Received: True"),
        (
            {"fc": [0, 1, 2]},
            "'fc' must keep at least one unit. Received all 3 of its units for "
            "removal. Leave one out.",
        ),
    ],
)
def test_units_that_make_no_sense_are_refused(units, message):
    with pytest.raises(SurgeryError, match=message):
        plan_removal(dense_model(), units)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        (
            {"fc": {0: 1.0}},
            "must be given for units that are removed. Received one for unit 0 "
            "of layer 'fc'",
        ),
        ({"fc": {1: float("nan")}}, "finite numbers. Received: nan for unit 1"),
        ({"fc": {1: float("inf")}}, "finite numbers. Received: inf for unit 1"),
    ],
)
def test_constants_that_make_no_sense_are_refused(constants, message):
    with pytest.raises(SurgeryError, match=message):
        plan_removal(dense_model(), {"fc": [1]}, constants=constants)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.fc = layers.Dense(1)

    def call(self, inputs):
        return self.fc(inputs)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: keras.Sequential([layers.Dense(1)]),
            "a Sequential model that is not built: give it an Input or call it",
        ),
        (
            Subclassed,
            "the subclassed model Subclassed: write it as a Functional or",
        ),
        (
            lambda: layers.Dense(1),
            "`model` must be a keras.Model. Received: Dense",
        ),
    ],
)
def test_a_model_without_a_graph_is_refused(model, message):
    with pytest.raises(SurgeryError, match=message):
        unit_groups(model())


class OwnInit(keras.Model):
    def __init__(self, width):
        x = keras.Input((2,))
        hidden = layers.Dense(width, name="fc")(x)
        super().__init__(x, layers.Dense(1)(hidden))


def test_a_functional_model_with_an_init_of_its_own_is_refused():
    with pytest.raises(
        SurgeryError,
        match=r"Received 'own_init\w*' \(OwnInit\), which has an `__init__` of "
        r"its own. Make it with `keras.Model\(inputs, outputs\)`",
    ):
        remove_units(OwnInit(3), {"fc": [0]})


class NamedModel(keras.Model):
    """A Functional model that only has methods of its own."""


def test_a_subclass_of_a_functional_model_stays_that_class():
    x = keras.Input((2,))
    hidden = layers.Dense(3, name="fc")(x)
    model = NamedModel(x, layers.Dense(1)(hidden))
    assert type(remove_units(model, {"fc": [0]})) is NamedModel


def test_a_layer_that_keras_cannot_serialize_is_refused():
    class Applying(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    model = image_model(Applying(lambda x: x), layers.Dense(3, name="fc"))
    with pytest.raises(
        SurgeryError,
        match=r"(?s)must be rebuildable from `model.get_config.*Applying",
    ):
        remove_units(model, {"fc": [0]})


def test_a_layer_that_its_config_cannot_make_is_refused():
    class Needy(layers.Layer):
        def __init__(self, width, **options):
            super().__init__(**options)
            self.width = width

        def get_config(self):
            return super().get_config()

        def call(self, inputs):
            return inputs

    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="fc"),
            layers.Dense(1),
            Needy(1),
        ]
    )
    with pytest.raises(
        SurgeryError,
        match="must be rebuildable from `model.get_config",
    ):
        remove_units(model, {"fc": [0]})


@pytest.mark.parametrize(
    ("weight", "axis", "message"),
    [
        ("factor", 0, "names a weight 'factor', which must exist once. Rec"),
        ("kernel", 1, "3 channels on axis 1 of weight 'kernel'. Received a "),
        ("kernel", 2, "3 channels on axis 2 of weight 'kernel'. Received a "),
    ],
)
def test_a_rule_that_misnames_a_weight_is_refused(weight, axis, message):
    @register_rule(Mixing)
    class WrongRule(MixingRule):
        def flow(self, call):
            call.consume(weight, axis, call.inputs[0])
            return np.array([], dtype=int)

    x = keras.Input((2,))
    hidden = layers.Dense(3, name="fc")(x)
    model = keras.Model(x, Mixing(name="mix")(hidden))
    with pytest.raises(
        SurgeryError, match=f"The rule of layer 'mix' .*{message}"
    ):
        unit_groups(model)


@pytest.mark.parametrize("target", [int, 3, Doubling()])
def test_a_rule_for_something_else_than_a_layer_is_refused(target):
    with pytest.raises(TypeError, match="`targets` must be layer classes"):
        register_rule(target)


def test_explain_names_the_operations_that_let_nothing_through():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(4, 3, name="conv"),
            layers.LayerNormalization(name="norm"),
            layers.Flatten(name="flatten"),
            layers.Dense(2, name="out"),
        ]
    )
    rows = [line.split(maxsplit=3) for line in explain(model).splitlines()]
    assert rows[2] == [
        "norm",
        "-",
        "-",
        "norm (LayerNormalization) normalizes over its channels, so that each "
        "depends on all",
    ]
    assert rows[3][0] == "out"


def small_model(**options) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activation="relu", name="fc"),
            layers.Dense(2, name="out"),
        ],
        **options,
    )


def test_units_may_come_from_an_iterator():
    plan = plan_removal(small_model(), {"fc": (i for i in [1, 2])})
    assert plan.removed == {"fc": (1, 2)}


def test_a_plan_folds_constants_into_the_weights_of_the_moment_it_is_built():
    model = randomize(small_model(), 0)
    plan = plan_removal(model, {"fc": [0]}, constants={"fc": {0: 2.0}})
    model.set_weights([3 * value for value in model.get_weights()])
    now = remove_units(model, {"fc": [0]}, constants={"fc": {0: 2.0}})
    for built, fresh in zip(
        plan.build().get_weights(), now.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(built, fresh)


@pytest.mark.parametrize("units", [["fc"], None, [("fc", 1)]])
def test_units_that_are_no_dict_are_refused(units):
    with pytest.raises(SurgeryError, match="`units` must be a dict"):
        plan_removal(small_model(), units)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ([0.5], "`constants` must be a dict"),
        ({"fc": 0.5}, r"`constants\['fc'\]` must be a dict"),
        ({"fc": {0: "a"}}, "must be finite numbers"),
    ],
)
def test_constants_that_are_no_numbers_by_unit_are_refused(constants, message):
    with pytest.raises(SurgeryError, match=message):
        plan_removal(small_model(), {"fc": [0]}, constants=constants)


def test_layers_of_one_name_are_refused():
    model = small_model()
    model.layers[1].name = "fc"
    with pytest.raises(SurgeryError, match="two called 'fc'"):
        plan_removal(model, {"fc": [0]})


def test_a_distiller_is_answered_with_its_student():
    distiller = keras.distillation.Distiller(
        small_model(), small_model(), keras.distillation.LogitsDistillation()
    )
    with pytest.raises(SurgeryError, match="distiller.student"):
        explain(distiller)


def test_the_dtype_policy_of_the_model_is_kept_under_another_global_one():
    model = small_model()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        smaller = remove_units(model, {"fc": [0]})
    finally:
        keras.config.set_dtype_policy(policy)
    assert smaller.dtype_policy == model.dtype_policy


@pytest.mark.parametrize("shared_axes", [None, [1, 2], [1, 2, 3]])
def test_slopes_of_a_prelu_leave_with_their_channels(shared_axes):
    model = randomize(
        keras.Sequential(
            [
                keras.Input((5, 5, 2)),
                layers.Conv2D(4, 3, name="conv"),
                layers.PReLU(shared_axes=shared_axes, name="prelu"),
                layers.Flatten(),
                layers.Dense(2, name="out"),
            ]
        ),
        0,
    )
    x = np.random.default_rng(0).normal(size=(3, 5, 5, 2)).astype("float32")
    smaller = remove_units(model, {"conv": [1, 3]})
    (expected,) = held_outputs(model, {"conv": [1, 3]}, x)
    np.testing.assert_allclose(smaller(x), expected, rtol=1e-5, atol=1e-5)
    assert smaller.get_layer("prelu").output.shape[-1] == 4 - 2


@pytest.mark.parametrize("constant", [0.5, -0.5])
def test_a_constant_folds_through_one_slope_a_channel(constant):
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="fc")(inputs)
    branches = [layers.Dense(2, name="a")(x)]
    x = layers.PReLU(alpha_initializer="ones", name="prelu")(x)
    branches.append(layers.Dense(2, name="b")(x))
    model = randomize(keras.Model(inputs, layers.Add()(branches)), 0)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    held = {"fc": {1: constant}}
    smaller = remove_units(model, {"fc": [1]}, constants=held)
    (expected,) = held_outputs(model, {"fc": [1]}, x, constants=held)
    np.testing.assert_allclose(smaller(x), expected, rtol=1e-5, atol=1e-5)


def test_a_negative_constant_varies_behind_slopes_of_each_position():
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(3, 3, name="conv")(inputs)
    first = layers.GlobalAveragePooling2D()(x)
    x = layers.PReLU(name="prelu")(x)
    second = layers.GlobalAveragePooling2D()(x)
    outputs = [
        layers.Dense(2, name=n)(t) for n, t in (("a", first), ("b", second))
    ]
    model = randomize(keras.Model(inputs, layers.Add()(outputs)), 0)
    with pytest.raises(SurgeryError, match=r"no constant behind prelu"):
        plan_removal(model, {"conv": [1]}, constants={"conv": {1: -0.5}})
    assert plan_removal(model, {"conv": [1]}, constants={"conv": {1: 0.5}})
