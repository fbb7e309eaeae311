"""Runtimes and converters that never end."""

import os
import signal
import sys

import keras
import numpy as np
import pytest

from keras_kddp.export import (
    CrashError,
    ExportError,
    LiteRTRuntime,
    TFLMRuntime,
    TFMOTError,
    bench,
    finetune_with_tfmot,
    from_tf_keras,
    to_microcontroller,
    to_tf_keras,
    to_tflite,
    verify,
)
from keras_kddp.export.keras2 import tf_keras_process, tfmot_process
from keras_kddp.export.runtimes import process, vela
from keras_kddp.export.tflite import converter, quantizer
from keras_kddp.export.tflite import to_tflite as module
from keras_kddp.export.tflite.converter import Converter, conversion_limit
from keras_kddp.export.workers.worker import Worker
from keras_kddp.export.workers.worker_process import (
    TimeLimitError,
    WorkerError,
)

X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
LATE = "it did not end in 1 s"


class Counting(keras.layers.Layer):
    """Adds its input two milliards of times."""

    def call(self, x):
        return keras.ops.while_loop(
            lambda step, _: step < 2_000_000_000,
            lambda step, total: (step + 1, total + x),
            (0, x),
        )[1]


def dense():
    return keras.Sequential(
        [keras.Input((4,), name="x"), keras.layers.Dense(3)]
    )


@pytest.fixture(scope="module")
def endless_file(tmp_path_factory):
    model = keras.Sequential([keras.Input((4,), name="x"), Counting()])
    return to_tflite(model, tmp_path_factory.mktemp("file") / "a.tflite").path


@pytest.fixture
def endless_chip(endless_file, monkeypatch):
    """Makes every file on TFLM one whose Invoke takes minutes."""
    execute = TFLMRuntime.execute

    def execute_other(_, inputs, **options):
        return execute(TFLMRuntime(endless_file), inputs, **options)

    monkeypatch.setattr(TFLMRuntime, "execute", execute_other)


@pytest.mark.usefixtures("endless_chip")
def test_a_runtime_that_never_ends_fails(tmp_path):
    model = dense()
    artifact = to_tflite(model, tmp_path / "a.tflite")

    agreement = verify(model, artifact, X, time_limit=1)

    row = agreement.row(artifact.path, "TFLM")
    assert agreement.row(artifact.path).passed
    assert row.crash.startswith(LATE)
    assert not agreement.passed
    assert f"FAILED ({LATE}" in str(agreement)


def test_a_runtime_that_never_ends_is_replaced(endless_file):
    chip = TFLMRuntime(endless_file)
    with pytest.raises(
        CrashError, match=r"^it did not end in 0\.3 s; a larger"
    ):
        chip.execute({chip.input_names[0]: X}, time_limit=0.3)

    assert TFLMRuntime(endless_file).input_names == chip.input_names


def test_a_process_that_was_stopped_is_replaced(endless_file, monkeypatch):
    monkeypatch.setattr(process, "_GLANCE", 0.5)
    known = process.describe_file(endless_file)
    os.kill(process.worker_of(sys.executable).pid, signal.SIGSTOP)

    assert process.describe_file(endless_file) == known


def test_a_stopped_process_fails_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_GLANCE", 0.5)
    artifact = to_tflite(dense(), tmp_path / "a.tflite")
    phone = LiteRTRuntime(artifact.path)
    given = {artifact.input_names[0]: X}
    known = phone.run(given)
    os.kill(process.worker_of(sys.executable).pid, signal.SIGSTOP)

    found = phone.execute(given, time_limit=3).outputs

    for name, output in known.items():
        np.testing.assert_array_equal(found[name], output)
    os.kill(process.worker_of(sys.executable).pid, signal.SIGSTOP)
    process.failure_of.cache_clear()
    assert process.failure_of(sys.executable, "tflm") is None


def test_a_python_that_is_not_there_leaves_nothing_open():
    assert "No such file" in process.failure_of("/nowhere/python", "litert")


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (
            TimeLimitError("it", 60, ""),
            "TFLM was not loaded: it did not end in 60 s; try again",
        ),
        (
            WorkerError("SIGKILL", ""),
            "TFLM was not loaded: its process ended with SIGKILL",
        ),
    ],
)
def test_a_runtime_that_is_never_loaded_is_said(
    problem, words, endless_file, monkeypatch
):
    chip = TFLMRuntime(endless_file)

    def ask(*_, **__):
        raise problem

    monkeypatch.setattr(Worker, "ask", ask)

    with pytest.raises(CrashError, match=f"^{words}"):
        chip.execute({chip.input_names[0]: X})


def test_a_file_that_is_never_read_is_said(endless_file, monkeypatch):
    monkeypatch.setattr(process, "RUN_SECONDS", 1)
    asked = []

    def ask(_, request, *, time_limit):
        asked.append(time_limit)
        raise TimeLimitError("it", time_limit, "")

    monkeypatch.setattr(Worker, "ask", ask)

    with pytest.raises(ValueError, match=f"in 1 s.*{LATE}. Try again"):
        process.describe_file(endless_file)

    assert asked == [10, 1]


