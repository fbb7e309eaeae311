"""Students that TFMOT fine-tunes."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import keras_kddp.export.keras2.tfmot as module
from keras_kddp import prepare
from keras_kddp.export import (
    TFMOTError,
    finetune_with_tfmot,
    read_metadata,
    verify,
)
from keras_kddp.export.keras2 import tfmot_process
from keras_kddp.export.keras2.tfmot_checks import TECHNIQUES
from keras_kddp.models import digits_student, fashion_cnn_student

DIGITS = load_digits()
X = (DIGITS.data / 16).astype("float32")[:600]
Y = DIGITS.target[:600]


def trained(student, epochs=10):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    student.fit(X, Y, epochs=epochs, verbose=0)
    return student


@pytest.fixture(scope="module")
def student():
    keras.utils.set_random_seed(0)
    return trained(digits_student(24))


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(1)
    return trained(digits_student(96))


def state(student):
    """Returns what no run may move."""
    return {
        "environment": dict(os.environ),
        "keras": tf.keras.__version__,
        "policy": keras.config.dtype_policy().name,
        "weights": [weight.tolist() for weight in student.get_weights()],
    }


def test_quantization_is_trained_under_the_teacher(student, teacher, tmp_path):
    before = state(student)
    path = tmp_path / "student.tflite"

    found = finetune_with_tfmot(
        student,
        (X, Y),
        path,
        teacher=teacher,
        epochs=2,
        metadata={"trained_on": "digits"},
    )

    assert state(student) == before
    assert [entry["epoch"] for entry in found.history] == [1, 2]
    assert found.history[-1]["accuracy"] > 0.95
    agreement = verify(found.model, found.tflite, X, Y)
    assert agreement.passed, agreement
    assert {row.name for row in agreement.rows} >= {"LiteRT", "TFLM"}
    assert all(row.accuracy > 0.95 for row in agreement.rows if not row.refusal)
    assert read_metadata(path)["finetuned_with"] == "TFMOT: quantization"
    assert read_metadata(path)["trained_on"] == "digits"
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(
            student.get_weights(), found.model.get_weights(), strict=True
        )
    ]
    assert all(changed)


def test_the_teacher_is_what_is_learned_from(student, teacher, tmp_path):
    options = {"epochs": 1, "student_loss_weight": 0.0}
    wrong = (Y + 1) % 10  # what the labels say does not count

    found = finetune_with_tfmot(
        student, (X, wrong), tmp_path / "a.tflite", teacher=teacher, **options
    )

    named = found.model.predict(X, verbose=0).argmax(axis=-1)
    assert np.mean(named == Y) > 0.95


def test_sample_weights_count(student, tmp_path):
    mixed = np.where(np.arange(600) < 300, Y, (Y + 1) % 10)
    weights = np.where(np.arange(600) < 300, 1.0, 0.0)

    found = finetune_with_tfmot(
        student, (X, mixed, weights), tmp_path / "a.tflite", epochs=2
    )

    named = found.model.predict(X, verbose=0).argmax(axis=-1)
    assert np.mean(named == Y) > 0.95


def test_sparsity_reaches_its_zeros_and_they_stay_in_int8(student, tmp_path):
    found = finetune_with_tfmot(
        student,
        (X, Y),
        tmp_path / "a.tflite",
        techniques=("sparsity", "quantization"),
        sparsity=0.7,
        epochs=3,
        batch_size=32,
    )

    assert min(found.zero_fractions.values()) >= 0.69
    for layer in found.model.layers:
        for weight in layer.weights:
            if weight.name == "kernel":
                assert np.mean(np.array(weight) == 0) >= 0.69
    assert kernel_zeros(found.tflite.path) >= 0.69
    assert verify(found.model, found.tflite, X).passed


def kernel_zeros(path):
    """Returns the share of zeros in the int8 matrices of a file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    kernels = [
        interpreter.get_tensor(part["index"])
        for part in interpreter.get_tensor_details()
        if np.dtype(part["dtype"]) == np.int8 and part["shape"][0] > 1
    ]
    assert len(kernels) == 2
    return min(float(np.mean(kernel == 0)) for kernel in kernels)


