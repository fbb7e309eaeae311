import gc
import math
import os
import random
import signal
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from keras_kddp.export import ExportError, LiteRTRuntime, to_tflite, verify
from keras_kddp.export.tflite.converter import Converter, shared_converter
from keras_kddp.export.workers.worker_process import Process

layers = keras.layers


@keras.saving.register_keras_serializable(package="tests")
class Penalised(layers.Layer):
    """An identity with a loss, as students carry them; unknown to TFLite."""

    def call(self, inputs):
        self.add_loss(keras.ops.mean(inputs))
        return inputs


class Scaled(layers.Layer):
    """A layer that is registered nowhere."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[-1:], name="scale")

    def call(self, inputs):
        return inputs * self.scale


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def dense():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activation="relu"),
            Penalised(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )


def convolution():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def residual():
    image = keras.Input((6, 6, 2), name="image")
    shortcut = layers.Conv2D(4, 1)(image)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    x = layers.ReLU()(layers.Add()([x, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(2)(x) * 2.0)


def two_inputs_two_outputs():
    image = keras.Input((4, 4, 1), name="image")
    vector = keras.Input((3,), name="a vector")
    x = layers.Flatten()(image)
    joined = layers.Add()([layers.Dense(3)(x), vector])
    return keras.Model(
        {"image": image, "a vector": vector},
        {"joined": joined, "alone": layers.Dense(2, name="alone")(x)},
    )


def shared_layer():
    x = keras.Input((3,))
    layer = layers.Dense(3, name="shared")
    return keras.Model(x, [layer(x), layer(layer(x))])


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3), Scaled()])
    x = keras.Input((4,))
    return keras.Model(x, layers.ReLU()(inner(x)))


def embedding():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(7, 4)(tokens))
    return keras.Model(tokens, layers.Dense(2)(x))


WRONG_TYPES = {
    schema.TensorType.FLOAT16,
    schema.TensorType.FLOAT64,
    schema.TensorType.INT8,
}
MODELS = [
    dense,
    convolution,
    residual,
    two_inputs_two_outputs,
    shared_layer,
    nested,
    embedding,
]


def with_random_state(model):
    """Sets every weight, moving statistics too, to something non-trivial."""
    numbers = np.random.default_rng(0)
    model.set_weights(
        [numbers.uniform(0.2, 1.0, w.shape) for w in model.get_weights()]
    )
    return model


def random_inputs(model, samples=5):
    numbers = np.random.default_rng(1)
    return [
        numbers.integers(0, 7, (samples, *tensor.shape[1:])).astype("int32")
        if tensor.dtype == "int32"
        else numbers.normal(size=(samples, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]


def keras_outputs(model, inputs):
    if not isinstance(model, keras.Sequential):
        inputs = keras.tree.pack_sequence_as(model.input, inputs)
    else:
        inputs = inputs[0]
    return [
        keras.ops.convert_to_numpy(output)
        for output in keras.tree.flatten(model(inputs, training=False))
    ]


def file_outputs(artifact, inputs):
    runtime = LiteRTRuntime(artifact.path)
    outputs = runtime.run(dict(zip(artifact.input_names, inputs, strict=True)))
    return [outputs[name] for name in artifact.output_names]


def parsed(artifact):
    buffer = artifact.path.read_bytes()
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(buffer, 0))


def operations(artifact):
    names = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if not name.startswith("_")
    }
    model = parsed(artifact)
    return [
        names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        for operator in model.subgraphs[0].operators
    ]


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    """A model and its file."""
    model = with_random_state(request.param())
    folder = tmp_path_factory.mktemp("exported")
    return model, to_tflite(model, folder / "model.tflite")


def test_the_file_computes_what_keras_computes(exported):
    model, artifact = exported
    inputs = random_inputs(model)
    expected = keras_outputs(model, inputs)
    for actual, wanted in zip(
        file_outputs(artifact, inputs), expected, strict=True
    ):
        assert wanted.std() > 0
        np.testing.assert_allclose(
            actual, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
        )


def test_the_file_has_batch_1_builtin_operations_and_float32(exported):
    _, artifact = exported
    assert "CUSTOM" not in operations(artifact)
    model = parsed(artifact)
    assert all(not code.customCode for code in model.operatorCodes)
    assert len(model.subgraphs) == 1
    graph = model.subgraphs[0]
    for index in [*graph.inputs, *graph.outputs]:
        assert graph.tensors[index].shape[0] == 1
        assert graph.tensors[index].shapeSignature is None
    assert not WRONG_TYPES & {tensor.type for tensor in graph.tensors}


def test_normalization_and_activation_fuse_into_the_convolution(tmp_path):
    artifact = to_tflite(convolution(), tmp_path / "model.tflite")
    assert operations(artifact) == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]


@pytest.mark.parametrize("activation", ["silu", "custom"])
def test_a_gradient_of_ones_own_is_left_out(activation, tmp_path):
    @tf.custom_gradient
    def clipped(x):
        return tf.clip_by_value(x, -1.0, 1.0), lambda upstream: upstream

    function = clipped if activation == "custom" else activation
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.Activation(function)]
    )
    artifact = to_tflite(model, tmp_path / "m.tflite")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    assert verify(model, artifact, x, tolerance=1e-5).passed


def test_the_artifact_describes_its_file(tmp_path):
    path = tmp_path / "model.tflite"
    artifact = to_tflite(two_inputs_two_outputs(), str(path))
    assert artifact.path == path
    assert artifact.quantization == "none"
    assert artifact.num_bytes == len(path.read_bytes())
    assert artifact.input_names == ("a_vector", "image")
    assert artifact.output_names[0] == "alone"
    assert list(tmp_path.iterdir()) == [path]


def test_names_in_the_file_are_distinct(tmp_path):
    artifact = to_tflite(shared_layer(), tmp_path / "model.tflite")
    assert artifact.output_names == ("shared", "shared_1")


def test_names_in_the_file_start_with_a_letter(tmp_path):
    inputs = keras.Input((2,), name="2d")
    model = keras.Model(inputs, layers.Dense(1)(inputs))
    artifact = to_tflite(model, tmp_path / "model.tflite")
    assert artifact.input_names == ("tensor_2d",)


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
@pytest.mark.parametrize("build", [convolution, nested, residual])
def test_other_precisions_are_exported_in_float32(build, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        model = with_random_state(build())
    finally:
        keras.config.set_dtype_policy("float32")
    weights = model.get_weights()
    inputs = random_inputs(model)
    artifact = to_tflite(model, tmp_path / "model.tflite")
    (actual,), (wanted,) = (
        file_outputs(artifact, inputs),
        keras_outputs(model, inputs),
    )
    tolerance = 1e-2 if policy == "mixed_float16" else 1e-5
    assert np.abs(actual - wanted).max() < tolerance * np.abs(wanted).max()
    assert model.dtype_policy.name == policy
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    tensors = parsed(artifact).subgraphs[0].tensors
    assert not WRONG_TYPES & {tensor.type for tensor in tensors}


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_layers_inside_a_subclassed_layer_are_float32_too(dtype, tmp_path):
    inputs = keras.Input((3,))
    keras.config.set_dtype_policy(dtype)
    try:
        model = keras.Model(inputs, Subclassed()(inputs))
        artifact = to_tflite(model, tmp_path / "model.tflite")
        assert keras.config.dtype_policy().name == dtype
    finally:
        keras.config.set_dtype_policy("float32")
    tensors = parsed(artifact).subgraphs[0].tensors
    assert not WRONG_TYPES & {tensor.type for tensor in tensors}


def test_a_layer_that_cannot_be_rebuilt_in_float32_is_named(tmp_path):
    class NoConfig(layers.Layer):
        def __init__(self, size):
            super().__init__(dtype="float64")

        def call(self, inputs):
            return inputs

    inputs = keras.Input((3,))
    model = keras.Model(inputs, NoConfig(3)(inputs))
    with pytest.raises(ExportError, match="(?s)rebuildable.*NoConfig"):
        to_tflite(model, tmp_path / "model.tflite")


def test_inputs_in_float64_become_float32(tmp_path):
    inputs = keras.Input((2,), dtype="float64")
    layer = layers.Dense(1, dtype="float64")
    artifact = to_tflite(
        keras.Model(inputs, layer(inputs)), tmp_path / "model.tflite"
    )
    tensors = parsed(artifact).subgraphs[0].tensors
    assert not WRONG_TYPES & {tensor.type for tensor in tensors}


def test_export_leaves_no_trace(tmp_path):
    keras.utils.set_random_seed(3)
    model = dense()
    model(np.ones((2, 4), "float32"))
    weights = model.get_weights()
    before = {
        "environment": dict(os.environ),
        "policy": keras.config.dtype_policy().name,
        "floatx": keras.config.floatx(),
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "keras": tf.keras.__version__,
        "folder": Path.cwd(),
    }
    to_tflite(model, tmp_path / "model.tflite")
    assert before == {
        "environment": dict(os.environ),
        "policy": keras.config.dtype_policy().name,
        "floatx": keras.config.floatx(),
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "keras": tf.keras.__version__,
        "folder": Path.cwd(),
    }
    assert model.losses == []  # none of the traced graph
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_rebuilding_in_float32_draws_no_random_number(tmp_path):
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(2, dtype="mixed_float16")]
    )
    state = random.getstate()
    to_tflite(model, tmp_path / "model.tflite")
    assert random.getstate() == state


def test_an_exported_model_trains_on(tmp_path):
    model = dense()
    model.compile("sgd", "sparse_categorical_crossentropy")
    to_tflite(model, tmp_path / "model.tflite")
    history = model.fit(np.ones((4, 4)), np.zeros(4), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_a_sequential_model_built_on_data_is_exported(tmp_path):
    model = keras.Sequential([layers.Dense(2)])
    model(np.ones((3, 4), "float32"))
    artifact = to_tflite(model, tmp_path / "model.tflite")
    x = np.ones((1, 4), "float32")
    np.testing.assert_allclose(
        file_outputs(artifact, [x])[0], model(x), rtol=1e-6
    )


# --- the worker -----------------------------------------------------------


def test_one_worker_serves_many_conversions(tmp_path):
    to_tflite(dense(), tmp_path / "first.tflite")
    pid = shared_converter.pid
    to_tflite(dense(), tmp_path / "second.tflite")
    assert pid is not None
    assert shared_converter.pid == pid


def test_a_worker_that_dies_midway_leaves_the_old_file(tmp_path, monkeypatch):
    def ask_and_crash(worker, request):
        pid = worker.popen.pid
        os.kill(pid, signal.SIGSTOP)  # it cannot answer before it is killed
        killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
        killer.start()
        try:
            return ask(worker, request)
        finally:
            killer.join()

    ask = Process.ask
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the former file")
    with monkeypatch.context() as crashing:
        crashing.setattr(Process, "ask", ask_and_crash)
        with pytest.raises(ExportError, match="ended with SIGKILL"):
            to_tflite(dense(), path)
    assert path.read_bytes() == b"the former file"
    assert list(tmp_path.iterdir()) == [path]
    assert to_tflite(dense(), path).num_bytes == path.stat().st_size


def test_a_refused_model_leaves_no_file_and_the_worker_alive(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.erfinv(inputs))
    to_tflite(dense(), tmp_path / "good.tflite")
    pid = shared_converter.pid
    with pytest.raises(ExportError, match="builtin operations.*tf.Erfinv"):
        to_tflite(model, tmp_path / "bad.tflite")
    assert [file.name for file in tmp_path.iterdir()] == ["good.tflite"]
    assert shared_converter.pid == pid
    to_tflite(dense(), tmp_path / "good.tflite")


FAKE_TENSORFLOW = """
import os
import sys
from types import SimpleNamespace

