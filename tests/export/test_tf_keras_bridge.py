"""Models that travel between Keras 3 and tf_keras."""

import json
import os
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import randomize

from keras_kddp import prepare
from keras_kddp.export import ExportError, from_tf_keras, to_tf_keras
from keras_kddp.export.model import sameness
from keras_kddp.export.workers.portable_models import MERGING, ORDINARY
from keras_kddp.models import fashion_cnn_student, fashion_residual_student

layers = keras.layers
IMAGE, SERIES, ROW = (6, 6, 4), (6, 4), (5,)
ONE_OF_EACH = {
    "Dense": (ROW, layers.Dense(3, "relu", kernel_regularizer="l2")),
    "Conv1D": (SERIES, layers.Conv1D(3, 3, dilation_rate=2, padding="causal")),
    "Conv2D": (IMAGE, layers.Conv2D(4, (3, 2), strides=2, groups=2)),
    "Conv2DTranspose": (IMAGE, layers.Conv2DTranspose(3, 3, strides=2)),
    "DepthwiseConv2D": (IMAGE, layers.DepthwiseConv2D(3, padding="same")),
    "SeparableConv1D": (SERIES, layers.SeparableConv1D(3, 2)),
    "SeparableConv2D": (IMAGE, layers.SeparableConv2D(3, 2, activation="elu")),
    "BatchNormalization": (IMAGE, layers.BatchNormalization(epsilon=0.1)),
    "LayerNormalization": (IMAGE, layers.LayerNormalization()),
    "Activation": (ROW, layers.Activation("swish")),
    "ReLU": (ROW, layers.ReLU(max_value=0.7, negative_slope=0.1)),
    "LeakyReLU": (ROW, layers.LeakyReLU(negative_slope=0.2)),
    "ELU": (ROW, layers.ELU(alpha=0.5)),
    "PReLU": (IMAGE, layers.PReLU(shared_axes=[1, 2])),
    "Softmax": (ROW, layers.Softmax()),
    "Dropout": (ROW, layers.Dropout(0.5, seed=3)),
    "SpatialDropout1D": (SERIES, layers.SpatialDropout1D(0.5)),
    "SpatialDropout2D": (IMAGE, layers.SpatialDropout2D(0.5)),
    "Flatten": (IMAGE, layers.Flatten()),
    "Reshape": (IMAGE, layers.Reshape((12, 12))),
    "Permute": (IMAGE, layers.Permute((3, 1, 2))),
    "ZeroPadding1D": (SERIES, layers.ZeroPadding1D(2)),
    "ZeroPadding2D": (IMAGE, layers.ZeroPadding2D(((1, 0), (2, 1)))),
    "Cropping1D": (SERIES, layers.Cropping1D((1, 2))),
    "Cropping2D": (IMAGE, layers.Cropping2D(1)),
    "UpSampling1D": (SERIES, layers.UpSampling1D(2)),
    "UpSampling2D": (IMAGE, layers.UpSampling2D(2, interpolation="bilinear")),
    "MaxPooling1D": (SERIES, layers.MaxPooling1D(2)),
    "MaxPooling2D": (IMAGE, layers.MaxPooling2D(3, 2, "same")),
    "AveragePooling1D": (SERIES, layers.AveragePooling1D(2)),
    "AveragePooling2D": (IMAGE, layers.AveragePooling2D((2, 3))),
    "GlobalMaxPooling1D": (SERIES, layers.GlobalMaxPooling1D()),
    "GlobalMaxPooling2D": (IMAGE, layers.GlobalMaxPooling2D(keepdims=True)),
    "GlobalAveragePooling1D": (SERIES, layers.GlobalAveragePooling1D()),
    "GlobalAveragePooling2D": (IMAGE, layers.GlobalAveragePooling2D()),
    "Rescaling": (IMAGE, layers.Rescaling(0.1, offset=1)),
    "Add": (ROW, layers.Add()),
    "Subtract": (ROW, layers.Subtract()),
    "Multiply": (ROW, layers.Multiply()),
    "Average": (ROW, layers.Average()),
    "Maximum": (ROW, layers.Maximum()),
    "Minimum": (ROW, layers.Minimum()),
    "Concatenate": (IMAGE, layers.Concatenate(axis=1)),
}


def same_outputs(first, second, inputs):
    """Says whether two models compute the same to 1e-5."""
    pairs = zip(
        keras.tree.flatten(first(inputs, training=False)),
        keras.tree.flatten(second(inputs, training=False)),
        strict=True,
    )
    return all(np.allclose(a, b, rtol=0, atol=1e-5) for a, b in pairs)


