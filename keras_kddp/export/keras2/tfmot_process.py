"""TFMOT in a process of its own, and what it makes of a described student."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from keras_kddp.export.errors import TFMOTError
from keras_kddp.export.workers import worker
from keras_kddp.export.workers.arrays import read_arrays, write_arrays
from keras_kddp.export.workers.worker import Worker
from keras_kddp.export.workers.worker_process import WorkerError
from keras_kddp.extras import absence_of, require
from keras_kddp.model_io import Array
from keras_kddp.progress import EpochProgress, epoch_bars

TFMOT_SECONDS = 600.0
"""Seconds that TFMOT may take for a batch, unless told otherwise."""


class Trained(NamedTuple):
    """A student as it comes out of TFMOT.

    Attributes:
        weights: "layer:weight" -> array.
        saved_model: Folder of the model at batch 1, roundings included.
        zero_fractions: "layer:weight" -> share of zeros, of every kernel.
        distinct_values: "layer:weight" -> number of different values, of
            every kernel.
        history: Epoch, loss and accuracy on the training data, by epoch.
    """

    weights: Mapping[str, Array]
    saved_model: Path
    zero_fractions: dict[str, float]
    distinct_values: dict[str, int]
    history: list[dict[str, float]]


def require_tfmot() -> None:
    """Raises an ImportError where TFMOT or tf_keras is not installed."""
    require(
        "Students are fine-tuned in tf_keras by",
        "tensorflow_model_optimization",
        absence_of("tensorflow_model_optimization", "tf_keras"),
    )


def train_with_tfmot(
    folder: Path,
    description: Mapping[str, Any],
    weights: Mapping[str, Array],
    data: Mapping[str, Array],
    *,
    options: Mapping[str, Any],
    outputs: list[str],
    time_limit: float | None,
) -> Trained:
    """Returns a described student after all techniques, one after the other.

    Args:
        folder: For what goes there and back.
        description: Of the student.
        weights: "layer:weight" -> array.
        data: "x", "y", "sample_weight" and the "teacher"'s logits, row by
            row; the last two may be missing.
        options: Of `finetune_with_tfmot`, and "is_softmax".
        outputs: Names of the outputs in the SavedModel.
        time_limit: Seconds without the end of a batch; None: no limit.

    Raises:
        TFMOTError: If TFMOT fails, with what it said.
    """
    write_arrays(folder / "weights.npz", weights)
    write_arrays(folder / "data.npz", data)
    reply, history = _asked(
        {
            "description": description,
            "weights": str(folder / "weights.npz"),
            "data": str(folder / "data.npz"),
            "options": options,
            "found": str(folder / "found.npz"),
            "saved_model": str(folder / "saved_model"),
            "outputs": outputs,
        },
        time_limit,
    )
    return Trained(
        read_arrays(folder / "found.npz"),
        folder / "saved_model",
        reply["zero_fractions"],
        reply["distinct_values"],
        history,
    )


@cache
def _worker() -> Worker:
    return Worker(
        Path(worker.__file__).with_name("tfmot_program.py"),
        environment={"TF_USE_LEGACY_KERAS": "1"},
    )


def _asked(
    request: Mapping[str, Any], time_limit: float | None
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Returns the reply of TFMOT's process and what it said on the way."""
    options = request["options"]
    epochs = options["epochs"] * len(options["techniques"])
    history: list[dict[str, float]] = []
    with epoch_bars(Console(stderr=True)) as bars:
        bar = EpochProgress(bars, ", ".join(options["techniques"]), epochs)

        def note(state: dict[str, float]) -> None:
            history.append(state)
            bar.on_epoch_end(int(state["epoch"]) - 1)

        try:
            reply = _worker().ask(request, note, time_limit=time_limit)
        except WorkerError as death:
            raise TFMOTError(
                f"TFMOT must survive the student. Received: {death.fate}. "
                f"{death.log}"
            ) from None
        bar.on_train_end()
    if reply["error"] is not None:
        raise TFMOTError(
            "TFMOT must take the student. It said: "
            f"{' '.join(reply['error'].split())}"
        )
    return reply, history