print("python chatter")
os.write(1, b"native chatter")


class Converter:
    target_spec = SimpleNamespace()

    def convert(self):
        print("chatter while converting")
        {body}
        return b"content"


lite = SimpleNamespace(
    OpsSet=SimpleNamespace(TFLITE_BUILTINS=1),
    TFLiteConverter=SimpleNamespace(
        from_saved_model=lambda *args, **kwargs: Converter()
    ),
)
"""


@pytest.fixture
def converter_with(tmp_path, monkeypatch):
    """Returns a converter whose TensorFlow runs the given statement."""
    started = []

    def build(body):
        folder = tmp_path / "fake"
        folder.mkdir()
        (folder / "tensorflow.py").write_text(FAKE_TENSORFLOW.format(body=body))
        monkeypatch.setenv("PYTHONPATH", str(folder))
        started.append(Converter())
        return started[0]

    yield build
    started[0].close()


def test_chatter_of_the_worker_does_not_reach_the_protocol(
    converter_with, tmp_path
):
    converter = converter_with("pass")
    for name in ["first", "second"]:
        converter.convert(tmp_path, tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"content"


def test_a_worker_that_died_idle_is_replaced(converter_with, tmp_path):
    converter = converter_with("pass")
    converter.convert(tmp_path, tmp_path / "first")
    pid = converter.pid
    os.kill(pid, signal.SIGKILL)
    while converter.pid == pid:
        pass
    converter.convert(tmp_path, tmp_path / "second")
    assert converter.pid not in {None, pid}


def test_a_crash_is_reported_with_the_last_words(converter_with, tmp_path):
    converter = converter_with(
        "sys.stderr.write('the last words'); sys.stderr.flush(); os.abort()"
    )
    with pytest.raises(ExportError, match="(?s)SIGABRT.*the last words"):
        converter.convert(tmp_path, tmp_path / "model")
    assert converter.pid is None


def test_an_exit_is_reported_with_its_code(converter_with, tmp_path):
    converter = converter_with("sys.exit(3)")
    with pytest.raises(ExportError, match="ended with exit code 3"):
        converter.convert(tmp_path, tmp_path / "model")


def test_an_interrupt_ends_the_busy_worker(converter_with, tmp_path):
    converter = converter_with("import time; time.sleep(60)")
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    # What a shell starts in the background ignores interrupts.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.disable()  # a finalizer would swallow the interrupt
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt.start()
            converter.convert(tmp_path, tmp_path / "model")
    finally:
        signal.signal(signal.SIGINT, handler)
        gc.enable()
    interrupt.join()
    assert converter.pid is None


def test_an_error_without_a_cause_line_is_shown_as_it_is(
    converter_with, tmp_path
):
    converter = converter_with("raise OSError('disk full')")
    with pytest.raises(ExportError, match="OSError: disk full"):
        converter.convert(tmp_path, tmp_path / "model")
    assert converter.pid is not None


def test_a_closed_converter_starts_again(converter_with, tmp_path):
    converter = converter_with("pass")
    converter.start()
    first = converter.pid
    converter.close()
    assert converter.pid is None
    converter.convert(tmp_path, tmp_path / "model")
    assert converter.pid not in {None, first}


def test_a_forked_process_does_not_use_its_parents_worker(
    converter_with, monkeypatch
):
    converter = converter_with("pass")
    converter.start()
    assert converter.pid is not None
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: -1)
        assert converter.pid is None
    assert converter.pid is not None


# --- bad input ------------------------------------------------------------


@pytest.fixture
def no_work(monkeypatch):
    """Fails the test if the converter is asked for anything."""

    def refuse(*_):
        pytest.fail("work began before the arguments were checked")

    monkeypatch.setattr(Converter, "start", refuse)
    monkeypatch.setattr(Converter, "convert", refuse)


@pytest.mark.usefixtures("no_work")
class TestBadInput:
    def test_a_quantization_that_there_is_not(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"one of \('none', 'dynamic'.* Received: .*int2"
        ):
            to_tflite(dense(), tmp_path / "m.tflite", quantization="int2")

    def test_uint8_inputs_without_int8(self, tmp_path):
        with pytest.raises(ValueError, match="`uint8_input` must be False but"):
            to_tflite(dense(), tmp_path / "m.tflite", uint8_input=True)

    @pytest.mark.parametrize("metadata", [{"a": math.nan}, {"a": object()}, 3])
    def test_metadata_that_json_cannot_hold(self, metadata, tmp_path):
        with pytest.raises(ValueError, match="a dict that JSON can hold"):
            to_tflite(dense(), tmp_path / "m.tflite", metadata=metadata)

    def test_calibration_without_quantization(self, tmp_path):
        with pytest.raises(ValueError, match="`calibration` must be None"):
            to_tflite(
                dense(), tmp_path / "m.tflite", calibration=np.ones((2, 4))
            )

    def test_another_backend(self, monkeypatch, tmp_path):
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(ValueError, match="TensorFlow backend.*'jax'"):
            to_tflite(dense(), tmp_path / "m.tflite")

    @pytest.mark.parametrize("name", ["model", "model.lite", "model.tflite.x"])
    def test_a_wrong_suffix(self, name, tmp_path):
        with pytest.raises(ValueError, match="must end in .tflite"):
            to_tflite(dense(), tmp_path / name)

    def test_a_missing_directory(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="existing, writable"):
            to_tflite(dense(), tmp_path / "none" / "m.tflite")

    def test_a_name_that_no_file_can_have(self, tmp_path):
        with pytest.raises(OSError, match="existing, writable"):
            to_tflite(dense(), tmp_path / f"{'m' * 300}.tflite")

    def test_a_path_that_is_a_directory(self, tmp_path):
        (tmp_path / "m.tflite").mkdir()
        with pytest.raises(IsADirectoryError, match="it is a directory"):
            to_tflite(dense(), tmp_path / "m.tflite")

    @pytest.mark.parametrize("model", [None, "student.keras", tf.Module()])
    def test_what_is_no_keras_model(self, model, tmp_path):
        with pytest.raises(TypeError, match="must be a keras.Model"):
            to_tflite(model, tmp_path / "m.tflite")

    @pytest.mark.parametrize(
        "build", [lambda: keras.Sequential([layers.Dense(2)]), Subclassed]
    )
    def test_a_model_without_known_inputs(self, build, tmp_path):
        with pytest.raises(ValueError, match="must be a built Sequential"):
            to_tflite(build(), tmp_path / "m.tflite")

    def test_a_subclassed_model_that_was_called(self, tmp_path):
        model = Subclassed()
        model(np.ones((1, 3), "float32"))
        with pytest.raises(ValueError, match="wrap a subclassed model"):
            to_tflite(model, tmp_path / "m.tflite")

    def test_an_input_of_variable_size(self, tmp_path):
        inputs = keras.Input((None, 3), name="sequence")
        model = keras.Model(inputs, layers.Dense(2)(inputs))
        with pytest.raises(ValueError, match="must be fixed.*'sequence'"):
            to_tflite(model, tmp_path / "m.tflite")


def test_the_wrapped_subclassed_model_of_the_message_works(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Subclassed()(inputs))
    x = np.ones((2, 3), "float32")
    artifact = to_tflite(model, tmp_path / "m.tflite")
    np.testing.assert_allclose(
        file_outputs(artifact, [x])[0], model(x), rtol=1e-6
    )


def test_a_model_of_another_fixed_batch_is_refused(tmp_path):
    inputs = keras.Input(batch_shape=(32, 4))
    model = keras.Model(inputs, keras.ops.reshape(inputs, (32, 2, 2)))
    with pytest.raises(ExportError, match="(?s)batch of 1.*Cannot reshape"):
        to_tflite(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []
