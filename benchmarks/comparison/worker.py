"""A process that trains runs of a comparison, on one core."""

import os
import time
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

from comparison.cells import Spec
from comparison.statistics import outcome


def work(pipe: Connection) -> None:
    """Trains what comes through a pipe, until that ends, and answers there."""
    while True:
        try:
            spec, budget = pipe.recv()
        except EOFError:  # nothing is left to do
            break
        pipe.send(run(spec, budget))


def one_core() -> None:
    """Keeps processes to one core: two of them are faster than one on two.

    Of this process it holds for what is not imported yet, of those that it
    starts for all.
    """
    for name in (
        "OMP_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ):
        os.environ[name] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def run(spec: Spec, budget: dict[str, int]) -> dict[str, Any]:
    """Trains one run and returns what its cell keeps.

    Args:
        spec: What it follows from.
        budget: Size of the pruned student.

    Returns:
        Beside that, `"predicted"`: the classes that it takes the test
        examples for, which are to be hidden.
    """
    import keras

    from comparison.data import load
    from comparison.peers import ALL_METHODS
    from comparison.students import STUDENTS
    from comparison.teachers import outputs_of_views
    from comparison.training import Recipe, Setting

    keras.utils.clear_session(free_memory=True)
    kind = spec.recipe["augmentation"]
    data, views = load(spec.data), _views(spec.data, kind)
    outputs = outputs_of_views(spec.data, kind) if spec.has_teacher else None
    setting = Setting(
        STUDENTS[spec.data, spec.student],
        data,
        views,
        outputs,
        Recipe(**spec.recipe),
        spec.epochs,
        spec.seed,
    )
    options = dict(spec.options)
    widths = options.pop("widths", {})
    started = time.process_time()
    found = ALL_METHODS[spec.method].train(setting, options, widths, budget)
    seconds = time.process_time() - started
    validation = data.validation
    return {
        "predicted": found.predict(data.test.x).astype("uint8"),
        "validation": outcome(found.predict(validation.x) == validation.y),
        **found.size,
        "mac_steps": found.mac_steps,
        "steps": setting.steps,
        "seconds": round(seconds, 1),
    }


@cache
def _views(data: str, kind: str) -> Any:
    """Returns the views of training examples, which it keeps."""
    from comparison.data import load
    from comparison.views import Views

    return Views(load(data).train.x, kind)
