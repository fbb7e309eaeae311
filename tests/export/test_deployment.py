"""The whole way of a pruned student to its files, and what it leaves alone."""

import os
import random
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keras_kddp import remove_units
from keras_kddp.export import (
    ExportError,
    RefusalError,
    TFLMRuntime,
    bench,
    to_microcontroller,
    to_tflite,
    verify,
)
from keras_kddp.export.runtimes import vela
from keras_kddp.export.runtimes.vela import estimate_on_ethos_u
from keras_kddp.export.tflite.operations import operations_of
from keras_kddp.models import fashion_cnn_student, fashion_mlp_student

X = np.random.default_rng(0).uniform(size=(40, 28, 28, 1)).astype("float32")


def content_of(model, path, quantization):
    """Returns operations, tensors and size of a model's file."""
    artifact = to_tflite(
        model,
        path,
        quantization=quantization,
        calibration=X if quantization == "int8" else None,
    )
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    tensors = sorted(
        (tuple(part["shape"]), np.dtype(part["dtype"]).name)
        for part in interpreter.get_tensor_details()
    )
    return operations_of(path.read_bytes()), tensors, artifact.num_bytes


@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("build", [fashion_cnn_student, fashion_mlp_student])
def test_the_file_of_a_pruned_student_is_that_of_one_built_small(
    build, quantization, tmp_path
):
    pruned = remove_units(build(64), {"hidden": range(5, 64, 2)})
    pruned_content = content_of(
        pruned, tmp_path / "pruned.tflite", quantization
    )
    small_content = content_of(build(34), tmp_path / "s.tflite", quantization)

    assert pruned.get_layer("hidden").units == 34
    assert pruned_content[:2] == small_content[:2]
    assert abs(pruned_content[2] - small_content[2]) <= 512


def test_bench_measures_both_models_in_one_run():
    found = bench(
        {"before": fashion_mlp_student(), "after": fashion_mlp_student(50)},
        X,
        samples=20,
    )

    before, after = found.row("before"), found.row("after")
    assert before.macs == 784 * 800 + 800 * 10
    assert after.macs == 784 * 50 + 50 * 10
    assert after.num_bytes < before.num_bytes / 10
    assert 0 < after.arena_bytes < before.arena_bytes
    assert 0 < after.micro < before.micro  # a sixteenth of the work
    table = str(found).splitlines()
    assert len(table) == 1 + 4 + 2
    assert "16.00x" in table[-1]
    assert 0 < after.ethos_u < before.ethos_u  # as Vela predicts
    assert 0 < after.sram_bytes < before.sram_bytes
    assert found.row("after", "none").ethos_u is None


def test_bench_without_tflm_leaves_its_columns_empty(monkeypatch):
    monkeypatch.setattr(TFLMRuntime, "absence", classmethod(lambda _: "get it"))
    module = sys.modules["keras_kddp.export.agreement.bench"]
    monkeypatch.setattr(module, "absence_of_vela", lambda: "get it")

    found = bench({"one": fashion_mlp_student(10)}, X, samples=5)

    assert found.row("one").micro is None
    assert found.row("one").arena_bytes is None
    assert str(found).splitlines()[-1].split()[-2:] == ["-", "-"]
    assert "Ethos" not in str(found)


def test_vela_says_why_it_cannot_compile(tmp_path):
    path = tmp_path / "noise.tflite"
    path.write_bytes(b"noise" * 99)

    with pytest.raises(RefusalError, match="Vela cannot compile"):
        estimate_on_ethos_u(path)


def test_without_vela_an_estimate_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(vela, "absence_of_vela", lambda: "pip install it")

    with pytest.raises(ImportError, match="pip install it"):
        estimate_on_ethos_u(tmp_path / "m.tflite")


def test_bench_needs_a_model():
    with pytest.raises(ValueError, match="must name at least one model"):
        bench({}, X)


def state():
    """Returns everything global that an export could move."""
    return {
        "environment": dict(os.environ),
        "policy": keras.config.dtype_policy().name,
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "keras": tf.keras.__version__,
        "folder": Path.cwd(),
    }


def test_the_process_stays_as_it_was(tmp_path):
    student = fashion_mlp_student(8)
    before = state()

    artifact = to_tflite(student, tmp_path / "m.tflite")
    verify(student, artifact, X)
    to_microcontroller(student, tmp_path / "micro", X)
    bench({"one": student}, X, samples=2)

    assert state() == before


class Mapped(keras.layers.Layer):
    """A loop, of which the converter dies in int8."""

    def call(self, inputs):
        return keras.ops.map(keras.ops.tanh, inputs)


def test_a_crash_of_the_converter_is_an_error_and_leaves_no_file(tmp_path):
    inputs = keras.Input((6, 3))
    outputs = keras.layers.Dense(2)(Mapped()(inputs))
    x = np.random.default_rng(0).normal(size=(30, 6, 3)).astype("float32")

    with pytest.raises(ExportError, match=r"'mapped\w*' \(Mapped\)"):
        to_tflite(
            keras.Model(inputs, outputs),
            tmp_path / "m.tflite",
            quantization="int8",
            calibration=x,
        )

    assert not any(tmp_path.iterdir())