@pytest.fixture(scope="module")
def convolutional():
    """Returns a student with what TFMOT treats in ways of its own."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    x = keras.layers.Reshape((8, 8, 1))(inputs)
    x = keras.layers.Conv2D(16, 3, use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.DepthwiseConv2D(3)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(32, activation="relu")(x)
    return trained(keras.Model(inputs, keras.layers.Dense(10)(x)), 30)


@pytest.mark.slow
@pytest.mark.parametrize("techniques", TECHNIQUES)
def test_every_technique_keeps_the_accuracy(
    techniques, convolutional, teacher, tmp_path
):
    found = finetune_with_tfmot(
        convolutional,
        (X, Y),
        tmp_path / "a.tflite",
        techniques=techniques,
        teacher=teacher,
        epochs=6,
        batch_size=32,
    )

    agreement = verify(found.model, found.tflite, X, Y)
    assert agreement.passed, agreement
    assert agreement.rows[0].accuracy > 0.9
    mixing = [name for name in found.zero_fractions if "depth" not in name]
    if "clustering" in techniques:
        assert max(found.distinct_values[name] for name in mixing) <= 16
    if "sparsity" in techniques:
        assert min(found.zero_fractions[name] for name in mixing) > 0.48


def test_a_softmax_student_with_penalties_is_taken(teacher, tmp_path):
    keras.utils.set_random_seed(0)
    plain = digits_student(24)
    student = keras.Sequential([*plain.layers, keras.layers.Softmax()])
    student.compile("adam", "sparse_categorical_crossentropy")
    student.fit(X, Y, epochs=20, verbose=0)

    found = finetune_with_tfmot(
        prepare(student),
        (X, Y),
        tmp_path / "a.tflite",
        teacher=teacher,
        epochs=2,
    )

    assert verify(found.model, found.tflite, X, Y).rows[0].accuracy > 0.9


def with_layer(layer):
    inputs = keras.Input((64,))
    x = layer(keras.layers.Dense(8)(inputs))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def test_what_tfmot_says_is_said_and_nothing_is_left(tmp_path):
    student = with_layer(keras.layers.LayerNormalization())
    before = state(student)

    with pytest.raises(TFMOTError, match=r"It said: .*LayerNormalization"):
        finetune_with_tfmot(student, (X, Y), tmp_path / "a.tflite", epochs=1)

    assert state(student) == before
    assert not any(tmp_path.iterdir())


def test_a_layer_that_tf_keras_has_not_is_refused(tmp_path):
    student = with_layer(keras.layers.UnitNormalization(name="unit"))

    with pytest.raises(ValueError, match="layer 'unit' is a UnitNorm"):
        finetune_with_tfmot(student, (X, Y), tmp_path / "a.tflite")


def test_separable_convolutions_are_refused_for_quantization(tmp_path):
    inputs = keras.Input((64,))
    x = keras.layers.Reshape((8, 8, 1))(inputs)
    x = keras.layers.SeparableConv2D(4, 3, name="apart")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    student = keras.Model(inputs, keras.layers.Dense(10)(x))

    with pytest.raises(ValueError, match=r"takes apart. Received: \['apart'\]"):
        finetune_with_tfmot(student, (X, Y), tmp_path / "a.tflite")


def test_layers_that_scale_are_refused_for_quantization(tmp_path):
    student = with_layer(keras.layers.Rescaling(1 / 255, name="scaler"))

    with pytest.raises(ValueError, match=r"Received: \['scaler'\]. Make the"):
        finetune_with_tfmot(student, (X, Y), tmp_path / "a.tflite")


def test_frozen_layers_are_refused(tmp_path):
    student = digits_student(8)
    student.get_layer("hidden").trainable = False

    with pytest.raises(ValueError, match=r"Received frozen: \['hidden'\]"):
        finetune_with_tfmot(student, (X, Y), tmp_path / "a.tflite")


def test_more_clusters_than_weights_are_refused(tmp_path):
    inputs = keras.Input((64,))
    x = keras.layers.Dense(1, name="one")(inputs)
    student = keras.Model(inputs, keras.layers.Dense(10, name="ten")(x))

    with pytest.raises(ValueError, match="Try clusters=10"):
        finetune_with_tfmot(
            student, (X, Y), tmp_path / "a.tflite", techniques=["clustering"]
        )


def test_integer_inputs_are_refused(tmp_path):
    inputs = keras.Input((64,), dtype="uint8")
    x = keras.layers.Rescaling(1 / 16)(inputs)
    student = keras.Model(inputs, keras.layers.Dense(10)(x))

    with pytest.raises(ValueError, match="must take floats"):
        finetune_with_tfmot(
            student,
            (DIGITS.data[:600].astype("uint8"), Y),
            tmp_path / "a.tflite",
        )


def test_a_death_of_tfmot_is_an_error(student, tmp_path, monkeypatch):
    handler = tmp_path / "handler.py"
    handler.write_text("import os\ndef answer(**_):\n    os.abort()\n")
    worker = tfmot_process.Worker(handler)
    monkeypatch.setattr(tfmot_process, "_worker", lambda: worker)

    with pytest.raises(TFMOTError, match="SIGABRT"):
        finetune_with_tfmot(student, (X, Y), tmp_path / "a.tflite")

    assert not (tmp_path / "a.tflite").exists()


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ({"zero_fractions": {"hidden:kernel": 0.0}}, "'hidden:kernel': 0.0"),
        ({"distinct_values": {"hidden:kernel": 99}}, "'hidden:kernel': 99"),
    ],
)
def test_what_is_not_reached_is_an_error(
    reply, shown, student, tmp_path, monkeypatch
):
    reply = {"zero_fractions": {}, "distinct_values": {}, **reply}
    trained = tfmot_process.Trained({}, tmp_path, **reply, history=[])
    monkeypatch.setattr(module, "train_with_tfmot", lambda *_, **__: trained)

    with pytest.raises(TFMOTError, match=f"TFMOT must reach.*{shown}"):
        finetune_with_tfmot(
            student,
            (X, Y),
            tmp_path / "a.tflite",
            techniques=["sparsity", "clustering"],
        )

    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"techniques": "quantization"}, "`techniques` must be one of"),
        ({"techniques": ("quantization", "sparsity")}, "`techniques` must be"),
        ({"techniques": 3}, "`techniques` must be one of"),
        ({"epochs": 0}, "`epochs` must be an integer"),
        ({"batch_size": 1.5}, "`batch_size` must be an integer"),
        ({"clusters": 1}, "`clusters` must be an integer"),
        ({"seed": -1}, "`seed` must be an integer"),
        ({"samples": 0}, "`samples` must be an integer"),
        (
            {"metadata": {"finetuned_with": "x"}},
            "must leave .*'finetuned_with'",
        ),
        ({"learning_rate": 0}, "`learning_rate` must be a finite"),
        ({"sparsity": 1}, r"`sparsity` must be a number in \(0, 1\)"),
        ({"temperature": 0}, "`temperature` must be"),
        ({"student_loss_weight": 2}, "`student_loss_weight` must be"),
        ({"metadata": {"x": object()}}, "`metadata` must be"),
        ({"teacher": digits_student(4).layers[0]}, "`teacher` must be"),
    ],
)
def test_bad_arguments_are_refused(options, message, student, tmp_path):
    with pytest.raises(ValueError, match=message):
        finetune_with_tfmot(
            student, (X, Y), **{"path": tmp_path / "a.tflite", **options}
        )

    assert not any(tmp_path.iterdir())


def test_other_data_and_paths_are_refused(student, tmp_path):
    with pytest.raises(ValueError, match="must end in .tflite"):
        finetune_with_tfmot(student, (X, Y), tmp_path / "a.h5")
    with pytest.raises(OSError, match="existing, writable directory"):
        finetune_with_tfmot(student, (X, Y), tmp_path / "no" / "a.tflite")
    with pytest.raises(ValueError, match="`train`"):
        finetune_with_tfmot(student, (X, Y[:10]), tmp_path / "a.tflite")
    with pytest.raises(ValueError, match="`train`"):
        finetune_with_tfmot(
            fashion_cnn_student(4), (X, Y), tmp_path / "a.tflite"
        )


def test_several_outputs_are_refused(tmp_path):
    inputs = keras.Input((64,))
    outputs = [keras.layers.Dense(10)(inputs) for _ in range(2)]
    student = keras.Model(inputs, outputs)

    with pytest.raises(ValueError, match="one input and one output"):
        finetune_with_tfmot(student, (X, [Y, Y]), tmp_path / "a.tflite")


def test_rows_of_classes_are_asked_for(tmp_path):
    inputs = keras.Input((64,))
    x = keras.layers.Reshape((4, 16))(inputs)
    student = keras.Model(inputs, keras.layers.Dense(10)(x))

    with pytest.raises(ValueError, match="one row of classes per example"):
        finetune_with_tfmot(
            student, (X, np.zeros((600, 4), int)), tmp_path / "a.tflite"
        )
