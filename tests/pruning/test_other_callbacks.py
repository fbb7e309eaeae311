"""Callbacks of Keras beside DynamicPruning, before it, behind it and together.

Unit 0 and 1 of `known_activity` stay, units 2 and 3 leave when epoch 3 begins.
"""

import csv
import math

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from known_activity import X, Y, fit, make_distiller, pruning

from keras_kddp.model_io import to_numpy

UNITS = [4, 4, 2, 2]
COLUMNS = {"units", "live_units", "parameters", "penalty_strength"}


def halved_each_epoch(epoch, rate):
    """A schedule of the learning rate."""
    return rate / 2


def tensorboard(path):
    return keras.callbacks.TensorBoard(
        path / "logs", histogram_freq=1, write_graph=True, update_freq=1
    )


MAKERS = {
    "TensorBoard": tensorboard,
    "CSVLogger": lambda path: keras.callbacks.CSVLogger(path / "log.csv"),
    "ReduceLROnPlateau": lambda path: keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=1, min_delta=100.0
    ),
    "LearningRateScheduler": lambda path: keras.callbacks.LearningRateScheduler(
        halved_each_epoch
    ),
    "SwapEMAWeights": lambda path: keras.callbacks.SwapEMAWeights(
        swap_on_epoch=True
    ),
    "TerminateOnNaN": lambda path: keras.callbacks.TerminateOnNaN(),
    "LambdaCallback": lambda path: keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(noted=epoch)
    ),
    "EarlyStopping": lambda path: keras.callbacks.EarlyStopping(
        "loss", patience=9
    ),
    "ModelCheckpoint": lambda path: keras.callbacks.ModelCheckpoint(
        path / "{epoch}.keras"
    ),
}
ORDERS = {
    "in turn": list(MAKERS),
    "in reverse": list(MAKERS)[::-1],
    "loggers last": sorted(MAKERS, key=lambda name: "Log" in name),
    "EMA first": sorted(MAKERS, key=lambda name: name != "SwapEMAWeights"),
}


def ema_optimizer():
    return keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.5)


class Values(keras.callbacks.Callback):
    """Notes what the other callbacks leave behind at the end of an epoch."""

    def __init__(self):
        super().__init__()
        self.weights, self.rates = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.student.get_weights())
        self.rates.append(float(self.model.optimizer.learning_rate))


def run(names, path, place=0, **arguments):
    """Trains with a removal before epoch 3; returns History, noted values."""
    values = Values()
    callbacks = [MAKERS[name](path) for name in names]
    callbacks.insert(place, pruning())
    history = fit(
        make_distiller(optimizer=ema_optimizer()),
        *callbacks,
        values,
        validation_data=(X, Y),
        **arguments,
    )
    return history, values