def test_each_ordinary_layer_has_an_example():
    assert set(ONE_OF_EACH) == set(ORDINARY)


@pytest.mark.parametrize("name", ORDINARY)
def test_each_ordinary_layer_travels_there_and_back(name, tmp_path):
    shape, layer = ONE_OF_EACH[name]
    inputs = keras.Input(shape)
    if name in MERGING:
        other = keras.Input(shape)
        model = keras.Model([inputs, other], layer([inputs, other]))
    else:
        model = keras.Model(inputs, layer(inputs))
    randomize(model, 0)

    back = from_tf_keras(to_tf_keras(model, tmp_path / "there.h5"))

    x = [np.random.default_rng(1).normal(size=(3, *shape))] * len(model.inputs)
    assert same_outputs(model, back, x if len(x) > 1 else x[0])
    assert [type(x) for x in back.layers] == [type(x) for x in model.layers]


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_residual_student_keeps_its_layers_by_name(suffix, tmp_path):
    model = randomize(fashion_residual_student(4), 0)

    back = from_tf_keras(to_tf_keras(model, tmp_path / f"there.{suffix}"))

    assert {layer.name for layer in back.layers} == {
        layer.name for layer in model.layers
    }
    for layer in model.layers:
        pairs = zip(
            layer.get_weights(),
            back.get_layer(layer.name).get_weights(),
            strict=True,
        )
        assert all(np.array_equal(a, b) for a, b in pairs)


def nested():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, "relu", name="fc")], name="inner"
    )
    inputs = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    shared = layers.Dense(3, name="shared")
    x = layers.Add(name="add")([inner(inputs[0]), inputs[1]])
    return keras.Model(
        list(inputs), [shared(x), shared(inner(x))], name="nested"
    )


def test_nested_shared_and_branched_models_arrive_flat(tmp_path):
    model = randomize(nested(), 0)

    back = from_tf_keras(to_tf_keras(model, tmp_path / "there.h5"))

    x = list(np.random.default_rng(0).normal(size=(2, 3, 4)))
    assert same_outputs(model, back, x)
    assert back.count_params() == model.count_params()
    assert "inner_fc" in {layer.name for layer in back.layers}


def test_penalties_stay_behind(tmp_path):
    student = prepare(fashion_cnn_student(8))

    back = from_tf_keras(to_tf_keras(student, tmp_path / "there.h5"))

    x = np.random.default_rng(0).random((2, 28, 28, 1))
    assert same_outputs(student, back, x)


def test_a_frozen_layer_stays_frozen(tmp_path):
    model = fashion_cnn_student(8)
    model.get_layer("conv1").trainable = False

    back = from_tf_keras(to_tf_keras(model, tmp_path / "there.h5"))

    assert not back.get_layer("conv1").trainable
    assert back.get_layer("conv2").trainable


def test_a_half_precision_model_is_carried_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = fashion_cnn_student(8)
    finally:
        keras.config.set_dtype_policy("float32")

    back = from_tf_keras(to_tf_keras(model, tmp_path / "there.h5"))

    assert back.layers[-1].compute_dtype == "float32"


class Own(layers.Dense):
    """A layer that only this test knows."""


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (Own(3, name="mine"), "layer 'mine' is a Own"),
        (layers.UnitNormalization(name="u"), "layer 'u' is a UnitNormal"),
        (layers.Activation("hard_shrink", name="a"), "hard_shrink"),
        (layers.Dense(3, activation=keras.ops.sin, name="d"), "d"),
    ],
)
def test_anything_else_is_refused_by_name(last, reason, tmp_path):
    model = keras.Sequential([keras.Input((4,)), last])

    with pytest.raises(ValueError, match=reason):
        to_tf_keras(model, tmp_path / "there.h5")

    assert not any(tmp_path.iterdir())


def test_raw_operations_are_refused_by_name(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.sin(inputs))

    with pytest.raises(ValueError, match="is a Sin"):
        to_tf_keras(model, tmp_path / "there.h5")


@pytest.mark.parametrize("name", ["there.tflite", "missing/there.h5", ""])
def test_a_path_that_does_not_fit_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="`path` must"):
        to_tf_keras(fashion_cnn_student(2), tmp_path / name)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a Keras 3 model"):
        to_tf_keras("student.keras", tmp_path / "there.h5")


