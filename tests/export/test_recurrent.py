"""Recurrent layers, masks and repeats in files: on every runtime."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_kddp.export import ExportError, LiteRTRuntime, to_tflite, verify
from keras_kddp.export.model import portable_form
from keras_kddp.export.tflite.operations import operations_of

layers = keras.layers
SEQUENCES = np.random.default_rng(0).normal(size=(16, 4, 2)).astype("float32")
# The first two rows of ids name entries from the end, as Keras takes them.
IDS = np.random.default_rng(0).integers(0, 7, (16, 4)).astype("int32")
IDS[:2] -= 7


def sequential(*parts, shape=(4, 2), dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *parts])


class Inside(layers.Layer):
    """A recurrent layer inside one of one's own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rnn = layers.GRU(3)

    def build(self, input_shape):
        self.rnn.build(input_shape)

    def call(self, inputs):
        return self.rnn(inputs)


def with_states():
    x = keras.Input((4, 2))
    output, hidden, cell = layers.LSTM(3, return_state=True)(x)
    decoded = layers.LSTM(2, return_sequences=True)(
        layers.RepeatVector(3)(output),
        initial_state=[layers.Dense(2)(hidden), layers.Dense(2)(cell)],
    )
    return keras.Model(x, [decoded, hidden])


def nested():
    inner = sequential(layers.GRU(3, reset_after=False, return_sequences=True))
    x = keras.Input((4, 2))
    return keras.Model(x, layers.LSTM(2, go_backwards=True)(inner(x)))


def of_ids(mask_zero):
    embedding = layers.Embedding(7, 3, mask_zero=mask_zero)
    behind = layers.LSTM(3) if mask_zero else layers.Flatten()
    return sequential(
        embedding, behind, layers.Dense(2), shape=(4,), dtype="int32"
    )


MODELS = {
    "simple": lambda: sequential(layers.SimpleRNN(3, return_sequences=True)),
    "bidirectional": lambda: sequential(
        layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
        layers.Bidirectional(layers.GRU(2), merge_mode="sum"),
    ),
    "masked bidirectional": lambda: sequential(
        layers.Masking(),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.Dense(2),
    ),
    "stacked cells": lambda: sequential(
        layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)])
    ),
    "states": with_states,
    "nested": nested,
    "inside": lambda: sequential(Inside()),
    "masking": lambda: sequential(layers.Masking(), layers.LSTM(3)),
    "embedding": lambda: of_ids(mask_zero=False),
    "masked embedding": lambda: of_ids(mask_zero=True),
    "one unit": lambda: sequential(layers.LSTM(1), layers.Dense(2)),
    "of each step": lambda: sequential(
        layers.TimeDistributed(layers.Reshape((2, 1))),
        layers.TimeDistributed(layers.LSTM(2)),
    ),
    "upsampled": lambda: sequential(
        layers.UpSampling1D(), layers.Conv1D(2, 3), layers.SimpleRNN(2)
    ),
}


def inputs_of(model):
    return IDS if model.inputs[0].dtype == "int32" else SEQUENCES


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        *((name, "int8") for name in MODELS if name != "nested"),
        *((name, "none") for name in ("simple", "masked embedding")),
        ("nested", "int16x8"),
    ],
)
def test_every_runtime_agrees_with_keras_about(name, quantization, tmp_path):
    keras.utils.set_random_seed(1)
    model = MODELS[name]()
    x = inputs_of(model)

    artifact = to_tflite(
        model,
        tmp_path / "m.tflite",
        quantization=quantization,
        calibration=x if quantization.startswith("int") else None,
    )

    limit = {"int8": 0.08, "int16x8": 0.01}.get(quantization, 1e-5)
    if "embedding" in name and quantization == "int8":
        limit = 0.3  # a fresh Embedding is within 0.05, a gate within 1
    rows = verify(model, artifact, x, tolerance=limit).rows
    assert {row.refusal for row in rows} == {None}
    assert all(row.relative_error < limit for row in rows), rows
    assert "WHILE" not in operations_of(artifact.path.read_bytes())


