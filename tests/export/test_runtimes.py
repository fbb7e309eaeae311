"""Every flavour of a file on every runtime, and files that are none."""

import dataclasses
import os
import signal
import struct
import sys
import time

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_kddp.export import (
    CrashError,
    LiteRTRuntime,
    RefusalError,
    TFLiteRuntime,
    TFLMRuntime,
    read_metadata,
    to_tflite,
    verify,
)
from keras_kddp.export.runtimes import process
from keras_kddp.export.tflite.calibration import CALIBRATED
from keras_kddp.export.tflite.operations import operations_of
from keras_kddp.export.tflite.portable_operations import (
    with_portable_operations,
)
from keras_kddp.export.tflite.to_tflite import QUANTIZATIONS

X = np.random.default_rng(0).uniform(size=(60, 8, 8, 1)).astype("float32")
Y = (X.mean(axis=(1, 2, 3)) > 0.5).astype(int)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            # The converter leaves weights of fewer than 1,024 numbers alone.
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    # Trained statistics: what an untrained normalization has is 0 and 1.
    model.layers[1].set_weights([np.full(8, v) for v in (1.5, 0.1, 0.2, 0.7)])
    return model


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """Returns the artifact of each quantization."""
    folder = tmp_path_factory.mktemp("files")
    return {
        name: to_tflite(
            model,
            folder / f"{name}.tflite",
            quantization=name,
            calibration=X if name in CALIBRATED else None,
        )
        for name in QUANTIZATIONS
    }


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_flavour_agrees_with_keras(model, files, quantization):
    agreement = verify(model, files[quantization], X)

    row = agreement.row(files[quantization].path)
    assert agreement.passed
    assert row.refusal is None
    assert row.milliseconds > 0
    limits = {"none": 1e-5, "int4": 0.3}
    assert row.relative_error < limits.get(quantization, 0.1)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_flavour_is_written_where_one_stands(
    model, quantization, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # after the processes have started

    to_tflite(
        model,
        "here.tflite",
        quantization=quantization,
        calibration=X if quantization in CALIBRATED else None,
    )

    assert LiteRTRuntime("here.tflite").quantization == quantization


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_flavour_is_told_by_what_is_in_the_file(files, quantization):
    runtime = LiteRTRuntime(files[quantization].path)

    assert runtime.quantization == quantization
    assert runtime.is_quantized is (quantization in CALIBRATED)


def test_each_flavour_is_smaller_than_float32(files):
    sizes = {name: artifact.num_bytes for name, artifact in files.items()}

    assert sizes["int8"] < sizes["none"]
    assert sizes["float16"] < sizes["none"]


@pytest.mark.parametrize("quantization", ["none", "int8", "int16x8"])
def test_tflm_equals_litert_within_its_steps(files, quantization):
    path = files[quantization].path
    phone, chip = LiteRTRuntime(path), TFLMRuntime(path)
    given = {phone.input_names[0]: X}

    wanted, found = phone.execute(given), chip.execute(given, arena=True)

    # A step of int16 is 256 times finer, and rounding adds up to a few.
    steps = 4 if quantization == "int16x8" else 1
    step = steps * (phone.outputs["logits"].scale or 1e-6)
    np.testing.assert_allclose(
        found.outputs["logits"], wanted.outputs["logits"], atol=1.001 * step
    )
    assert found.arena_bytes > 64 * 4  # the images alone take that
    assert wanted.arena_bytes is None
    assert chip.execute(given).arena_bytes is None


@pytest.mark.parametrize(
    ("quantization", "reason"),
    [("dynamic", "filter type: INT8 not supported"), ("float16", "DEQUANTIZE")],
)
def test_what_tflm_refuses_is_said_with_the_reason(
    model, files, quantization, reason
):
    agreement = verify(model, files[quantization], X, Y)

    row = agreement.row(files[quantization].path, "TFLM")
    assert reason in row.refusal
    assert not row.passed
    assert agreement.passed
    shown = " ".join(str(agreement).split())
    assert f"refused: {' '.join(row.refusal.split())}" in shown
    runtime = TFLMRuntime(row.path)
    with pytest.raises(RefusalError, match=reason):
        runtime.run({runtime.input_names[0]: X})


def test_tflite_runtime_refuses_int4_which_it_takes_for_int8(files):
    runtime = TFLiteRuntime(files["int4"].path)

    with pytest.raises(RefusalError, match="^int4 needs LiteRT"):
        runtime.run({runtime.input_names[0]: X})


def test_a_runtime_that_is_not_here_says_how_to_get_it(
    model, files, monkeypatch, tmp_path
):
    monkeypatch.setenv("KERAS_KDDP_TFLITE_RUNTIME", str(tmp_path / "python"))

    agreement = verify(model, files["int8"], X)

    assert TFLiteRuntime.absence() == "make runtimes"
    assert agreement.absent["tflite-runtime"] == "make runtimes"
    assert "tflite-runtime is not here: make runtimes" in str(agreement)


def test_a_runtime_that_differs_from_litert_fails(model, files, monkeypatch):
    execute = TFLMRuntime.execute

    def differ(runtime, inputs, **options):
        found = execute(runtime, inputs, **options)
        outputs = {name: 0.7 * part for name, part in found.outputs.items()}
        return dataclasses.replace(found, outputs=outputs)

    monkeypatch.setattr(TFLMRuntime, "execute", differ)

    agreement = verify(model, files["int8"], X, classes=True)

    row = agreement.row(files["int8"].path, "TFLM")
    assert row.top1_agreement > 0.97  # the classes alone do not tell
    assert not agreement.passed
    assert "FAILED (differs from LiteRT by 3.0e-01)" in str(agreement)


def test_uint8_inputs_are_the_pixels_themselves(model, tmp_path):
    pixels = np.arange(64).reshape(1, 8, 8, 1) * 4
    scaled = np.concatenate([X, np.zeros_like(X[:1]), np.ones_like(X[:1])])
    artifact = to_tflite(
        model,
        tmp_path / "pixels.tflite",
        quantization="int8",
        calibration=scaled,
        uint8_input=True,
    )

    (tensor,) = LiteRTRuntime(artifact.path).inputs.values()
    assert (tensor.dtype, tensor.zero_point) == ("uint8", 0)
    assert tensor.scale == pytest.approx(1 / 255, rel=1e-4)
    np.testing.assert_array_equal(tensor.stored(pixels / 255), pixels)
    assert verify(model, artifact, X).passed


def test_a_file_says_what_it_is(model, files, tmp_path):
    artifact = to_tflite(
        model, tmp_path / "m.tflite", metadata={"labels": ["low", "high"]}
    )

    found = read_metadata(artifact.path)

    assert found["labels"] == ["low", "high"]
    assert found["quantization"] == "none"
    assert found["model"] == model.name
    assert "keras_kddp" in found["made_with"]
    assert verify(model, artifact, X).passed


@pytest.mark.parametrize("content", [b"", b"TFL3", b"x" * 400])
def test_a_file_without_metadata_is_refused(content, tmp_path):
    path = tmp_path / "x.tflite"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="must be a .tflite file of keras_kdd"):
        read_metadata(path)


