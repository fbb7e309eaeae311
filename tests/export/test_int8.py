"""int8 files: what is in them, and how they agree with Keras."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_kddp.export import LiteRTRuntime, to_tflite, verify

X = np.random.default_rng(0).uniform(size=(200, 8, 8, 1)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(6, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="relu"),
            keras.layers.Dense(4),
        ]
    )


@pytest.fixture(scope="module")
def artifact(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "student.tflite"
    return to_tflite(model, path, quantization="int8", calibration=X)


def tensors(artifact):
    return Interpreter(str(artifact.path)).get_tensor_details()


def test_inputs_outputs_and_activations_are_int8(artifact):
    interpreter = Interpreter(str(artifact.path))
    interpreter.allocate_tensors()
    ends = interpreter.get_input_details() + interpreter.get_output_details()
    assert [end["dtype"] for end in ends] == [np.int8, np.int8]
    kinds = {tensor["dtype"] for tensor in tensors(artifact)}
    assert kinds <= {np.int8, np.int32}  # int32: biases and shapes
    assert artifact.quantization == "int8"


def test_each_output_channel_has_a_scale_of_its_own(artifact):
    scales = [
        len(tensor["quantization_parameters"]["scales"])
        for tensor in tensors(artifact)
    ]
    assert {6, 12, 4} <= set(scales)  # conv, hidden, logits


def test_the_file_is_smaller_than_float32(model, artifact, tmp_path):
    float32 = to_tflite(model, tmp_path / "float32.tflite")
    assert artifact.num_bytes < float32.num_bytes


def test_the_file_names_the_same_classes_as_keras(model, artifact):
    labels = model.predict(X, verbose=0).argmax(axis=-1)
    agreement = verify(model, artifact, X, labels)
    row = agreement.rows[0]
    assert agreement.passed
    assert row.top1_agreement == row.accuracy >= 0.98
    assert 1e-4 < row.relative_error < 0.1  # it does round
    assert agreement.keras_accuracy == 1


def test_outputs_are_real_numbers_again(model, artifact):
    runtime = LiteRTRuntime(artifact.path)
    (outputs,) = runtime.run({runtime.input_names[0]: X[:5]}).values()
    expected = model.predict(X[:5], verbose=0)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(
        outputs, expected, atol=0.1 * abs(expected).max()
    )
    assert runtime.is_quantized
    low, high = runtime.input_ranges[runtime.input_names[0]]
    assert (low, high) == pytest.approx((0, 1), abs=0.02)


def test_another_models_file_fails(model, artifact):
    other = keras.models.clone_model(model)  # new weights
    agreement = verify(other, artifact, X, classes=True)
    assert not agreement.passed
    assert "FAILED (top-1 not >= 98%)" in str(agreement)


def test_a_tolerance_decides_where_it_is_given(model, artifact):
    assert verify(model, artifact, X, tolerance=0.5).passed
    strict = verify(model, artifact, X, tolerance=1e-6)
    assert not strict.passed
    assert "FAILED (error not <= 1e-06)" in str(strict)


def test_inputs_of_another_range_are_warned_about(model, artifact):
    with pytest.warns(
        UserWarning, match="`x` must be scaled like the training"
    ):
        verify(model, artifact, (X * 255).astype("uint8"))


def test_a_regression_in_int8_is_held_to_an_error(tmp_path):
    keras.utils.set_random_seed(1)
    x = X.reshape(200, 64)
    layers = [keras.Input((64,)), keras.layers.Dense(8, "relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    artifact = to_tflite(
        model, tmp_path / "r.tflite", quantization="int8", calibration=x
    )
    row = verify(model, artifact, x).rows[0]
    assert row.top1_agreement is None
    assert row.passed
    assert row.tolerance == 0.1


def test_several_inputs_are_calibrated_by_name(tmp_path):
    keras.utils.set_random_seed(2)
    small, large = (keras.Input((4,), name=name) for name in ("small", "large"))
    hidden = keras.layers.Concatenate()(
        [keras.layers.Dense(4, "relu")(x) for x in (small, large)]
    )
    model = keras.Model([small, large], keras.layers.Dense(3)(hidden))
    values = np.random.default_rng(0).uniform(size=(50, 4)).astype("float32")
    x = {"large": 100 * values, "small": values}
    artifact = to_tflite(
        model, tmp_path / "two.tflite", quantization="int8", calibration=x
    )
    ranges = LiteRTRuntime(artifact.path).input_ranges
    assert ranges["small"][1] < 2 < 50 < ranges["large"][1]
    row = verify(model, artifact, x).rows[0]
    assert row.relative_error < 0.1


def test_as_many_samples_are_used_as_asked_for(model, tmp_path):
    x = X.copy()
    x[1:-1] = 9  # between the two rows that are used
    artifact = to_tflite(
        model,
        tmp_path / "s.tflite",
        quantization="int8",
        calibration=x,
        samples=2,
    )
    ((_, high),) = LiteRTRuntime(artifact.path).input_ranges.values()
    assert high < 1.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`calibration` must be given"),
        (
            {"calibration": X[..., 0]},
            "`calibration` must hold float32 of shape",
        ),
        ({"calibration": X[:0]}, "`calibration` must have at least one sample"),
        ({"calibration": X * np.nan}, "`calibration` must be finite"),
        ({"calibration": X, "samples": 0}, "`samples` must be an integer >= 1"),
        (
            {"calibration": X, "quantization": "int2"},
            "`quantization` must be one",
        ),
        ({"calibration": X, "quantization": "none"}, "must be None for"),
    ],
)
def test_bad_arguments_leave_no_file(options, message, model, tmp_path):
    path = tmp_path / "x.tflite"
    with pytest.raises(ValueError, match=message):
        to_tflite(model, path, **{"quantization": "int8", **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:`x` must be scaled:UserWarning")
@pytest.mark.parametrize(
    ("samples", "wrong", "passed"),
    [
        (1, 0, True),
        (1, 1, False),
        (2, 1, False),
        (3, 1, True),
        (19, 1, True),
        (19, 2, False),
        (100, 2, True),
        (100, 3, False),
    ],
)
def test_98_percent_or_all_but_one_of_the_classes_pass(
    samples, wrong, passed, tmp_path
):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    model.layers[0].kernel.assign(np.eye(4))
    x = np.eye(4, dtype="float32")[np.arange(samples) % 4]
    calibration = np.concatenate([x, -x])
    artifact = to_tflite(
        model,
        tmp_path / "i.tflite",
        quantization="int8",
        calibration=calibration,
    )
    shown = x.copy()
    shown[:wrong] = [[0, 1e-4, 0, 0]]  # in int8 all of it rounds to 0
    assert verify(model, artifact, shown, classes=True).passed is passed


def test_a_scalar_beside_classes_is_held_to_an_error(tmp_path):
    inputs = keras.Input((4,))
    scalar = keras.layers.Dense(1, name="scalar")
    outputs = [keras.layers.Dense(3, name="classes")(inputs), scalar(inputs)]
    model = keras.Model(inputs, outputs)
    x = X.reshape(-1, 4)[:100]
    artifact = to_tflite(
        model, tmp_path / "i.tflite", quantization="int8", calibration=x
    )
    assert verify(model, artifact, x).passed
    scalar.kernel.assign(-scalar.kernel)
    assert not verify(model, artifact, x).passed
