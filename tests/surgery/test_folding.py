"""Constants that removed units leave behind, in the biases of readers."""

import keras
import numpy as np
import pytest
from helpers import (
    error_of_removal,
    float64,
    held_outputs,
    randomize,
    to_numpy,
)
from small_models import (
    dense_model,
    image_model,
    model_with_late_normalization,
    residual_model,
)

from keras_kddp.surgery import (
    ChannelGraph,
    SurgeryError,
    plan_removal,
    remove_units,
)
from keras_kddp.surgery.folding import fold_constants

layers = keras.layers


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


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


def test_training_takes_the_mean_of_a_constant_behind_dropout():
    model = model_with_late_normalization(dropout=0.5)
    model.get_layer("bn").trainable = False
    graph = ChannelGraph(model)
    groups = groups_of(graph, "fc", 0)
    folding = fold_constants(graph, groups, {}, training=True)
    assert folding.refusals == {}
    np.testing.assert_allclose(folding.increments["reader"], [35])
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


def test_a_float32_model_folds_in_float32():
    keras.config.set_dtype_policy("float32")
    model = model_with_late_normalization(use_bias=False)
    assert error_of_removal(model, {"fc": [0]}) <= 1e-6


@pytest.mark.parametrize("constant", [0.5, -0.5])
def test_a_constant_folds_through_one_slope_per_channel(constant):
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


@keras.saving.register_keras_serializable("test_folding")
class Positive(keras.constraints.Constraint):
    def __call__(self, value):
        return keras.ops.maximum(value, 0)


CONSTRAINTS = {
    "non_neg": "non_neg",
    "MaxNorm": keras.constraints.MaxNorm(2.0, axis=0),
    "own": Positive(),
}


def refused_in_training(model, unit=0) -> list[str]:
    graph = ChannelGraph(model)
    groups = groups_of(graph, "fc", unit)
    folding = fold_constants(graph, groups, {}, training=True)
    return list(folding.refusals.values())


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_training_refuses_a_constant_that_a_bias_constraint_would_change(
    constraint, use_bias
):
    model = model_with_late_normalization(
        use_bias=use_bias, bias_constraint=CONSTRAINTS[constraint]
    )
    model.get_layer("bn").trainable = False
    assert refused_in_training(model) == [
        "the bias_constraint of reader (Dense) would change the constant"
    ]
    assert error_of_removal(model, {"fc": [0]}) <= 1e-10  # at inference


@pytest.mark.parametrize("use_bias", [True, False])
def test_training_accepts_a_constant_in_a_constrained_bias_that_is_frozen(
    use_bias,
):
    model = model_with_late_normalization(
        use_bias=use_bias, bias_constraint="non_neg"
    )
    model.trainable = False
    assert refused_in_training(model) == []


def test_a_bias_constraint_does_not_keep_a_unit_that_leaves_nothing():
    model = model_with_late_normalization(bias_constraint="non_neg")
    model.get_layer("bn").trainable = False
    model.get_layer("bn").beta.assign([-(0 - 1) / 2 * 3, 0])
    assert len(refused_in_training(model)) == 0
