"""What no file can hold: the layer, the operation, and what helps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kddp.export import (
    ExportError,
    to_microcontroller,
    to_saved_model,
    to_tflite,
    verify,
)
from keras_kddp.export.model.layer_names import LayerNames
from keras_kddp.export.runtimes.refusals import explained
from keras_kddp.export.tflite.conversion_errors import naming_the_layer
from keras_kddp.export.tflite.converter import ConversionError
from keras_kddp.export.tflite.to_tflite import check_conversion

layers = keras.layers
X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


def sequential(*parts, shape=(4,), dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *parts])


def refused(model, folder, quantization, match):
    path = folder / "m.tflite"
    is_calibrated = quantization.startswith("int")
    with pytest.raises(ExportError, match=match):
        to_tflite(
            model,
            path,
            quantization=quantization,
            calibration=X if is_calibrated else None,
        )
    assert not path.exists()


class Mapped(layers.Layer):
    """A loop that kills the converter in integers."""

    def call(self, inputs):
        return tf.map_fn(tf.tanh, inputs)


class Branching(layers.Layer):
    """A branch, of which one side does nothing."""

    def call(self, inputs):
        positive = keras.ops.sum(inputs) > 0
        return keras.ops.cond(positive, lambda: inputs * 2, lambda: inputs)


# Before the model is traced


def words():
    lookup = layers.StringLookup(vocabulary=["red", "blue"], name="words")
    inputs = keras.Input((1,), dtype="string")
    x = layers.Flatten()(layers.Embedding(4, 3)(lookup(inputs)))
    return keras.Model(inputs, layers.Dense(2)(x))


def texts():
    return sequential(
        layers.TextVectorization(
            vocabulary=["red", "blue"], output_sequence_length=4, name="text"
        ),
        layers.Embedding(4, 3),
        layers.Flatten(),
        shape=(),
        dtype="string",
    )


def counted(output_mode):
    inputs = keras.Input((3,), dtype="int32")
    encoding = layers.CategoryEncoding(5, output_mode=output_mode, name="code")
    return keras.Model(inputs, layers.Dense(2)(encoding(inputs)))


def looked_up_inside():
    inner = sequential(
        layers.IntegerLookup(vocabulary=[3, 7], name="ids"),
        layers.Embedding(4, 3),
        shape=(1,),
        dtype="int64",
    )
    inputs = keras.Input((1,), dtype="int64")
    return keras.Model(inputs, layers.Flatten()(inner(inputs)))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (words, r"'words' \(StringLookup\).*get_layer\('words'\).output"),
        (texts, r"'text' \(TextVectorization\).*model.layers\[1:\]"),
        (looked_up_inside, r"/ids' \(IntegerLookup\)"),
        *(
            (
                lambda mode=mode: counted(mode),
                r"'code' \(CategoryEncoding\).*get_layer\('code'\).output",
            )
            for mode in ("multi_hot", "count")
        ),
        (lambda: sequential(layers.Hashing(5, name="h"), shape=(1,)), "'h' "),
        (
            lambda: sequential(layers.Identity(), shape=(1,), dtype="string"),
            "must be numbers. Received: input .* of strings",
        ),
    ],
    ids=[
        *("words", "texts", "nested", "multi-hot", "count", "hashing"),
        "strings",
    ],
)
def test_what_looks_words_up_is_refused_by_name(make, match, tmp_path):
    model = make()
    refused(model, tmp_path, "none", match)
    with pytest.raises(ExportError, match=match):
        check_conversion(model)


def test_the_part_behind_a_lookup_is_exported(tmp_path):
    model = words()
    behind = keras.Model(model.get_layer("words").output, model.output)

    artifact = to_tflite(behind, tmp_path / "m.tflite")

    x = np.array([[0], [1], [2]])
    assert verify(behind, artifact, x).passed


@pytest.mark.parametrize("make", [texts, looked_up_inside])
def test_a_saved_model_looks_up(make, tmp_path):
    model = make()
    x = {
        texts: ["a red", "blue"],
        looked_up_inside: [[7], [9]],
    }[make]

    loaded = tf.saved_model.load(str(to_saved_model(model, tmp_path / "s")))

    x = tf.constant(x, model.inputs[0].dtype)
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)


def test_weights_too_large_for_float16_are_refused(tmp_path):
    large = layers.Dense(2, name="large")
    model = sequential(large, layers.BatchNormalization())
    model.layers[1].moving_variance.assign([1e6, 1e6])
    to_tflite(model, tmp_path / "m.tflite", quantization="float16")
    large.bias.assign([65505, 0])
    (tmp_path / "m.tflite").unlink()
    refused(
        model,
        tmp_path,
        "float16",
        r"within 65504. Received: 65505 in 'bias' of layer 'large' \(Dense\)",
    )


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("quantization", ["int8", "dynamic", "float16"])
def test_weights_that_are_not_finite_are_refused(value, quantization, tmp_path):
    model = sequential(layers.Dense(2, name="spoilt"))
    model.layers[0].bias.assign([0, value])
    refused(
        model,
        tmp_path,
        quantization,
        r"finite. Received: 1 NaN or infinite in 'bias' of layer 'spoilt' \(D",
    )


# What the converter says


def exploding():
    kernel = keras.initializers.Constant(1e30)
    return sequential(
        layers.Dense(2, kernel_initializer=kernel),
        layers.Dense(2, kernel_initializer=kernel, name="second"),
        layers.Dense(2),
    )


def silent(bias):
    never = keras.initializers.Constant(-100.0)
    return sequential(
        layers.Dense(3, "relu", bias_initializer=never, name="silent"),
        layers.Dense(3, "relu", bias_initializer=bias, name="behind"),
        layers.Dense(2),
    )


def masked(masking):
    return sequential(layers.Reshape((2, 2)), masking, layers.LSTM(2))


def silent_unit():
    """One unit that never fires, with a bias; one scale is for all of it."""
    never = keras.initializers.Constant(-100.0)
    return sequential(
        layers.Dense(1, "relu", bias_initializer=never, name="one"),
        layers.Dense(2),
    )


def tiny_sum(offset):
    """A sum of large numbers that is nothing, or next to it."""
    inputs = keras.Input((4,))
    x = layers.Dense(3, "sigmoid", use_bias=False)(inputs) * 1e-6
    total = layers.Add(name="sum")([x - 1.0, x * 1.0 + offset])
    return keras.Model(inputs, layers.Dense(2)(layers.ReLU()(total)))


def attention(layer):
    """Attention of two positions to themselves and those before them."""
    inputs = keras.Input((4,))
    x = layers.Dense(3)(layers.Reshape((2, 2))(inputs))
    is_single = isinstance(layer, layers.Attention)
    given = ([x, x],) if is_single else (x, x)
    return keras.Model(inputs, layer(*given, use_causal_mask=True))


@pytest.mark.parametrize(
    ("make", "quantization", "match"),
    [
        (
            lambda: sequential(layers.MaxPooling3D(1, name="p"), shape=[4] * 4),
            "none",
            r"What layer 'p' \(MaxPooling3D\) computes .*'tf.MaxPool3D' op",
        ),
        (
            lambda: sequential(layers.Dense(2, "selu", name="s")),
            "int16x8",
            r"Received: GREATER of layer 's' \(Dense\)",
        ),
        (exploding, "int8", r"finite range.*from layer 'second' \(Dense\)"),
        (
            lambda: silent("ones"),
            "int16x8",
            r"goes into layer 'behind' \(Dense\) must .*only zeros.* masked in",
        ),
        (
            lambda: masked(layers.Masking(name="masking")),
            "int16x8",
            r"masked: .* Received: layer 'masking' \(Masking\). Use",
        ),
        (
            silent_unit,
            "int16x8",
            r"what layer 'one' \(Dense\) computes must .*only zeros come out",
        ),
        (
            lambda: tiny_sum(-1.0),
            "int16x8",
            r"what layer 'sum' \(Add\) computes must .*only zeros come out",
        ),
        (
            lambda: tiny_sum(1.0),
            "int16x8",
            r"what layer 'sum' \(Add\) computes .* at most .*e-06 comes out",
        ),
        (
            lambda: attention(layers.Attention(name="att")),
            "int16x8",
            r"masked scores, -1e\+09 beside .* in layer 'att' \(Attention\)",
        ),
        (
            lambda: sequential(Mapped(name="mine")),
            "int8",
            r"without loops and branches. Received: layer 'mine' \(Mapped\)",
        ),
    ],
    ids=[
        *("operation", "wide", "overflow", "silent", "masking"),
        *("silent unit", "silent sum", "tiny sum", "mask", "loop"),
    ],
)
def test_a_failed_conversion_names_the_layer(
    make, quantization, match, tmp_path
):
    refused(make(), tmp_path, quantization, match)


def test_an_input_of_integers_has_no_range_in_int16x8(tmp_path):
    model = sequential(layers.Embedding(7, 3, mask_zero=True), layers.LSTM(2))
    model = sequential(*model.layers, shape=(4,), dtype="int32")
    with pytest.raises(ExportError, match="Received: input .* of int32"):
        to_tflite(
            model,
            tmp_path / "m.tflite",
            quantization="int16x8",
            calibration=np.ones((8, 4), "int32"),
        )


@pytest.mark.parametrize(
    ("received", "match"),
    [
        (
            "Failed for tensor model/mine_1/while",
            r"none for what layer 'mine' \(Mapped\) computes",
        ),
        ("SIGKILL", "the words\nFirst try it without your own layers 'mine'"),
    ],
)
def test_what_is_known_of_a_failure_is_said(received, match, tmp_path):
    model = sequential(Mapped(name="mine"))
    with (
        pytest.raises(ExportError, match=match),
        naming_the_layer(model, tmp_path, "int8"),
    ):
        raise ConversionError("the words", received)


def test_a_branch_that_does_nothing_is_converted(tmp_path):
    model = sequential(Branching())
    artifact = to_tflite(
        model, tmp_path / "m.tflite", quantization="int8", calibration=X
    )
    assert verify(model, artifact, X[:1], tolerance=0.05).passed


# What never fires


def test_layers_that_never_fire_run_in_int8(tmp_path):
    inputs = keras.Input((4,))
    parts = [layers.Dense(3, "relu")(inputs), silent("zeros")(inputs)]
    total = layers.Concatenate()(parts)
    others = [silent("ones"), silent_unit(), tiny_sum(-1.0)]
    model = keras.Model(inputs, [*(make(inputs) for make in others), total])

    artifact = to_tflite(
        model, tmp_path / "m.tflite", quantization="int8", calibration=X
    )

    agreement = verify(model, artifact, X, tolerance=0.05)
    assert agreement.passed
    assert {row.refusal for row in agreement.rows} == {None}


@pytest.mark.parametrize(
    "make",
    [layers.Attention, lambda: layers.MultiHeadAttention(2, 2)],
    ids=["attention", "multi-head"],
)
def test_masked_attention_is_told_apart_in_int8(make, tmp_path):
    keras.utils.set_random_seed(0)
    model = attention(make())
    artifact = to_tflite(
        model, tmp_path / "m.tflite", quantization="int8", calibration=X
    )
    for row in verify(model, artifact, X, tolerance=0.1).rows:
        assert row.relative_error < 0.1, row  # it was 0.4 to 0.9


# What a runtime refuses


def test_a_refusal_names_the_layer_and_what_helps(tmp_path):
    inputs = keras.Input((4, 4, 4, 1))
    x = layers.Conv3D(2, 2, activation="relu", name="deep")(inputs)
    model = keras.Model(inputs, x)
    artifact = to_tflite(model, tmp_path / "m.tflite")
    x = np.ones((2, 4, 4, 4, 1), "float32")

    row = verify(model, artifact, x).row(artifact.path, "TFLM")

    assert row.refusal == (
        "CONV_3D of layer 'deep' (Conv3D): use Conv2D with the depth in its "
        "channels (Didn't find op for builtin opcode 'CONV_3D')"
    )
    with pytest.raises(ExportError, match=r"CONV_3D of layer 'deep' \(Conv3D"):
        to_microcontroller(model, tmp_path / "b", x, quantization="none")


def test_what_tflm_says_while_it_runs_is_heard(tmp_path):
    model = sequential(layers.Dense(2, "squareplus", name="root"))
    artifact = to_tflite(
        model, tmp_path / "m.tflite", quantization="int8", calibration=X
    )
    row = verify(model, artifact, X).row(artifact.path, "TFLM")
    assert row.refusal.startswith("SQRT of layer 'root' (Dense): use quanti")
    assert "(INT8 != FLOAT32)" in row.refusal


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory):
    """Returns a model of one layer and its file."""
    model = sequential(layers.Dense(2, name="fc"))
    folder = tmp_path_factory.mktemp("one_layer")
    return model, to_tflite(model, folder / "m.tflite").path


@pytest.mark.parametrize(
    ("refusal", "found"),
    [
        (
            "Node EXP (number 1) failed to prepare with status 1",
            'EXP: use relu, elu or silu, or quantization="none" (Node',
        ),
        ("Node number 16 (DIV) failed to invoke.", "DIV: use quantization"),
        (
            "Didn't find op for builtin opcode 'LOG' version '2'. Registration",
            "LOG: this runtime is too old for version 2 of it (",
        ),
        (
            "Input type: FLOAT32 with filter type: INT8 not supported. "
            "Node FULLY_CONNECTED (number 0) failed",
            "FULLY_CONNECTED of layer 'fc' (Dense): TFLM runs files of \"none",
        ),
        ("Something else.", "Something else."),
    ],
)
def test_a_refusal_is_explained(refusal, found, one_layer):
    model, path = one_layer
    assert explained(refusal, path, model).startswith(found)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model/dense_1_1/MatMul", "layer 'dense_1' (Dense)"),
        ("dense_1/Relu;model/x", "layer 'dense' (Dense)"),
        ("outer_1/inner_1/gru_cell_3/mul", "layer 'outer/gru' (GRU)"),
        ("sort_7/TopKV2", None),
        ("multiply_1/mul", "operation 'multiply"),
    ],
)
def test_a_layer_is_found_in_a_name(name, layer):
    inner = keras.Sequential(
        [keras.Input((2, 3)), layers.GRU(2, name="gru")], name="outer"
    )
    inputs = keras.Input((2, 3))
    x = layers.Dense(2, name="dense_1")(
        layers.Dense(2, name="dense")(inner(inputs))
    )
    model = keras.Model(inputs, x * 2.0)
    found = LayerNames(model).behind(name)
    assert found is layer is None or found.startswith(layer)


@pytest.mark.parametrize("place", [0, 1])
def test_an_output_without_a_finite_range_is_named(place, tmp_path):
    x = keras.Input((4,))
    hidden = layers.Dense(3, kernel_initializer="ones")(x)
    outputs = {"one": layers.Dense(2)(hidden), "two": layers.Dense(1)(hidden)}
    model = keras.Model(x, outputs)
    name = ("one", "two")[place]
    outputs[name]._keras_history.operation.kernel.assign(
        np.full((3, 2 - place), 3e38)
    )
    refused(model, tmp_path, "int8", f"finite range.*from output '{name}' for")
