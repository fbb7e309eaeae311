"""Rules that somebody registers for layers of their own."""

import keras
import numpy as np
import pytest
from helpers import (
    error_of_removal,
    float64,
    observed_names,
    randomize,
    reason_of,
    to_numpy,
)
from small_models import (
    Doubling,
    image_model,
)

from keras_kddp.surgery import (
    Rule,
    SurgeryError,
    plan_removal,
    register_rule,
    registry,
    remove_units,
    unit_groups,
)

layers = keras.layers


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


@pytest.fixture(autouse=True)
def own_rules(monkeypatch):
    """Forgets the rules that a test registers."""
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))


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
