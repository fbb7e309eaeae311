import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from foreign_files import converted

from keras_kddp.export import (
    Agreement,
    LiteRTRuntime,
    RuntimeAgreement,
    to_tflite,
    verify,
)
from keras_kddp.export.agreement.classes import ClassScores

layers = keras.layers


def linear(kernel, names=("x",)):
    """The sum of the inputs, each times the kernel."""
    kernel = np.asarray(kernel, "float32")
    inputs = [keras.Input(kernel.shape[:1], name=name) for name in names]
    parts = [
        layers.Dense(kernel.shape[1], use_bias=False, name=f"by_{name}")
        for name in names
    ]
    outputs = [part(x) for part, x in zip(parts, inputs, strict=True)]
    total = layers.Add()(outputs) if len(outputs) > 1 else outputs[0]
    model = keras.Model(inputs, total)
    for part in parts:
        part.set_weights([kernel])
    return model


def difference():
    """First input minus second, two inputs that only names tell apart."""
    first, second = keras.Input((2,), name="z"), keras.Input((2,), name="a")
    return keras.Model([first, second], layers.Subtract()([first, second]))


def two_outputs():
    x = keras.Input((2,), name="x")
    wide = layers.Dense(3, name="wide")(x)
    return keras.Model(x, [wide, layers.Dense(1, name="narrow")(x)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def identity(folder):
    """The identity of three values, and its file."""
    model = linear(np.eye(3))
    return model, to_tflite(model, folder / "identity.tflite")


@pytest.fixture(scope="module")
def subtraction(folder):
    model = difference()
    return model, to_tflite(model, folder / "difference.tflite")


@pytest.fixture(scope="module")
def pair(folder):
    model = two_outputs()
    return model, to_tflite(model, folder / "pair.tflite")


@pytest.fixture(scope="module")
def scalar(folder):
    model = linear([[2.0]])
    return model, to_tflite(model, folder / "scalar.tflite")


X = np.asarray([[3, 1, 2], [1, 2, 3], [1, 3, 2], [9, 8, 7]], "float32")
CLASSES = np.asarray([0, 2, 1, 0])


# --- the comparison -------------------------------------------------------


def test_a_good_file_passes(identity):
    model, artifact = identity
    agreement = verify(model, artifact, X, classes=True)
    assert agreement.passed
    assert agreement.samples == 4
    assert agreement.keras_accuracy is None
    row = agreement.rows[0]
    assert row.milliseconds > 0
    assert dataclasses.replace(row, milliseconds=0.0) == RuntimeAgreement(
        name="LiteRT",
        path=artifact.path,
        max_abs_error=0.0,
        relative_error=0.0,
        top1_agreement=1.0,
        accuracy=None,
        num_bytes=artifact.num_bytes,
        samples=4,
        tolerance=1e-4,
        milliseconds=0.0,
    )


def test_a_file_of_other_weights_fails(identity):
    _, artifact = identity
    swapped = linear([[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    agreement = verify(swapped, artifact, X, CLASSES)
    assert not agreement.passed
    row = agreement.rows[0]
    assert row.max_abs_error == 1.0  # |2 - 3| in the second row
    assert row.relative_error == pytest.approx(1 / 9)
    assert row.top1_agreement == 2 / 4
    assert row.accuracy == 4 / 4
    assert agreement.keras_accuracy == 2 / 4


def test_every_runtime_must_pass(identity, folder):
    model, artifact = identity
    other = to_tflite(linear(2 * np.eye(3)), folder / "double.tflite")
    agreement = verify(model, [artifact, str(other.path)], X)
    assert agreement.row(artifact.path).passed
    assert not agreement.row(other.path).passed
    assert not agreement.passed
    assert agreement.row(other.path).max_abs_error == 9.0


def test_the_tolerance_of_scores_is_relative_to_the_largest(identity):
    _, artifact = identity
    almost = linear(np.eye(3) * 1.01)
    for tolerance, passed in ((0.0098, False), (0.0100, True)):
        agreement = verify(
            almost, artifact, X, tolerance=tolerance, classes=True
        )
        assert agreement.passed is passed


@pytest.mark.parametrize(
    "labels",
    [CLASSES, CLASSES[:, None], np.eye(3)[CLASSES], CLASSES.astype("float32")],
    ids=["sparse", "column", "one-hot", "whole floats"],
)
def test_the_accuracy_takes_integer_and_one_hot_classes(identity, labels):
    model, artifact = identity
    agreement = verify(model, artifact, X, labels)
    assert agreement.keras_accuracy == 1.0
    assert agreement.rows[0].accuracy == 1.0


def test_a_wrong_label_lowers_the_accuracy(identity):
    model, artifact = identity
    assert verify(model, artifact, X, [0, 2, 1, 2]).keras_accuracy == 3 / 4


def test_a_regression_of_width_1_has_no_top1(scalar):
    model, artifact = scalar
    row = verify(model, artifact, [[1.0], [2.0]]).rows[0]
    assert row.top1_agreement is None
    assert row.max_abs_error == 0.0


def test_more_samples_than_a_batch_are_compared(identity):
    model, artifact = identity
    x = np.random.default_rng(0).normal(size=(600, 3))
    agreement = verify(model, artifact, x)
    assert agreement.passed
    assert agreement.rows[0].samples == 600


@pytest.mark.parametrize(
    "arrange",
    [lambda a, b: [a, b], lambda a, b: (a, b), lambda a, b: {"a": b, "z": a}],
    ids=["list", "tuple", "dict"],
)
@pytest.mark.parametrize("as_path", [False, True])
def test_inputs_are_matched_by_name(subtraction, arrange, as_path):
    model, artifact = subtraction
    x = arrange(np.full((2, 2), 5.0), np.full((2, 2), 3.0))
    source = artifact.path if as_path else artifact
    assert verify(model, source, x).rows[0].max_abs_error == 0.0
    runtime = LiteRTRuntime(artifact.path)
    outputs = runtime.run(
        {"z": np.full((2, 2), 5.0), "a": np.full((2, 2), 3.0)}
    )
    np.testing.assert_array_equal(
        outputs[artifact.output_names[0]], np.full((2, 2), 5.0 - 3.0)
    )


def test_exchanged_inputs_are_noticed(subtraction):
    model, artifact = subtraction
    exchanged = dataclasses.replace(
        artifact, input_names=artifact.input_names[::-1]
    )
    x = [np.full((2, 2), 5.0), np.full((2, 2), 3.0)]
    assert verify(model, exchanged, x).rows[0].max_abs_error == 4.0


def test_several_outputs_report_the_worst(pair):
    model, artifact = pair
    x = np.random.default_rng(0).normal(size=(4, 2))
    assert verify(model, artifact, x).passed
    narrow = model.get_layer("narrow")
    weights = narrow.get_weights()
    narrow.set_weights([weights[0], weights[1] + 1.0])
    try:
        row = verify(model, artifact, x).rows[0]
    finally:
        narrow.set_weights(weights)
    assert row.max_abs_error == pytest.approx(1.0, rel=1e-5)
    assert row.top1_agreement is None
    assert row.worst.startswith("output 'narrow': off by ")
    assert not row.passed


def test_a_file_that_puts_out_nan_fails(folder, identity):
    path = converted(
        lambda x: {"by_x": tf.sqrt(x - 1.5)},
        [tf.TensorSpec((1, 3), name="x")],
        folder,
        "nan",
    )
    agreement = verify(identity[0], path, X)
    assert not agreement.passed
    assert math.isnan(agreement.rows[0].relative_error)
    assert "FAILED (NaN or infinity)" in str(agreement)
    assert agreement.rows[0].worst == (
        "output 'by_x': NaN or infinity in 3 of 12 values"
    )


def test_a_model_of_zeros_agrees_only_with_zeros(folder, identity):
    model = linear(np.zeros((3, 3)))
    artifact = to_tflite(model, folder / "zeros.tflite")
    assert verify(model, artifact, X).rows[0].relative_error == 0.0
    assert verify(model, identity[1], X).rows[0].relative_error == math.inf


def test_a_mixed_precision_model_is_compared_in_float32(folder):
    inputs = keras.Input((3,))
    layer = layers.Dense(2, dtype="mixed_float16")
    model = keras.Model(inputs, layer(inputs))
    artifact = to_tflite(model, folder / "mixed.tflite")
    assert verify(model, artifact, X).rows[0].relative_error < 1e-6


def test_integer_data_is_taken_for_a_float_input(identity):
    model, artifact = identity
    assert verify(model, artifact, X.astype("uint8")).passed


def test_verify_leaves_the_model_as_it_was(identity):
    model, artifact = identity
    verify(model, artifact, X)
    assert model.losses == []
    assert not model.compiled
    assert model.predict_function is None


def test_the_table_shows_each_runtime(identity):
    model, artifact = identity
    lines = str(verify(model, artifact, X, [0, 2, 1, 2])).splitlines()
    assert lines[0] == "Agreement with Keras on 4 samples"
    assert lines[1].split() == [
        *("file", "runtime", "error", "top-1", "accuracy", "ms", "bytes")
    ]
    assert lines[2].split() == ["Keras", "75.00%"]
    *cells, milliseconds, num_bytes, verdict = lines[3].split()
    assert cells == [
        *("identity.tflite", "LiteRT", "0.0e+00", "100.00%", "75.00%")
    ]
    assert float(milliseconds) < 1
    assert (num_bytes, verdict) == (f"{artifact.num_bytes:,}", "passed")


def test_agreements_are_frozen(identity):
    agreement = verify(*identity, X)
    assert isinstance(agreement, Agreement)
    with pytest.raises(dataclasses.FrozenInstanceError):
        agreement.rows = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        agreement.rows[0].samples = 1


# --- bad input ------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [-1e-3, math.inf, math.nan])
def test_a_tolerance_is_a_finite_number(identity, tolerance):
    with pytest.raises(ValueError, match="`tolerance` must be a finite"):
        verify(*identity, X, tolerance=tolerance)


def test_at_least_one_file_is_needed(identity):
    with pytest.raises(ValueError, match="at least one file.*empty list"):
        verify(identity[0], [], X)


def test_the_model_is_checked(identity):
    with pytest.raises(TypeError, match="must be a keras.Model"):
        verify("model.keras", identity[1], X)


@pytest.mark.parametrize(
    "x",
    [
        X[:, :2],
        X[0],
        X[..., None],
        np.float32(1.0),
        X.astype(str),
        X.astype("complex64"),
    ],
    ids=["width", "no batch", "rank", "scalar", "text", "complex"],
)
def test_samples_of_another_shape_or_kind(identity, x):
    with pytest.raises(ValueError, match=r"float32 of shape \('samples', 3\)"):
        verify(*identity, x)


def test_fractions_for_an_integer_input(folder):
    tokens = keras.Input((2,), dtype="int32", name="tokens")
    model = keras.Model(tokens, layers.Embedding(3, 2)(tokens))
    artifact = to_tflite(model, folder / "tokens.tflite")
    assert verify(model, artifact, [[0, 1], [2, 1]]).passed
    with pytest.raises(ValueError, match="must hold int32.*'tokens'"):
        verify(model, artifact, [[0.5, 1.0]])


def test_no_samples(identity):
    with pytest.raises(ValueError, match="at least one sample"):
        verify(*identity, X[:0])


def test_inputs_of_different_lengths(subtraction):
    with pytest.raises(ValueError, match=r"equally many per input.*\[2, 3\]"):
        verify(*subtraction, [np.ones((2, 2)), np.ones((3, 2))])


def test_an_input_that_is_missing(subtraction):
    with pytest.raises(ValueError, match=r"sequence of 2 arrays.*Received: 1"):
        verify(*subtraction, [np.ones((2, 2))])


def test_one_array_for_two_inputs(subtraction):
    with pytest.raises(ValueError, match="sequence of 2 arrays.*ndarray"):
        verify(*subtraction, np.ones((2, 2)))


def test_unknown_keys(subtraction):
    with pytest.raises(ValueError, match=r"keys \['z', 'a'\].*\['z', 'b'\]"):
        verify(*subtraction, {"z": np.ones((2, 2)), "b": np.ones((2, 2))})


def test_samples_that_make_keras_overflow(identity):
    with pytest.raises(ValueError, match="outputs must be finite"):
        verify(*identity, np.full((2, 3), math.nan))


@pytest.mark.parametrize(
    "y",
    [
        CLASSES[:3],
        [0, 1, 2, 3],
        [0, -1, 2, 1],
        [0.5, 1, 2, 1],
        [math.nan, 1, 2, 1],
        np.full((4, 3), 1 / 3),
        np.ones((4, 3)),
        np.ones((4, 2)),
    ],
)
def test_labels_that_are_no_classes(identity, y):
    with pytest.raises(ValueError, match="integer classes below 3"):
        verify(*identity, X, y)


def test_labels_for_a_regression(scalar):
    with pytest.raises(ValueError, match="one value per class"):
        verify(*scalar, [[1.0], [2.0]], [0, 1])


def test_labels_for_several_outputs(pair):
    with pytest.raises(ValueError, match="`y` must be None.*2 outputs"):
        verify(*pair, np.ones((2, 2)), [0, 1])


def test_a_file_of_another_model(identity, scalar, pair):
    with pytest.raises(ValueError, match="must hold float32 of shape"):
        verify(identity[0], scalar[1], X)
    with pytest.raises(ValueError, match="must have the outputs"):
        verify(linear(np.ones((2, 1))), pair[1].path, np.ones((2, 2)))


# --- the runtime ----------------------------------------------------------


def test_outputs_are_stacked_in_float32(identity):
    runtime = LiteRTRuntime(identity[1].path)
    outputs = runtime.run({"x": X.astype("float64")})["by_x"]
    assert outputs.dtype == np.float32
    np.testing.assert_array_equal(outputs, X)


def test_a_missing_file(identity, tmp_path):
    path = tmp_path / "missing.tflite"
    with pytest.raises(FileNotFoundError, match="must be a .tflite file"):
        LiteRTRuntime(path)
    with pytest.raises(FileNotFoundError, match="missing.tflite"):
        verify(identity[0], path, X)


@pytest.mark.parametrize("kept", [0, 3, 100, -1, -100])
def test_a_truncated_file(identity, tmp_path, kept):
    path = tmp_path / "broken.tflite"
    path.write_bytes(identity[1].path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="must be a complete .tflite file"):
        LiteRTRuntime(path)


@pytest.mark.parametrize("fate", ["refusal", "crash"])
def test_a_complete_file_that_litert_cannot_prepare_is_a_row(fate, tmp_path):
    x = keras.Input((3,))
    hidden = layers.Dense(1, bias_initializer="ones")(x)
    total = hidden if fate == "refusal" else layers.Add()([hidden, hidden])
    model = keras.Model(x, layers.Dense(2)(total))
    path = tmp_path / "a.tflite"
    to_tflite(model, path, quantization="int16x8", calibration=X)
    content = path.read_bytes()
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (graph,) = parsed.subgraphs
    place = 0 if fate == "refusal" else 1
    made = graph.tensors[graph.operators[place].outputs[0]]
    made.quantization.scale = [1e-40]  # as of only zeros
    builder = Builder(len(content))
    builder.Finish(parsed.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))

    agreement = verify(model, path, X)

    assert not agreement.passed
    assert getattr(agreement.row(path), fate) is not None


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "text.tflite"
    path.write_text("This is no flatbuffer. " * 20)
    with pytest.raises(ValueError, match="text.tflite.*complete"):
        LiteRTRuntime(path)


def test_a_batch_other_than_1(folder):
    path = converted(
        lambda x: {"y": x + 1.0},
        [tf.TensorSpec((2, 3), name="x")],
        folder,
        "batch_of_2",
    )
    with pytest.raises(ValueError, match=r"batch of 1.*\(2, 3\)"):
        LiteRTRuntime(path)


def test_an_output_without_batch(folder):
    path = converted(
        lambda x: {"y": tf.reduce_sum(x)},
        [tf.TensorSpec((1, 3), name="x")],
        folder,
        "no_batch",
    )
    with pytest.raises(ValueError, match=r"batch of 1.*\(\)"):
        LiteRTRuntime(path)


def test_the_only_input_and_output_may_have_any_name(identity, folder):
    path = converted(
        lambda x: {"strange": tf.identity(x) * 1.0},
        [tf.TensorSpec((1, 3), name="foreign")],
        folder,
        "foreign",
    )
    assert LiteRTRuntime(path).input_names == ("foreign",)
    assert verify(identity[0], path, X).passed


def test_a_file_without_signature(identity, tmp_path):
    buffer = identity[1].path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(buffer, 0))
    model.signatureDefs = None
    builder = Builder(len(buffer))
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "unsigned.tflite"
    path.write_bytes(bytes(builder.Output()))
    assert verify(identity[0], path, X).passed


def test_wrong_names(subtraction):
    runtime = LiteRTRuntime(subtraction[1].path)
    with pytest.raises(ValueError, match=r"names \['a', 'z'\].*\['a'\]"):
        runtime.run({"a": np.ones((1, 2))})


def test_unequal_lengths(subtraction):
    runtime = LiteRTRuntime(subtraction[1].path)
    with pytest.raises(ValueError, match="equally many samples"):
        runtime.run({"a": np.ones((1, 2)), "z": np.ones((2, 2))})


def test_arrays_of_another_shape(subtraction):
    runtime = LiteRTRuntime(subtraction[1].path)
    with pytest.raises(ValueError, match=r"\('samples', 2\) for 'a'"):
        runtime.run({"a": np.ones((1, 3)), "z": np.ones((1, 2))})


def test_padding_counts_in_no_share_of_classes(folder):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), dtype="int32")
    words = layers.Embedding(4, 5, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(words))
    x = np.array([[3, 1, 2, 0], [2, 0, 0, 0]], "int32")
    outputs = model.predict(x, verbose=0)
    classes = outputs.argmax(axis=-1)
    y = np.where(x != 0, classes, (classes + 1) % 3)
    y[0, 0] = (y[0, 0] + 1) % 3  # one of four words is wrong

    agreement = verify(model, to_tflite(model, folder / "tags.tflite"), x, y)

    assert agreement.keras_accuracy == 3 / 4
    accuracies = [r.accuracy for r in agreement.rows if r.refusal is None]
    assert set(accuracies) == {3 / 4}
    valid = (x != 0)[..., None]
    for padded in (np.where(valid[..., 0], y, -1), np.eye(3)[y] * valid):
        agreement = verify(model, folder / "tags.tflite", x, padded)
        assert agreement.keras_accuracy == 3 / 4


@pytest.mark.parametrize("mask", [np.array([[True, False]] * 2), None])
def test_files_may_name_other_classes_where_there_is_padding(mask):
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    reference = np.array([[right, right], [right, right]])
    found = np.array([[right, wrong], [wrong, wrong]])

    finding = ClassScores("tags", reference, mask).judged(found, "int8", None)

    assert finding.agreement == (1 / 4 if mask is None else 1 / 2)