def test_damaged_parts_of_a_file_are_an_error_of_the_readers(files):
    content = files["int8"].path.read_bytes()
    assert operations_of(content)
    for seed in range(200):
        changed = damaged(content, seed)
        for read in (operations_of, with_portable_operations):
            try:
                read(changed)
            except ValueError as error:
                assert "must be whole, TFL3" in str(error)  # noqa: PT017


def knotted(content, count):
    """Returns a file whose vector of tensors claims a number of them."""
    model = schema.Model.GetRootAsModel(content, 0)
    table = model.Subgraphs(0)._tab
    place = table.Vector(table.Offset(4)) - 4
    return content[:place] + struct.pack("<I", count) + content[place + 4 :]


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (2**31, "more parts than it has bytes for"),
        (1, "it names part . of 1"),
        (20_000, "Received a damaged one"),
    ],
)
def test_a_file_names_only_parts_that_it_has(count, message, files):
    content = knotted(files["int8"].path.read_bytes(), count)
    with pytest.raises(ValueError, match=message):
        operations_of(content)


def damaged(content, seed):
    """Returns a file with random, missing or changed bytes."""
    generator = np.random.default_rng(seed)
    kind = seed % 3
    if kind == 0:
        return generator.bytes(int(generator.integers(0, 4000)))
    if kind == 1:
        return content[: int(generator.integers(0, len(content)))]
    array = np.frombuffer(content, "uint8").copy()
    places = generator.integers(0, len(array), int(generator.integers(1, 60)))
    array[places] = generator.integers(0, 256, len(places))
    return array.tobytes()


def survive(model, content, path):
    """Verifies a file; whatever is in it, this process goes on."""
    path.write_bytes(content)
    try:
        verify(model, path, X[:2])
    except ValueError as error:
        assert str(path.name) in str(error)  # noqa: PT017


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.filterwarnings("ignore:`x` must be scaled")
def test_damaged_files_do_not_take_the_process_down(
    model, files, seed, tmp_path
):
    content = files["int8"].path.read_bytes()

    survive(model, damaged(content, seed), tmp_path / "damaged.tflite")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`x` must be scaled")
