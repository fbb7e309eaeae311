"""Time and memory of dynamic pruning beside plain and stock training.

Six trainings of the CNN student of Fashion-MNIST, each in a process of its
own: supervised epochs, epochs under the penalty with cached teacher outputs,
a whole pruning run (cache, observation, removals and retraces included), the
same with checkpoints at their usual interval and after each epoch, and the
stock Distiller for as many epochs with its teacher in every step. CPU time is
compared, since the machine may be busy; the ratios are what counts. Of the
checkpoints the slowest counts, by the clock: one is written in 30 seconds.

    python benchmarks/training_speed.py
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras

import keras_kddp as kddp
from keras_kddp.compression.training import cosine_adamw
from keras_kddp.data.datasets import load_dataset
from keras_kddp.distillation.checkpoints import resumable
from keras_kddp.models import fashion_cnn_student, fashion_cnn_teacher

DATA = "idx:/usr/share/datasets/fashion-mnist"
BATCH = 256
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Clock(keras.callbacks.Callback):
    """Notes the CPU seconds of each epoch."""

    runs_first = False

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.process_time() - self._started)


class Checkpoints(kddp.ResumableCheckpoint):
    """Notes the seconds that each end of an epoch took to write."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.seconds: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        started = time.perf_counter()
        super().on_epoch_end(epoch, logs)
        self.seconds.append(time.perf_counter() - started)


def compile_for(model: keras.Model, epochs: int, examples: int) -> None:
    """Compiles with the optimizer that every variant has."""
    optimizer = cosine_adamw(
        3e-3, epochs=epochs, batch_size=BATCH, examples=examples
    )
    model.compile(optimizer, LOSS, metrics=["accuracy"])


def pruning(**arguments: Any) -> kddp.DynamicPruning:
    """Returns the callback of a run to 42 of 512 units."""
    budget = kddp.Budget(max_parameters=38_872)
    return kddp.DynamicPruning(finetune_epochs=6, budget=budget, **arguments)


def train(variant: str, examples: int, epochs: int) -> dict[str, float]:
    """Runs a variant and returns its CPU seconds, in all and by epoch."""
    data = load_dataset(DATA).train
    x, y = data.x[:examples], data.y[:examples]
    keras.utils.set_random_seed(0)
    teacher, student = fashion_cnn_teacher(), fashion_cnn_student()
    options = {"batch_size": BATCH, "verbose": 0}
    clock, checkpoints = Clock(), None
    started = time.process_time()
    if variant == "supervised":
        compile_for(student, epochs, examples)
        student.fit(x, y, epochs=4, callbacks=[clock], **options)
    elif variant == "stock":
        losses = keras.distillation.LogitsDistillation(temperature=4.0)
        distiller = keras.distillation.Distiller(
            teacher, student, losses, student_loss_weight=0.1
        )
        compile_for(distiller, epochs, examples)
        distiller.fit(x, y, epochs=epochs, callbacks=[clock], **options)
    else:
        cache = kddp.TeacherCache(teacher, x)
        prepared = kddp.prepare(student, layers=["hidden"])
        distiller = kddp.Distiller(None, prepared)
        compile_for(distiller, epochs, examples)
        callbacks = [pruning(), clock]
        if variant.startswith("checkpoints"):
            folder = tempfile.TemporaryDirectory()
            checkpoints = Checkpoints(folder.name)
            callbacks.append(checkpoints)
        if variant == "checkpoints_each":
            resumable.SECONDS_BETWEEN = 0.0
        if variant == "kddp_epoch":  # under the penalty, at full size
            epochs = 4
            full_size = {"warmup_epochs": 0, "ramp_epochs": 0}
            callbacks[0] = kddp.DynamicPruning(
                finetune_epochs=1, minimum_units=512, **full_size
            )
        distiller.fit(
            cache.pack(x), y, epochs=epochs, callbacks=callbacks, **options
        )
    total = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # The first epoch traces.
    later = clock.seconds[1:]
    written = max(checkpoints.seconds) if checkpoints else 0.0
    return {
        "total": total,
        "epoch": min(later),
        "peak": peak,
        "checkpoint": written,
    }


def main() -> None:
    """Prints a line a variant and the two ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--examples", type=int, default=55_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.variant:
        found = train(given.variant, given.examples, given.epochs)
        print(json.dumps(found))
        return
    results = {}
    print("variant           epoch CPU s  whole run CPU s  peak MB")
    runs = ("stock", "kddp_run", "checkpoints", "checkpoints_each")
    for variant in ("supervised", "kddp_epoch", *runs):
        command = [sys.executable, *sys.argv, "--variant", variant]
        output = subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout
        found = results[variant] = json.loads(output.splitlines()[-1])
        total = f"{found['total']:.1f}" if variant in runs else ""
        print(
            f"{variant:16} {found['epoch']:12.2f} {total:>16} "
            f"{found['peak']:8.0f}",
            flush=True,
        )
    epoch = results["kddp_epoch"]["epoch"] / results["supervised"]["epoch"]
    run = results["kddp_run"]["total"] / results["stock"]["total"]
    print(f"a KDDP epoch / a supervised epoch: {epoch:.2f} (must: <= 1.15)")
    print(f"a KDDP run / a stock run: {run:.2f} (must: <= 0.80)")
    kept = results["checkpoints"]["total"] / results["kddp_run"]["total"]
    print(f"a KDDP run with checkpoints / one without: {kept:.2f}")
    slowest = results["checkpoints_each"]["checkpoint"]
    share = 100 * slowest / 30.0  # at most one is written in 30 seconds
    print(
        f"the slowest checkpoint: {slowest:.3f} s, of a run of ten minutes: "
        f"{share:.1f} % (must: <= 3)"
    )


if __name__ == "__main__":
    main()
