"""Every private Keras call still does what `_compat` promises."""

import os
import random
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from keras_kddp import _compat
from keras_kddp._compat.loading import checked_weights
from keras_kddp._compat.memory import forgotten_gradients, free_old_graphs
from keras_kddp._compat.optimizers import (
    carry_weight_decay_exclusions,
    decays,
    factored_slots,
    hidden_schedule,
    optimized_weights,
)
from keras_kddp.model_io import to_numpy


def functional() -> keras.Model:
    """input -> (a, b, a of b) -> sum; `a` is called twice."""
    inputs = keras.Input((2,), name="input")
    shared = layers.Dense(2, name="a")
    x = shared(inputs)
    y = layers.Dense(2, name="b")(x)
    outputs = layers.Add(name="sum")([shared(y), y])
    return keras.Model(inputs, outputs)


def test_functional_graph_is_the_model_or_what_a_sequential_keeps():
    model = functional()
    assert _compat.functional_graph(model) is model
    sequential = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    graph = _compat.functional_graph(sequential)
    assert [x.shape for x in graph.outputs] == [(None, 1)]
    assert graph.layers[-1] is sequential.layers[-1]


def test_functional_graph_is_none_where_there_is_no_graph():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    assert _compat.functional_graph(Subclassed()) is None
    assert _compat.functional_graph(keras.Sequential([layers.ReLU()])) is None


def test_keras_mask_is_what_a_layer_attached():
    words = layers.Embedding(3, 2, mask_zero=True)(np.array([[1, 0]]))
    assert np.asarray(_compat.keras_mask(words)).tolist() == [[True, False]]
    assert _compat.keras_mask(keras.ops.ones((1, 2))) is None


def test_call_nodes_are_the_calls_inputs_first():
    model = functional()
    nodes = _compat.call_nodes(model)
    names = [node.operation.name for node in nodes]
    assert names == ["input", "a", "b", "a", "sum"]
    assert nodes[0].inputs == ()
    for node in nodes[1:]:
        known = [x for earlier in nodes for x in earlier.outputs]
        assert all(any(x is y for y in known) for x in node.inputs)
    assert nodes[-1].outputs[0] is model.outputs[0]
    assert nodes[-1].args[0][1] is nodes[2].outputs[0]


def test_call_nodes_show_raw_operations_and_their_arguments():
    inputs = keras.Input((2,))
    outputs = keras.ops.leaky_relu(inputs, negative_slope=0.5)
    _, node = _compat.call_nodes(keras.Model(inputs, outputs))
    assert type(node.operation).__name__ == "LeakyRelu"
    assert node.args[0] is inputs
    assert node.inputs == (inputs,)


def test_producing_node_is_the_call_that_made_a_tensor():
    model = functional()
    node = _compat.producing_node(model.outputs[0])
    assert node.operation.name == "sum"
    assert [_compat.producing_node(x).operation.name for x in node.inputs] == [
        "a",
        "b",
    ]


def test_tensor_reference_names_a_tensor_as_the_config_does():
    model = functional()
    layers_of_config = {
        entry["name"]: entry["inbound_nodes"]
        for entry in model.get_config()["layers"]
    }
    (call,) = layers_of_config["sum"]
    expected = [tensor["config"]["keras_history"] for tensor in call["args"][0]]
    nodes = _compat.call_nodes(model)
    received = [_compat.tensor_reference(x, nodes) for x in nodes[-1].inputs]
    assert received == [list(reference) for reference in expected]
    assert received[0] == ["a", 1, 0]


def test_tensor_reference_does_not_count_calls_outside_the_model():
    whole = functional()
    shared = whole.get_layer("a")
    inputs = keras.Input((2,))
    model = keras.Model(inputs, shared(inputs))  # the third call of `a`
    nodes = _compat.call_nodes(model)
    assert _compat.tensor_reference(model.outputs[0], nodes) == ["a", 0, 0]


def drawn_numbers() -> list[float]:
    """Returns what the global generators say next."""
    return [
        random.random(),
        float(np.random.random()),
        float(keras.random.normal(())),
        keras.random.SeedGenerator().get_config()["seed"],
    ]


@pytest.mark.parametrize("has_drawn", [True, False])
def test_untouched_seeds_leaves_every_global_state(has_drawn):
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    if has_drawn:
        drawn_numbers()
    python, numpy = random.getstate(), np.random.get_state()
    with _compat.untouched_seeds():
        drawn_numbers()
        keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    assert random.getstate() == python
    assert all(map(np.array_equal, np.random.get_state(), numpy))
    received = drawn_numbers()

    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    if has_drawn:
        drawn_numbers()
    assert drawn_numbers() == received