@pytest.mark.parametrize("name", ["bidirectional", "nested"])
def test_every_part_of_a_split_is_used_in_int8(name, tmp_path):
    # Others are quantized or not, as it happens: each file has other bytes.
    keras.utils.set_random_seed(1)
    artifact = to_tflite(
        MODELS[name](),
        tmp_path / "m.tflite",
        quantization="int8",
        calibration=SEQUENCES,
    )

    content = artifact.path.read_bytes()
    assert "DEQUANTIZE" not in operations_of(content)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (graph,) = model.subgraphs
    used = {index for operator in graph.operators for index in operator.inputs}
    splits = [x for x in graph.operators if len(x.outputs) > 1]
    assert splits
    for split in splits:
        assert used.issuperset(split.outputs)


@pytest.mark.parametrize("parts", [3, [2, 4]])
def test_the_used_parts_of_a_split_are_sliced(parts, tmp_path):
    keras.utils.set_random_seed(1)
    x = keras.Input((4, 2))
    first, _, last = keras.ops.split(layers.Dense(6)(x), parts, axis=-1)
    model = keras.Model(x, [first, last])

    artifact = to_tflite(
        model,
        tmp_path / "m.tflite",
        quantization="int8",
        calibration=SEQUENCES,
    )

    assert not {"SPLIT", "SPLIT_V"} & set(
        operations_of(artifact.path.read_bytes())
    )
    assert verify(model, artifact, SEQUENCES, tolerance=0.05).passed


@pytest.mark.parametrize("axis", [1, -1])
def test_the_used_parts_of_a_stack_are_sliced(axis, tmp_path):
    keras.utils.set_random_seed(1)
    x = keras.Input((4, 2))
    parts = keras.ops.unstack(layers.Dense(4)(x), axis=axis)
    model = keras.Model(x, [parts[0], layers.Dense(2)(parts[-1])])

    artifact = to_tflite(
        model,
        tmp_path / "m.tflite",
        quantization="int8",
        calibration=SEQUENCES,
    )

    operations = operations_of(artifact.path.read_bytes())
    assert not {"UNPACK", "DEQUANTIZE"} & set(operations)
    rows = verify(model, artifact, SEQUENCES, tolerance=0.05).rows
    assert {row.refusal for row in rows} == {None}
    assert all(row.passed for row in rows)


def test_the_model_stays_as_it_was(tmp_path):
    embedding = layers.Embedding(7, 3)
    recurrent = layers.Bidirectional(layers.SimpleRNN(2))
    model = sequential(
        embedding, recurrent, layers.Dense(2), shape=(2,), dtype="int32"
    )
    before = recurrent.get_config()

    to_tflite(model, tmp_path / "m.tflite")

    assert recurrent.get_config() == before
    assert not recurrent.forward_layer.unroll
    assert "call" not in vars(embedding)


def test_what_tflm_does_not_run_keeps_its_loop(tmp_path):
    model = sequential(layers.SimpleRNN(3))
    artifact = to_tflite(model, tmp_path / "m.tflite", quantization="float16")
    assert "WHILE" in operations_of(artifact.path.read_bytes())
    assert verify(model, artifact, SEQUENCES).passed


def test_too_many_steps_are_refused_in_integers(tmp_path, monkeypatch):
    monkeypatch.setattr(portable_form, "MOST_STEPS", 7)
    model = sequential(
        layers.SimpleRNN(3, return_sequences=True, name="first"),
        layers.SimpleRNN(2),
    )
    with pytest.raises(
        ExportError,
        match=r"must be 7 at most. Received: 8, of which layer 'first' "
        r"\(SimpleRNN\)"
        " takes 4",
    ):
        to_tflite(
            model,
            tmp_path / "m.tflite",
            quantization="int8",
            calibration=SEQUENCES,
        )
    artifact = to_tflite(model, tmp_path / "m.tflite")
    assert "WHILE" in operations_of(artifact.path.read_bytes())


