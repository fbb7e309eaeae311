"""Removals that are taken back while a student trains."""

from keras_kddp.distillation.distiller import Distiller
from keras_kddp.distillation.student_state import Snapshot
from keras_kddp.model_io import to_numpy
from keras_kddp.surgery.optimizer_successors import clock_variables


def take_back(distiller: Distiller, snapshot: Snapshot) -> None:
    """Puts an earlier student in place.

    The clock of its optimizer, and with it the learning rate, goes on.

    Args:
        distiller: Between two epochs of its `fit`, or behind the last.
        snapshot: Of the student with all its units.
    """
    clock = [*map(to_numpy, clock_variables(distiller.optimizer))]
    distiller.restore(snapshot)
    for variable, value in zip(
        clock_variables(distiller.optimizer), clock, strict=True
    ):
        variable.assign(value)