def check_files(path, history, values):
    """Compares files that callbacks wrote with what the run was."""
    saved = sorted(path.glob("*.keras"))
    for file in saved:
        epoch = int(file.stem) - 1
        loaded = keras.models.load_model(file)
        assert loaded.student.get_layer("fc").units == UNITS[epoch]
        for a, b in zip(
            loaded.student.get_weights(), values.weights[epoch], strict=True
        ):
            np.testing.assert_array_equal(a, b)
    if (path / "log.csv").exists():
        lines = (path / "log.csv").read_text().splitlines()
        rows = list(csv.DictReader(lines))
        assert (
            COLUMNS | {"loss", "val_loss", "val_student_loss"} <= rows[0].keys()
        )
        for name in rows[0].keys() - {"epoch"}:
            logged = [float(row[name]) for row in rows]
            assert logged == pytest.approx(history[name], rel=1e-6)
    return len(saved)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1], ids=["behind", "before"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_callback_works_on_both_sides_of_a_removal(tmp_path, name, place):
    history, values = run([name], tmp_path, place)

    assert history["units"] == UNITS
    assert COLUMNS <= history.keys()
    assert check_files(tmp_path, history, values) == (
        len(UNITS) * (name == "ModelCheckpoint")
    )


@pytest.mark.parametrize(
    ("order", "place"),
    [
        pytest.param(order, place, marks=[pytest.mark.slow] * (number > 1))
        for number, (order, place) in enumerate(
            zip(ORDERS, [0, 8, 4, 2], strict=True)
        )
    ],
)
def test_all_callbacks_work_together_in_any_order(tmp_path, order, place):
    # A checkpoint holds the weights as they are when its turn comes.
    names = [name for name in ORDERS[order] if name != "SwapEMAWeights"]

    history, values = run(names, tmp_path, place)

    assert history["units"] == UNITS
    assert history["noted"] == [0, 1, 2, 3]
    assert check_files(tmp_path, history, values) == len(UNITS)
    # Halved before each epoch, and after each but the first.
    rates = [0.01 / 2, 0.01 / 2**3, 0.01 / 2**5, 0.01 / 2**7]
    assert values.rates == pytest.approx(rates)


def test_a_learning_rate_that_is_set_counts_behind_a_removal():
    rates = [0.0, 0.0, 0.0, 2**-7]
    schedule = keras.callbacks.LearningRateScheduler(rates.__getitem__)
    values = Values()

    history = fit(make_distiller(rate=0.1), pruning(), schedule, values)

    assert history["learning_rate"] == values.rates == rates
    moves = [
        any((a != b).any() for a, b in zip(before[:2], after[:2], strict=True))
        for before, after in (values.weights[:2], values.weights[2:])
    ]
    assert moves == [False, True]  # kernel and bias of "fc"


class Averages(keras.callbacks.Callback):
    """Notes weights and averages by their owner at the end of an epoch."""

    def __init__(self):
        super().__init__()
        self.evaluated, self.trained, self.average = [], [], []

    def _kernel(self):
        return np.array(to_numpy(self.model.student.get_layer("fc").kernel))

    def _average(self):
        optimizer = self.model.optimizer
        kernel = self.model.student.get_layer("fc").kernel
        place = [v is kernel for v in optimizer._trainable_variables]
        return np.array(
            to_numpy(
                optimizer._model_variables_moving_average[place.index(True)]
            )
        )

    def on_train_batch_end(self, batch, logs=None):
        self.last = self._kernel(), self._average()

    def on_test_batch_end(self, batch, logs=None):
        self.evaluated.append(self._kernel())

    def on_epoch_end(self, epoch, logs=None):
        trained, average = self.last
        self.trained.append(trained)
        self.average.append(average)


@pytest.mark.parametrize(
    ("swap_on_epoch", "order"),
    [(True, 1), pytest.param(True, -1, marks=pytest.mark.slow), (False, 1)],
)
def test_the_averages_are_evaluated_saved_and_trained_on_behind_a_removal(
    tmp_path, swap_on_epoch, order
):
    swapping = keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)
    noted = Averages()
    files = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    distiller = make_distiller(optimizer=ema_optimizer())
    mine = [pruning(), swapping][::order]

    history = fit(distiller, *mine, noted, files, validation_data=(X, Y))

    assert history["units"] == UNITS
    for epoch, units in enumerate(UNITS):
        assert noted.average[epoch].shape == (2, units)
        np.testing.assert_allclose(
            noted.evaluated[epoch], noted.average[epoch], rtol=1e-5, atol=1e-7
        )
        saved = keras.models.load_model(tmp_path / f"{epoch + 1}.keras")
        expected = noted.average if swap_on_epoch else noted.trained
        np.testing.assert_allclose(
            to_numpy(saved.student.get_layer("fc").kernel),
            expected[epoch],
            rtol=1e-5,
            atol=1e-7,
        )
    # One batch an epoch: average = average / 2 + weights / 2, over the removal.
    cut = noted.average[1][:, [0, 1]]
    np.testing.assert_allclose(
        noted.average[2], (cut + noted.trained[2]) / 2, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        to_numpy(distiller.student.get_layer("fc").kernel),
        noted.average[3],
        rtol=1e-5,
        atol=1e-7,
    )


def test_tensorboard_has_scalars_and_histograms_of_every_epoch(tmp_path):
    import tensorflow as tf
    from tensorboard.backend.event_processing import event_accumulator

    history, _ = run(["TensorBoard"], tmp_path)

    events = event_accumulator.EventAccumulator(
        str(tmp_path / "logs" / "train")
    ).Reload()
    written = [
        float(tf.make_ndarray(event.tensor_proto))
        for event in events.Tensors("epoch_units")
    ]
    assert written == history["units"]
    kernels = [x for x in events.Tags()["tensors"] if "fc/kernel" in x]
    assert [len(events.Tensors(tag)) for tag in kernels] == [len(UNITS)]


@pytest.mark.filterwarnings("ignore:No unit fires any more:UserWarning")
def test_a_run_ends_at_a_loss_that_is_nan_whoever_sees_it_first():
    for order in (1, -1):
        distiller = make_distiller()
        distiller.compile(keras.optimizers.SGD(1e38), CROSSENTROPY)
        mine = [pruning(), keras.callbacks.TerminateOnNaN()][::order]

        with pytest.warns(UserWarning, match="became NaN or infinite"):
            history = fit(distiller, *mine)

        assert [*map(math.isfinite, history["loss"])] == [True, False]
        assert all(
            np.isfinite(w).all() for w in distiller.student.get_weights()
        )