def test_compiled_loss_leaves_added_losses_out():
    model = keras.Sequential(
        [keras.Input((1,)), layers.Dense(1, kernel_regularizer="l2")]
    )
    model.compile(loss="mse")
    y, y_pred = np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]])
    assert float(_compat.compiled_loss(model, y, y_pred, None)) == 2.0
    weight = np.array([1.0, 0.5])
    assert float(_compat.compiled_loss(model, y, y_pred, weight)) == 1.0


def test_share_of_replica_is_all_of_it_where_there_is_one():
    loss = keras.ops.convert_to_tensor(3.0)
    assert float(_compat.share_of_replica(loss)) == 3.0
    assert float(_compat.whole_of_replicas(loss)) == 3.0


TWO_REPLICAS = """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
from keras_kddp import _compat

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def step():
    share = _compat.share_of_replica(tf.constant(3.0))
    return share, _compat.whole_of_replicas(share)

results = [strategy.experimental_local_results(x) for x in strategy.run(step)]
print([[float(x) for x in values] for values in results])
"""


def test_share_of_replica_is_half_of_it_where_there_are_two():
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TWO_REPLICAS],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert output.splitlines()[-1] == "[[1.5, 1.5], [3.0, 3.0]]"


class Pair(keras.Model):
    def __init__(self, first, second):
        super().__init__()
        self.first = first
        self.second = second

    def call(self, inputs):
        return self.first(inputs) + self.second(inputs)


def built_pair() -> Pair:
    pair = Pair(layers.Dense(1), layers.Dense(1))
    pair(np.ones((1, 2)))
    return pair


def test_replace_sublayer_puts_the_new_one_in_the_old_ones_place():
    pair = built_pair()
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        pair.first = layers.Dense(1)  # why the private call is needed
    pair = built_pair()
    new, second = layers.Dense(1), pair.second
    new.build((None, 2))
    _compat.replace_sublayer(pair, "first", new)
    assert pair.first is new
    assert pair.layers == [new, second]
    assert pair.variables == [*new.variables, *second.variables]
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        pair.third = layers.Dense(1)


class Scaling(keras.Model):
    """Multiplies by a number that a trace takes for a constant."""

    factor = 1.0

    def build(self, input_shape):
        self.one = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs):
        return self.factor * self.one * inputs


def test_forget_compiled_functions_makes_every_function_trace_anew():
    class Triple(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.factor = 3.0
                _compat.forget_compiled_functions(self.model)

    model = Scaling()
    model.compile(optimizers.SGD(0.0), "mse")
    x, y = np.ones((2, 1)), np.zeros((2, 1))
    assert model.evaluate(x, y, verbose=0) == 1.0
    assert model.predict(x, verbose=0).tolist() == [[1.0], [1.0]]
    history = model.fit(x, y, epochs=4, verbose=0, callbacks=[Triple()]).history
    assert history["loss"] == [1.0, 1.0, 9.0, 9.0]
    assert model.evaluate(x, y, verbose=0) == 9.0
    assert model.predict(x, verbose=0).tolist() == [[3.0], [3.0]]


def test_hidden_schedule_is_seen_and_put_back():
    schedule = optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    optimizer = optimizers.SGD(schedule)
    before = optimizer.get_config()
    with hidden_schedule(optimizer) as hidden:
        assert hidden is schedule
        assert optimizer.get_config()["learning_rate"] == 0.5
    assert optimizer.get_config() == before
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


def test_hidden_schedule_is_none_for_a_number():
    optimizer = optimizers.SGD(0.25)
    with hidden_schedule(optimizer) as hidden:
        assert hidden is None
        assert optimizer.get_config()["learning_rate"] == 0.25


def test_weight_decay_exclusions_are_carried_to_other_weights():
    def variables() -> list[keras.Variable]:
        names = ["kernel", "bias", "gamma"]
        return [keras.Variable([1.0], name=name) for name in names]

    old_weights, new_weights = variables(), variables()
    old, new = (optimizers.SGD(1.0, weight_decay=0.5) for _ in range(2))
    old.exclude_from_weight_decay([old_weights[0]], var_names=["bia"])
    pairs = list(zip(old_weights, new_weights, strict=True))
    carry_weight_decay_exclusions(old, new, pairs)
    new.apply([keras.ops.zeros((1,))] * 3, new_weights)
    decayed = [to_numpy(weight).tolist() for weight in new_weights]
    assert decayed == [[1.0], [1.0], [0.5]]


def test_without_exclusions_every_weight_decays():
    old, new = (optimizers.SGD(1.0, weight_decay=0.5) for _ in range(2))
    weight = keras.Variable([1.0], name="kernel")
    carry_weight_decay_exclusions(old, new, [(weight, weight)])
    new.apply([keras.ops.zeros((1,))], [weight])
    assert to_numpy(weight).tolist() == [0.5]


def test_all_layers_are_those_inside_other_layers_too():
    inner = layers.Dense(2, name="inner")
    nested = keras.Sequential([keras.Input((2,)), inner])
    model = keras.Sequential([keras.Input((2,)), nested, layers.Dense(1)])
    found = _compat.all_layers(model)
    assert any(layer is inner for layer in found)
    assert all(layer is not model for layer in found)


def test_factored_slots_lack_axes_of_their_weight():
    kernel = keras.Variable(np.ones((2, 3, 4)))
    bias = keras.Variable(np.ones(4))
    optimizer = keras.optimizers.Adafactor(0.1)
    optimizer.build([kernel, bias])
    found = [
        (tuple(slot.shape), weight is kernel, axes)
        for slot, weight, axes in factored_slots(optimizer)
    ]
    assert found == [
        ((2, 3), True, (2,)),
        ((2, 4), True, (1,)),
        ((), False, (0,)),
        ((), False, (0,)),
    ]
    adam = keras.optimizers.Adam()
    adam.build([kernel])
    assert not list(factored_slots(adam))


@pytest.mark.parametrize(
    "optimizer",
    [optimizers.Nadam(), optimizers.LossScaleOptimizer(optimizers.SGD(0.1))],
    ids=["nadam", "loss scale"],
)
def test_optimized_weights_are_what_an_optimizer_was_built_for(optimizer):
    weights = [keras.Variable([1.0]), keras.Variable([2.0])]
    optimizer.build(weights)
    found = optimized_weights(optimizer)
    assert [x is y for x, y in zip(found, weights, strict=True)] == [True] * 2


def test_decays_is_what_a_step_does():
    names = ["kernel", "bias", "gamma"]
    weights = [keras.Variable([1.0], name=name) for name in names]
    optimizer = optimizers.SGD(1.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay([weights[0]], var_names=["bia"])
    optimizer.build(weights)
    said = [decays(optimizer, weight) for weight in weights]
    assert said == [False, False, True]
    optimizer.apply([keras.ops.zeros((1,))] * 3, weights)
    assert [float(x[0]) for x in weights] == [1.0, 1.0, 0.5]
    assert not decays(optimizers.SGD(1.0), weights[2])


def test_compiled_metrics_keep_the_structure_that_was_given():
    model = functional()
    assert _compat.compiled_metrics(model) is None
    model.compile("sgd", "mse", metrics={"sum": ["mae"]})
    assert _compat.compiled_metrics(model) == {"sum": ["mae"]}


@pytest.mark.parametrize("kind", [layers.Dense, layers.ReLU, keras.Sequential])
def test_automatic_name_is_what_keras_calls_the_first_of_a_class(kind):
    keras.backend.clear_session()
    made = kind(1) if kind is layers.Dense else kind()

    assert made.name == _compat.automatic_name(kind)


def test_gradients_of_a_step_are_forgotten_those_of_functions_in_it_stay():
    import tensorflow as tf
    from tensorflow.python.framework import ops

    @tf.custom_gradient
    def doubled(x):
        return 2 * x, lambda gradient: 2 * gradient

    inner = tf.function(doubled)

    @tf.function
    def step(x):
        with forgotten_gradients():
            return doubled(x) + inner(x)

    before = len(ops.gradient_registry.list())

    assert float(step(tf.constant(1.0))) == 2 * 1 + 2 * 1

    assert len(ops.gradient_registry.list()) == before + 1
    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = inner(x)
    assert float(tape.gradient(y, x)) == 2
    with forgotten_gradients():  # nothing is registered while nothing is traced
        assert float(doubled(x)) == 6


def test_freeing_leaves_what_is_held():
    held = layers.Dense(1)
    held.build((None, 2))
    value = to_numpy(held.kernel)
    circle = [held]
    circle.append(circle)
    del circle

    free_old_graphs()

    np.testing.assert_array_equal(to_numpy(held.kernel), value)
    assert to_numpy(held(np.ones((1, 2), "float32"))).shape == (1, 1)


def test_threads_that_check_weights_leave_keras_as_it_was():
    original = keras.layers.Layer.add_weight
    inside, go_on = threading.Event(), threading.Event()

    def first():
        with checked_weights(lambda _: None):
            inside.set()
            go_on.wait(0.2)  # in vain where threads take turns

    def second():
        inside.wait(5)
        with checked_weights(lambda _: None):
            go_on.set()
            threads[0].join(5)

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert keras.layers.Layer.add_weight is original