def test_300_damaged_files_do_not_take_the_process_down(model, files, tmp_path):
    for seed in range(100, 400):
        content = files[
            QUANTIZATIONS[seed % len(QUANTIZATIONS)]
        ].path.read_bytes()
        survive(model, damaged(content, seed), tmp_path / "damaged.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "float16", "int8", "int16x8"])
def test_tflite_runtime_agrees_too(model, files, quantization):
    assert TFLiteRuntime.absence() is None, "run `make runtimes` first"

    row = verify(model, files[quantization], X).row(
        files[quantization].path, "tflite-runtime"
    )

    assert row.passed


def test_the_same_classes_of_other_weights_fail(model, files, tmp_path):
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    logits = other.get_layer("logits")
    logits.set_weights([100 * part for part in logits.get_weights()])
    artifact = to_tflite(
        other, tmp_path / "x.tflite", quantization="int8", calibration=X
    )

    agreement = verify(model, artifact, X, classes=True)

    assert agreement.rows[0].top1_agreement > 0.97
    assert not agreement.passed
    assert "FAILED (error not <= 0.5)" in str(agreement)


@pytest.mark.parametrize("python", ["/bin/false", "/bin/sh", sys.executable])
def test_a_runtime_that_cannot_start_is_absent(python, monkeypatch):
    monkeypatch.setenv("KERAS_KDDP_TFLITE_RUNTIME", python)

    assert TFLiteRuntime.absence().startswith("it cannot be loaded")


@pytest.mark.parametrize("python", ["", "/tmp", "/nowhere/python"])
def test_a_python_that_is_none_is_absent(python, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_KDDP_TFLITE_RUNTIME", python)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    assert TFLiteRuntime.absence() == "make runtimes"


def test_a_crash_fails(model, files, monkeypatch):
    def crash(*_, **__):
        raise CrashError("ended with SIGSEGV")

    monkeypatch.setattr(TFLMRuntime, "execute", crash)

    agreement = verify(model, files["int8"], X)

    assert not agreement.passed
    assert "FAILED (ended with SIGSEGV)" in str(agreement)


@pytest.mark.parametrize("kind", [RefusalError, CrashError])
@pytest.mark.parametrize(
    "reason", ["out of memory", "XNNPACK failed to prepare the node. " * 9]
)
def test_what_litert_does_to_a_file_is_a_row(
    kind, reason, model, files, monkeypatch
):
    def fail(*_, **__):
        raise kind(reason.strip())

    monkeypatch.setattr(LiteRTRuntime, "execute", fail)

    agreement = verify(model, files["int8"], X)

    phone, chip = (
        agreement.row(files["int8"].path, name) for name in ("LiteRT", "TFLM")
    )
    assert not agreement.passed
    assert not phone.passed
    assert reason.strip() in (phone.refusal, phone.crash)
    assert chip.passed
    assert chip.relative_error < 0.1
    assert np.isnan(chip.error_to_litert)
    lines = str(agreement).splitlines()
    assert "FAILED" in lines[3]
    assert reason.strip() in " ".join(" ".join(lines).split())
    assert len(reason) < 40 or max(map(len, lines[4:7])) <= 80


def test_no_samples_are_refused(files):
    runtime = LiteRTRuntime(files["int8"].path)

    with pytest.raises(ValueError, match="at least one"):
        runtime.run({runtime.input_names[0]: X[:0]})


def test_lists_are_taken_as_samples(files):
    runtime = LiteRTRuntime(files["int8"].path)

    outputs = runtime.run({runtime.input_names[0]: X[:2].tolist()})

    assert outputs["logits"].shape == (2, 3)


def test_a_row_that_is_not_there_is_refused(model, files):
    agreement = verify(model, files["int8"], X)

    assert agreement.row(str(files["int8"].path)).name == "LiteRT"
    with pytest.raises(ValueError, match="Take one of"):
        agreement.row(files["int8"].path, "tflm")


def test_what_is_no_file_is_refused(model):
    with pytest.raises(ValueError, match="pass `.tflite`"):
        verify(model, 3, X)


@pytest.mark.parametrize("name", ["file", "args"])
def test_any_name_of_an_input_is_calibrated(name, tmp_path):
    inputs = keras.Input((4,), name=name)
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")

    artifact = to_tflite(
        model, tmp_path / "x.tflite", quantization="int8", calibration=x
    )

    assert verify(model, artifact, x).rows[0].relative_error < 0.1


def test_bytes_that_do_not_stand_for_themselves_are_told(model, tmp_path):
    with pytest.warns(UserWarning, match=r"spans .* to 0\.\d+, not 0 to 1"):
        to_tflite(
            model,
            tmp_path / "x.tflite",
            quantization="int8",
            calibration=X * 0.5,
            uint8_input=True,
        )


def test_a_forked_child_asks_a_process_of_its_own(files):
    runtime = LiteRTRuntime(files["int8"].path)
    given = {runtime.input_names[0]: X[:2]}
    runtime.run(given)
    worker = process.worker_of(sys.executable)
    with worker._lock:  # as if another thread were asking
        child = os.fork()
        if child == 0:
            try:
                runtime.run(given)
                os._exit(0)
            except BaseException:
                os._exit(1)
            finally:
                os._exit(2)
        deadline = time.monotonic() + 60
        status = (0, 0)
        while status[0] == 0 and time.monotonic() < deadline:
            status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.05)
    if status[0] == 0:
        os.kill(child, signal.SIGKILL)
    assert status == (child, 0)
    runtime.run(given)