def test_state_that_outlives_a_call_is_refused(tmp_path):
    x = keras.Input(batch_shape=(1, 4, 2))
    recurrent = layers.LSTM(3, stateful=True, name="memory")
    model = keras.Model(x, layers.Dense(2)(recurrent(x)))
    with pytest.raises(ExportError, match=r"'memory' \(LSTM\) with stateful="):
        to_tflite(model, tmp_path / "m.tflite")


def test_sequences_of_one_channel_are_added(tmp_path):
    x = keras.Input((4, 2))
    parts = [layers.Conv1D(1, 1)(x), layers.Conv1D(1, 1)(x)]
    totals = [layers.Add()(parts), parts[0] + parts[1]]
    model = keras.Model(x, [layers.Conv1D(3, 2)(total) for total in totals])

    artifact = to_tflite(model, tmp_path / "m.tflite")

    assert verify(model, artifact, SEQUENCES, tolerance=1e-5).passed


def test_a_layer_of_ones_own_may_be_called_add(tmp_path):
    class Add(layers.Layer):
        def call(self, inputs):
            first, second = inputs
            return keras.ops.cumsum(first, axis=1) + second

    x = keras.Input((4, 2))
    total = Add()([layers.Conv1D(1, 1)(x), layers.Conv1D(1, 1)(x)])
    model = keras.Model(x, layers.Conv1D(3, 2)(total))

    artifact = to_tflite(model, tmp_path / "m.tflite")

    assert verify(model, artifact, SEQUENCES, tolerance=1e-5).passed


def test_products_of_one_channel_are_converted(tmp_path):
    model = sequential(layers.Dense(3), layers.Dense(4), shape=(4, 1))
    artifact = to_tflite(model, tmp_path / "m.tflite")
    assert verify(model, artifact, SEQUENCES[..., :1], tolerance=1e-5).passed


def test_a_mask_cuts_off_no_states_in_int8(tmp_path):
    keras.utils.set_random_seed(1)
    model = MODELS["masking"]()
    artifact = to_tflite(
        model,
        tmp_path / "m.tflite",
        quantization="int8",
        calibration=SEQUENCES,
    )
    runtime = LiteRTRuntime(artifact.path)
    (found,) = runtime.run({runtime.input_names[0]: SEQUENCES}).values()
    wanted = model.predict(SEQUENCES, verbose=0)
    assert np.abs(found - wanted).max() < 0.02  # it was 0.08


def test_turned_steps_keep_their_scale_in_int8(tmp_path):
    x = keras.Input((4, 2))
    large = layers.Dense(2)(x) * 5.0
    small = keras.ops.flip(layers.Dense(2, activation="tanh")(x), axis=1)
    model = keras.Model(x, layers.Concatenate()([large, small]))

    artifact = to_tflite(
        model,
        tmp_path / "m.tflite",
        quantization="int8",
        calibration=SEQUENCES,
    )

    rows = verify(model, artifact, SEQUENCES).rows
    assert {row.refusal for row in rows} == {None}
    wanted = model.predict(SEQUENCES, verbose=0)
    step = np.ptp(wanted) / 255
    assert all(row.max_abs_error < 3 * step for row in rows), rows


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_loop_backwards_is_turned_for_the_trace_alone(is_masked, tmp_path):
    keras.utils.set_random_seed(1)
    both = layers.Bidirectional(layers.GRU(3, return_sequences=True))
    masking = [layers.Masking()] if is_masked else []
    model = sequential(*masking, both)
    x = SEQUENCES.copy()
    x[:8, 3:] = 0  # steps that are masked at one end only
    before, wanted = both.get_config(), model.predict(x, verbose=0)

    artifact = to_tflite(model, tmp_path / "m.tflite")

    assert verify(model, artifact, x, tolerance=1e-5).passed
    assert both.get_config() == before
    assert both.backward_layer.go_backwards
    assert "inner_loop" not in vars(both.backward_layer)
    np.testing.assert_array_equal(model.predict(x, verbose=0), wanted)
