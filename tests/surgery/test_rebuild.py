"""What a smaller model takes over from the one it was made of."""

import random

import keras
import numpy as np
import pytest
from helpers import (
    error_of_removal,
    float64,
    randomize,
    to_numpy,
    variable_values,
)
from small_models import (
    RenamedDense,
    dense_model,
    image_model,
    model_with_late_normalization,
    residual_model,
    small_model,
)

from keras_kddp.surgery import (
    SurgeryError,
    remove_units,
)

layers = keras.layers


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


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


def test_the_dtype_policy_of_the_model_is_kept_under_another_global_one():
    model = small_model()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        smaller = remove_units(model, {"fc": [0]})
    finally:
        keras.config.set_dtype_policy(policy)
    assert smaller.dtype_policy == model.dtype_policy


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


def twice(x):
    return 2 * x


@pytest.mark.parametrize("function", [twice, lambda x: 2 * x])
def test_a_function_is_said_to_need_a_registered_name(function):
    model = image_model(layers.Lambda(function), layers.Dense(3, name="fc"))
    with pytest.raises(
        SurgeryError, match=r"(?s)register_keras_serializable\(\)`\.$"
    ) as refused:
        remove_units(model, {"fc": [0]})
    assert "safe_mode=False" not in str(refused.value)


def test_a_lambda_of_a_registered_function_is_rebuilt():
    @keras.saving.register_keras_serializable("test_rebuild")
    def thrice(x):
        return 3 * x

    model = image_model(layers.Lambda(thrice), layers.Dense(3, name="fc"))
    assert remove_units(model, {"fc": [0]}).get_layer("fc").units == 2