@pytest.mark.usefixtures("endless_chip")
def test_a_bundle_of_what_never_ends_is_not_written(tmp_path):
    with pytest.raises(ExportError, match=f"{LATE}.*A phone may take it"):
        to_microcontroller(dense(), tmp_path / "micro", X, time_limit=1)

    assert not (tmp_path / "micro").exists()


@pytest.mark.usefixtures("endless_chip")
def test_a_table_of_measurements_says_what_never_ended(monkeypatch):
    monkeypatch.setattr(
        "keras_kddp.export.agreement.bench.absence_of_vela", lambda: "left out"
    )

    found = bench({"small": dense()}, X, samples=2, time_limit=1)

    row = found.row("small", "none")
    assert row.micro is None
    assert row.one_thread > 0
    assert f"small, float32: TFLM: {LATE}" in str(found)
    assert f"small, int8: TFLM: {LATE}" in str(found)


@pytest.fixture
def endless(tmp_path):
    """Yields a worker that never answers."""
    handler = tmp_path / "handler.py"
    handler.write_text("def answer(**_):\n    while True: pass\n")
    worker = Worker(handler)
    yield worker
    worker.close()


def test_a_converter_that_never_ends_is_said(tmp_path, monkeypatch):
    shared = Converter()
    shared._handler = tmp_path / "handler.py"
    shared._handler.write_text("def answer(**_):\n    while True: pass\n")
    monkeypatch.setattr(module, "shared_converter", shared)

    with pytest.raises(ExportError, match=r"it did not end in 0\.3 s. Pass a"):
        to_tflite(dense(), tmp_path / "a.tflite", time_limit=0.3)

    assert not (tmp_path / "a.tflite").exists()
    assert shared.pid is None


def test_a_quantizer_that_never_ends_is_said(endless, tmp_path, monkeypatch):
    monkeypatch.setattr(quantizer, "_worker", lambda: endless)
    monkeypatch.setattr(Converter, "convert", lambda *_, **__: None)

    with pytest.raises(ExportError, match=r"did not end in 0\.3 s"):
        to_tflite(
            dense(),
            tmp_path / "a.tflite",
            quantization="int4",
            time_limit=0.3,
        )


def test_a_tf_keras_that_never_ends_is_said(endless, tmp_path, monkeypatch):
    monkeypatch.setattr(tf_keras_process, "_worker", lambda: endless)
    (tmp_path / "old.h5").write_bytes(b"")

    with pytest.raises(ExportError, match=r"did not end in 0\.3 s"):
        to_tf_keras(dense(), tmp_path / "a.h5", time_limit=0.3)
    with pytest.raises(ExportError, match=r"did not end in 0\.3 s"):
        from_tf_keras(tmp_path / "old.h5", time_limit=0.3)


def test_a_tfmot_that_never_ends_is_said(endless, tmp_path, monkeypatch):
    monkeypatch.setattr(tfmot_process, "_worker", lambda: endless)
    data = np.ones((8, 4), "float32"), np.arange(8) % 3

    with pytest.raises(TFMOTError, match=r"did not end in 0\.3 s"):
        finetune_with_tfmot(
            dense(), data, tmp_path / "a.tflite", time_limit=0.3
        )

    assert not (tmp_path / "a.tflite").exists()


def test_a_vela_that_never_ends_is_said(endless_file):
    with pytest.raises(CrashError, match=r"in 0\.05 s; a larger `time_l"):
        vela.estimate_on_ethos_u(endless_file, time_limit=0.05)


@pytest.mark.parametrize(
    ("limit", "found"), [(None, None), (1, 600), (600.5, 600.5)]
)
def test_a_conversion_has_at_least_its_usual_time(limit, found):
    assert converter.CONVERSION_SECONDS == 600
    assert conversion_limit(limit) == found


@pytest.mark.parametrize(
    "limit", [0, -1, float("nan"), float("inf"), "60", True]
)
def test_a_limit_that_is_no_number_of_seconds_is_refused(
    limit, endless_file, tmp_path
):
    model, path = dense(), tmp_path / "a.tflite"
    x = np.ones((8, 4), "float32")
    chip = TFLMRuntime(endless_file)
    for attempt in (
        lambda: verify(model, endless_file, x, time_limit=limit),
        lambda: bench({"model": model}, x, time_limit=limit),
        lambda: to_tflite(model, path, time_limit=limit),
        lambda: to_microcontroller(model, tmp_path, x, time_limit=limit),
        lambda: to_tf_keras(model, tmp_path / "a.h5", time_limit=limit),
        lambda: from_tf_keras(tmp_path / "a.h5", time_limit=limit),
        lambda: finetune_with_tfmot(model, (x, x), path, time_limit=limit),
        lambda: chip.execute({chip.input_names[0]: X}, time_limit=limit),
        lambda: vela.estimate_on_ethos_u(endless_file, time_limit=limit),
    ):
        with pytest.raises(ValueError, match="`time_limit` must be a finite"):
            attempt()
    assert not any(tmp_path.iterdir())
