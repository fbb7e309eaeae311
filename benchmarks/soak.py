"""What a long run keeps in memory: a removal before every other epoch.

    python benchmarks/soak.py

A tiny student loses one unit before every other epoch of a run of `fit`.
Prints the resident memory after the first epochs and at the end, what is still
alive of the students, optimizers and steps that removals replaced, and what an
epoch that traces anew takes. Beside it what Keras and TensorFlow leave behind
by themselves: as many traces of a model that stays, and as many small models
made, compiled and trained. Then each function of the package, called again and
again. Every line is measured in a process of its own.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_kddp as kddp
from keras_kddp.export import to_tflite, verify

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).random((256, 8), dtype="float32")
Y = np.arange(256) % 3
CALLS = {
    "collect_activity": lambda student: kddp.collect_activity(student, X),
    "plan_removal": lambda student: kddp.plan_removal(student, {"hidden": [0]}),
    "remove_units": lambda student: kddp.remove_units(student, {"hidden": [0]}),
    "prepare": lambda student: kddp.prepare(kddp.finalize(student)),
    "finalize": kddp.finalize,
    "to_tflite": lambda student: exported(student, is_run=False),
    "verify": lambda student: exported(student, is_run=True),
}


def exported(student: keras.Model, *, is_run: bool) -> None:
    """Writes a file of a student, and compares it with Keras."""
    plain = kddp.finalize(student)
    with tempfile.TemporaryDirectory() as folder:
        artifact = to_tflite(plain, f"{folder}/student.tflite")
        if is_run:
            verify(plain, artifact, X[:8])


def resident() -> float:
    """Returns the memory that the process holds, in MB.

    Garbage is collected first, and what `malloc` kept is given back: what is
    left grows only by what somebody still refers to.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def student(units: int) -> keras.Model:
    """Returns a classifier of eight numbers."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(units, "relu", name="hidden"),
            keras.layers.Dense(3),
        ]
    )


class Watch(keras.callbacks.Callback):
    """Notes memory, time and what is replaced.

    Args:
        warm_up: Epochs before memory is compared.
        change: Called with the model when an epoch ends.
    """

    runs_first = False

    def __init__(self, warm_up: int, change: Callable[[Any], None]) -> None:
        super().__init__()
        self.warm_up = warm_up
        self.change = change
        self.seconds: list[float] = []
        self.replaced: list[weakref.ref] = []
        self.memory: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        trained = getattr(self.model, "student", self.model)
        if not self.replaced or self.replaced[-1]() is not trained:
            self.replaced.append(weakref.ref(trained))
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self.started)
        if epoch + 1 == self.warm_up:
            self.memory.append(resident())
        if epoch % 2 == 0:
            self.change(self.model)

    def on_train_end(self, logs: Any = None) -> None:
        self.memory.append(resident())


def alive() -> dict[str, int]:
    """Returns how many objects there are of each kind."""
    gc.collect()
    kinds = {
        "models": keras.Model,
        "optimizers": keras.optimizers.Optimizer,
        "graphs": tf.Graph,
    }
    objects = gc.get_objects()
    return {
        name: sum(issubclass(type(x), kind) for x in objects)
        for name, kind in kinds.items()
    }


def swaps(epochs: int, warm_up: int) -> dict[str, Any]:
    """Trains with a removal before every other epoch."""

    def one_unit(activity: Any, outgoing_norm: Any) -> np.ndarray:
        return np.where(np.arange(len(outgoing_norm)) == 0, 0.5, 1.0)

    phases = {"warmup_epochs": 0, "ramp_epochs": 0, "finetune_epochs": 0}
    pruning = kddp.DynamicPruning(one_unit, 0.0, minimum_change=0.0, **phases)
    # Half the epochs find a unit inactive.
    toggle = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(
            pruning, "threshold", 0.5 * (epoch % 2)
        )
    )
    watch = Watch(warm_up, lambda model: None)
    distiller = kddp.Distiller(
        student(16), kddp.prepare(student(epochs // 2 + 20))
    )
    distiller.compile("adam", LOSS, metrics=["accuracy"])
    callbacks = [pruning, toggle, watch]
    distiller.fit(
        X, Y, batch_size=64, epochs=epochs, verbose=0, callbacks=callbacks
    )
    return {
        "events": len(pruning.removals),
        "old students alive": sum(x() is not None for x in watch.replaced[:-1]),
        **told(watch),
    }


def traces(epochs: int, warm_up: int) -> dict[str, Any]:
    """Trains a plain model whose step is traced anew every other epoch."""
    watch = Watch(warm_up, lambda model: model.make_train_function(force=True))
    model = student(epochs // 2 + 20)
    model.compile("adam", LOSS, metrics=["accuracy"])
    model.fit(X, Y, batch_size=64, epochs=epochs, verbose=0, callbacks=[watch])
    return {"events": epochs // 2, **told(watch)}


def told(watch: Watch) -> dict[str, Any]:
    """Returns what was noted of a run."""
    after, last = watch.memory
    traced, others = watch.seconds[2::2], watch.seconds[1::2]
    return {
        "MB": [after, last],
        "seconds": [float(np.median(traced)), float(np.median(others))],
        **alive(),
    }


def models(epochs: int, warm_up: int) -> dict[str, Any]:
    """Makes, compiles and trains a new small model each time."""
    for count in range(epochs // 2):
        if 2 * count == warm_up:
            after = resident()
        model = student(epochs // 2 + 20 - count)
        model.compile("adam", LOSS, metrics=["accuracy"])
        model.fit(X, Y, batch_size=64, verbose=0)
    del model
    return {"events": epochs // 2, "MB": [after, resident()], **alive()}


def calls(name: str, times: int) -> dict[str, Any]:
    """Calls a function of the package again and again."""
    prepared = kddp.prepare(student(50))
    for _ in range(3):
        CALLS[name](prepared)
    after = resident()
    started = time.perf_counter()
    for _ in range(times):
        CALLS[name](prepared)
    seconds = (time.perf_counter() - started) / times
    return {
        "events": times,
        "MB": [after, resident()],
        "seconds": [seconds, seconds],
        **alive(),
    }


RUNS = {"swaps": swaps, "traces": traces, "models": models}


def measured(name: str, epochs: int, warm_up: int) -> dict[str, Any]:
    """Returns what a process of its own measured."""
    numbers = ["--epochs", str(epochs), "--warm-up", str(warm_up)]
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            [sys.executable, __file__, *numbers, "--measure", name],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
        errors.seek(0)
        if done.returncode:
            raise RuntimeError(f"{name} failed: {errors.read()}")
    return json.loads(done.stdout.splitlines()[-1])


def growth(found: dict[str, Any]) -> float:
    """Returns by how much memory grew, in percent."""
    after, last = found["MB"]
    return 100 * (last / after - 1)


def line(name: str, found: dict[str, Any]) -> str:
    """Returns a line of the table."""
    (after, last), times = found["MB"], found["events"]
    kinds = " ".join(f"{found[x]:10}" for x in ("models", "optimizers"))
    return (
        f"{name:18} {times:5} {after:8.0f} {last:8.0f} {growth(found):+7.1f} % "
        f"{1e3 * (last - after) / times:8.0f} {kinds} {found['graphs']:7}"
    )


def main() -> None:
    """Prints a line for each run and each function."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        run = RUNS.get(given.measure)
        found = (
            run(given.epochs, given.warm_up)
            if run
            else calls(given.measure, given.epochs)
        )
        sys.stdout.write(f"\n{json.dumps(found)}\n")
        return
    print(
        "run                times  MB then   MB now    growth  kB each"
        "     models optimizers  graphs",
        flush=True,
    )
    found = {}
    for name in RUNS:
        found[name] = measured(name, given.epochs, given.warm_up)
        print(line(name, found[name]), flush=True)
    for name in CALLS:
        print(line(name, measured(name, given.calls, 0)), flush=True)
    run = found["swaps"]
    traced, other = run["seconds"]
    print(f"an epoch that traces: {traced:.2f} s, another: {other:.2f} s")
    print(f"old students alive: {run['old students alive']} (must: 0)")
    print(f"memory over the swaps: {growth(run):+.1f} % (must: <= +10)")


if __name__ == "__main__":
    main()