def test_a_file_of_keras_3_or_of_noise_is_refused(tmp_path):
    noise = tmp_path / "noise.h5"
    noise.write_bytes(b"noise" * 100)
    other = tmp_path / "student.keras"
    fashion_cnn_student(2).save(other)

    for path in (noise, other, tmp_path):
        with pytest.raises(ValueError, match="must be a model that tf_keras"):
            from_tf_keras(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        from_tf_keras(tmp_path / "nothing.h5")


SCRIPT = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tf_keras as keras
L = keras.layers
a = keras.Input((4,), name="in")
inner = keras.Sequential([keras.Input((4,)), L.Dense(4)], name="inner")
half = L.Dense(2, dtype="float16", name="half")
models = {
    "sequential": keras.Sequential([
        L.Dense(3, "relu", input_shape=(4,)), L.Dense(2)]),
    "dicts": keras.Model({"in": a}, {"out": L.Dense(2)(a)}),
    "nested": keras.Model(a, inner(a)),
    "operation": keras.Model(a, L.Dense(2)(a) * 2),
    "half": keras.Model(a, half(a)),
    "slope": keras.Model(a, L.Dense(2, "hard_sigmoid", name="slope")(a)),
    "open": keras.Sequential([keras.Input((None, 3)), L.Dense(2)]),
}
for name, model in models.items():
    model.save(f"{sys.argv[1]}/{name}.h5")
canary = f"{sys.argv[1]}/ran"
touching = eval(f"lambda x: (open({canary!r}, 'w').close(), x)[1]")
run = keras.Sequential([L.Lambda(touching, input_shape=(4,))])
run.save(f"{sys.argv[1]}/lambda.h5")
run.save(f"{sys.argv[1]}/lambda.keras")
os.remove(canary)
models["sequential"].save(f"{sys.argv[1]}/module.keras")
with open(f"{sys.argv[1]}/stranger.py", "w") as file:
    file.write(f"open({canary!r}, 'w')")
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns a folder of files that tf_keras wrote."""
    folder = tmp_path_factory.mktemp("tf_keras")
    (folder / "write.py").write_text(SCRIPT)
    subprocess.run(
        [sys.executable, folder / "write.py", folder],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.mark.parametrize("name", ["sequential", "dicts"])
def test_files_of_keras_2_are_read(files, name):
    model = from_tf_keras(files / f"{name}.h5")

    assert model.inputs[0].shape == (None, 4)
    assert model.outputs[0].shape == (None, 2)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nested", "layer 'inner' is a Sequential"),
        ("operation", "is a TFOpLambda"),
        ("half", "layer 'half' does not compute in float32"),
        ("slope", "hard_sigmoid has another slope"),
        ("open", "of shape"),
    ],
)
def test_what_keras_3_has_not_is_refused_by_name(files, name, reason):
    with pytest.raises(ValueError, match=reason):
        from_tf_keras(files / f"{name}.h5")


def test_no_code_of_a_file_runs(files, monkeypatch):
    path = files / "module.keras"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][-1] |= {"module": "stranger"}
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PYTHONPATH", str(files))

    with pytest.raises(ValueError, match="a part of the module 'stranger'"):
        from_tf_keras(path)
    for suffix in ("h5", "keras"):
        with pytest.raises(ValueError, match="a part of the module '__main__'"):
            from_tf_keras(files / f"lambda.{suffix}")
    with h5py.File(files / "lambda.h5", "a") as file:
        text = file.attrs["model_config"]
        file.attrs["model_config"] = text.replace("__main__", "keras")
    with pytest.raises(ValueError, match="potential risk of arbitrary"):
        from_tf_keras(files / "lambda.h5")

    assert not (files / "ran").exists()


def test_names_of_inputs_and_layers_do_not_clash(tmp_path):
    inputs = keras.Input((4,), name="a b")
    model = keras.Model(inputs, keras.layers.Dense(2, name="a_b")(inputs))

    back = from_tf_keras(to_tf_keras(model, tmp_path / "there.h5"))

    assert same_outputs(model, back, np.ones((2, 4)))


def test_sizes_that_are_not_fixed_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2)])

    with pytest.raises(ValueError, match="must be fixed"):
        to_tf_keras(model, tmp_path / "there.h5")


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises((OSError, ExportError), match="/proc"):
        to_tf_keras(fashion_cnn_student(2), "/proc/there.h5")


def test_other_outputs_are_refused_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sameness, "TOLERANCE", -1.0)

    with pytest.raises(ExportError, match="must compute the same"):
        to_tf_keras(fashion_cnn_student(2), tmp_path / "there.h5")

    assert not any(tmp_path.iterdir())


def test_the_process_stays_with_keras_3(tmp_path):
    before = dict(os.environ)

    to_tf_keras(fashion_cnn_student(2), tmp_path / "there.h5")

    assert tf.keras.__version__ == keras.__version__
    assert dict(os.environ) == before
