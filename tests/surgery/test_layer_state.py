"""A copy knows what the original's layers know beside their weights."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kddp as kddp
from keras_kddp.compression.controls import reinitialized
from keras_kddp.export.model.float32 import plain_copy

layers = keras.layers
NUMBERS = np.array([[3], [7], [11], [3]])
WORDS = tf.constant([["red"], ["green"], ["blue"], ["red"]])
TEXTS = tf.constant(["a red cat", "a blue dog", "red red", "dog cat a"])
ROWS = (np.random.default_rng(0).random((32, 6)) * 50 + 20).astype("float32")


@keras.saving.register_keras_serializable(package="tests")
class Counting(layers.Layer):
    """Saves a number by itself, and a table as a file of its own."""

    offset = 0.0
    table = ()

    def save_own_variables(self, store):
        store["offset"] = np.array(self.offset)

    def load_own_variables(self, store):
        self.offset = float(np.array(store["offset"]))

    def save_assets(self, dir_path):
        Path(dir_path, "table.json").write_text(json.dumps(self.table))

    def load_assets(self, dir_path):
        self.table = json.loads(Path(dir_path, "table.json").read_text())

    def call(self, inputs):
        return inputs + self.offset + sum(self.table)


def normalized(**arguments):
    layer = layers.Normalization(**arguments)
    layer.adapt(ROWS)
    return keras.Input((6,)), layer, ROWS


def counted():
    layer = Counting(name="counting")
    layer.offset, layer.table = 2.5, [1, 2]
    return keras.Input((6,)), layer, ROWS


class Prepared(layers.Layer):
    """Has a layer inside that learned from data."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.normalization = layers.Normalization()

    def build(self, input_shape):
        if not self.normalization.built:
            self.normalization.build(input_shape)

    def call(self, inputs):
        return self.normalization(inputs)


def prepared():
    layer = Prepared()
    layer.normalization.adapt(ROWS)
    return keras.Input((6,)), layer, ROWS


def piped():
    inputs, layer, data = normalized()
    return inputs, layers.Pipeline([layer, layers.Rescaling(2.0)]), data


def distributed():
    _, layer, _ = normalized()
    data = np.stack([ROWS] * 2, axis=1)
    return keras.Input((2, 6)), layers.TimeDistributed(layer), data


def stateful():
    inputs = keras.Input(batch_shape=(32, 2, 6))
    layer = layers.LSTM(4, stateful=True)
    return inputs, layer, np.stack([ROWS] * 2, axis=1) / 100


def quantized():
    layer = layers.Dense(5)
    layer.build((None, 6))
    layer.quantize("int8")
    return keras.Input((6,)), layer, ROWS / 100


def looked_up(layer, data, dtype, shape=(1,)):
    layer.adapt(data)
    return keras.Input(shape, dtype=dtype), layer, data


STATES = {
    "Normalization": normalized,
    "Normalization, one mean": lambda: normalized(axis=None),
    "Normalization, inverted": lambda: normalized(invert=True),
    "StringLookup": lambda: looked_up(layers.StringLookup(), WORDS, "string"),
    "StringLookup, one-hot": lambda: looked_up(
        layers.StringLookup(output_mode="one_hot"), WORDS, "string"
    ),
    "IntegerLookup": lambda: looked_up(
        layers.IntegerLookup(), NUMBERS, "int64"
    ),
    "Discretization": lambda: looked_up(
        layers.Discretization(num_bins=3), NUMBERS.astype("float32"), "float32"
    ),
    "TextVectorization": lambda: looked_up(
        layers.TextVectorization(output_sequence_length=4), TEXTS, "string", ()
    ),
    "TextVectorization, tf-idf": lambda: looked_up(
        layers.TextVectorization(output_mode="tf_idf"), TEXTS, "string", ()
    ),
    "a layer of one's own": counted,
    "Normalization inside a layer": prepared,
    "Normalization inside a Pipeline": piped,
    "Normalization at each step": distributed,
    "LSTM, stateful": stateful,
    "Dense, quantized": quantized,
}


