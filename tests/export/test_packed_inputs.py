"""What TeacherCache packed, where exports take the inputs of a model."""

import keras
import numpy as np
import pytest

import keras_kddp as kddp
from keras_kddp.export.tflite.calibration import calibration_rows

X = np.arange(12, dtype="float32").reshape(4, 3)


def model(seed, names=("x",)):
    keras.utils.set_random_seed(seed)
    inputs = [keras.Input((3,), name=name) for name in names]
    x = keras.layers.Add()(inputs) if len(inputs) > 1 else inputs[0]
    inputs = inputs if len(inputs) > 1 else inputs[0]
    return keras.Model(inputs, keras.layers.Dense(2)(x))


@pytest.mark.parametrize("with_labels", [True, False])
@pytest.mark.parametrize(
    ("names", "x"),
    [("x", X), ("ab", [X, 2 * X]), ("ab", {"a": X, "b": 2 * X})],
)
def test_packed_inputs_calibrate_like_the_plain_ones(names, x, with_labels):
    packed = kddp.TeacherCache(model(1, names), x).pack(x)
    given = (packed, np.zeros(4)) if with_labels else packed

    rows = calibration_rows(model(0, names), given, 2)

    expected = calibration_rows(model(0, names), x, 2)
    assert list(rows) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(rows[name], array)


def test_packed_inputs_verify_a_file(tmp_path):
    student = model(0)
    artifact = kddp.export.to_tflite(student, tmp_path / "student.tflite")

    packed = kddp.TeacherCache(model(1), X).pack(X)

    assert kddp.export.verify(student, artifact, packed).passed
