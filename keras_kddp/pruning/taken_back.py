"""Removals that are taken back while a student trains."""

import keras

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


def put_averages_in_place(distiller: Distiller) -> None:
    """Ends a run of `use_ema=True` with averages, as `fit` ends every run.

    `fit` does that before callbacks hear of the end: a student that is taken
    back then has the weights of a step. One that a SwapEMAWeights of
    `swap_on_epoch=True` stood beside has averages already.

    Args:
        distiller: Behind the last epoch of its `fit`, with a student that
            was kept between two epochs.
    """
    callbacks = distiller.fit_callbacks
    if not any(
        isinstance(x, keras.callbacks.SwapEMAWeights) and x.swap_on_epoch
        for x in getattr(callbacks, "callbacks", callbacks)
    ):
        distiller.optimizer.finalize_variable_values(
            distiller.trainable_variables
        )