def model_of(name, is_nested):
    """Returns a model that begins with a layer of a state, and inputs."""
    inputs, layer, data = STATES[name]()
    x = layer(inputs)
    if is_nested:
        inner = keras.Model(inputs, x, name="inner")
        inputs = keras.Input(batch_shape=inputs.shape, dtype=inputs.dtype)
        x = inner(inputs)
    if "int" in x.dtype:
        x = layers.Flatten()(layers.Embedding(9, 4)(x))
    x = layers.Dense(8, "relu", name="fc")(x)
    return keras.Model(inputs, layers.Dense(3)(x)), data


def removed(model):
    """Returns the model without a unit that is silent."""
    kernel, bias = model.get_layer("fc").get_weights()
    kernel[:, 2], bias[2] = 0, 0
    model.get_layer("fc").set_weights([kernel, bias])
    return kddp.remove_units(model, {"fc": [2]})


@pytest.mark.parametrize("is_nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize(
    "copy",
    [kddp.prepare, lambda m: kddp.finalize(kddp.prepare(m)), removed],
    ids=["prepare", "finalize", "remove"],
)
def test_a_copy_computes_what_the_original_computes(name, copy, is_nested):
    model, data = model_of(name, is_nested)

    found = copy(model)

    np.testing.assert_allclose(
        np.array(found(data)), np.array(model(data)), atol=1e-6, rtol=1e-5
    )


def test_the_student_of_a_run_is_the_file_that_is_saved(tmp_path):
    model, data = model_of("Normalization", False)
    teacher, _ = model_of("Normalization", False)
    distiller = kddp.Distiller(teacher, kddp.prepare(model))
    distiller.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    pruning = kddp.DynamicPruning(threshold=0.5, minimum_change=0.0)
    labels = np.arange(len(data)) % 3

    distiller.fit(data, labels, epochs=6, verbose=0, callbacks=[pruning])
    student = kddp.finalize(distiller.student)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")

    assert pruning.removals
    np.testing.assert_allclose(loaded(data), student(data), atol=1e-6)
    np.testing.assert_allclose(
        distiller.predict(data, verbose=0), student(data), atol=1e-5
    )


@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "cut"])
def test_a_stateful_layer_goes_on_where_it_stands(is_cut):
    inputs = keras.Input(batch_shape=(4, 5, 6))
    x = layers.Dense(8, "relu", name="fc", bias_initializer="ones")(inputs)
    model = keras.Model(inputs, layers.GRU(3, stateful=True)(x))
    kernel, bias = model.get_layer("fc").get_weights()
    kernel[:, 2], bias[2] = 0, 0
    model.get_layer("fc").set_weights([kernel, bias])
    data = np.stack([ROWS[:4]] * 5, axis=1) / 100
    model(data)

    found = kddp.remove_units(model, {"fc": [2]} if is_cut else {})

    np.testing.assert_allclose(
        np.array(found(data)), np.array(model(data)), atol=1e-6
    )


def test_the_float32_copy_that_is_exported_knows_the_statistics():
    inputs, layer, data = normalized()
    x = layers.Dense(8, "relu", dtype="mixed_float16")(layer(inputs))
    model = keras.Model(inputs, layers.Dense(3, dtype="mixed_float16")(x))

    np.testing.assert_allclose(
        np.array(plain_copy(model)(data)), np.array(model(data)), atol=2e-2
    )


@pytest.mark.parametrize(
    "name",
    ["Normalization", "Normalization inside a layer", "StringLookup, one-hot"],
)
def test_a_student_from_scratch_keeps_what_was_learned_before_training(name):
    inputs, layer, data = STATES[name]()
    x = layers.Dense(8, "relu", name="fc")(layer(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))

    keras.utils.set_random_seed(1)
    model.get_layer("fc").set_weights(
        [np.random.normal(size=w.shape) for w in model.get_layer("fc").weights]
    )
    fresh = reinitialized(model, 0)

    np.testing.assert_allclose(
        np.array(fresh.get_layer(layer.name)(data)), np.array(layer(data))
    )
    kernels = [m.get_layer("fc").get_weights()[0] for m in (fresh, model)]
    assert (kernels[0] != kernels[1]).all()
