"""A loss or a weight that becomes NaN or infinite while a student is pruned."""

import keras
import numpy as np
import pytest
from helpers import to_numpy, variable_values
from known_activity import X, fit, make_distiller, pruning


class Poison(keras.callbacks.Callback):
    """Makes the student's weights NaN in one epoch, and notes them before."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.before = variable_values(self.model.student)
            self.student = self.model.student
            bias = self.model.student.get_layer("out").bias
            bias.assign(np.full(2, np.nan))


@pytest.mark.parametrize(
    ("epoch", "use_ema"),
    [(0, False), (0, True), (2, False), (2, True), (3, False)],
)
def test_a_lost_loss_stops_the_run_with_the_last_good_student(epoch, use_ema):
    optimizer = keras.optimizers.Adam(0.001, use_ema=use_ema, ema_momentum=0.0)
    distiller = make_distiller(optimizer=optimizer)
    poison = Poison(epoch)

    with pytest.warns(UserWarning, match=f"in epoch {epoch + 1}: training st"):
        history = fit(distiller, pruning(), poison)

    assert len(history["loss"]) == epoch + 1
    assert history["units"] == [4, 4, 2, 2][: epoch + 1]
    assert distiller.student is poison.student
    if not use_ema:  # else Keras ends with the moving average
        for now, then in zip(
            variable_values(distiller.student), poison.before, strict=True
        ):
            np.testing.assert_array_equal(now, then)
    assert np.isfinite(to_numpy(distiller.student(X))).all()
    assert np.isfinite(fit(distiller)["loss"]).all()


def test_a_weight_that_is_lost_after_the_last_step_is_noticed():
    class PoisonAtTheEnd(keras.callbacks.Callback):
        runs_first = True

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                bias = self.model.student.get_layer("out").bias
                bias.assign(np.full(2, np.inf))

    distiller = make_distiller()

    with pytest.warns(UserWarning, match="in epoch 2: training stops"):
        history = fit(distiller, PoisonAtTheEnd(), pruning())

    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(to_numpy(distiller.student(X))).all()
