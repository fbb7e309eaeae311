"""What a `fit` that goes on must be given again."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import CROSSENTROPY
from known_activity import X, Y, make_distiller
from resumed_runs import EndAt, EndedError

from keras_kddp import ResumableCheckpoint, TeacherCache
from keras_kddp.distillation.checkpoints import resumable


@pytest.fixture(autouse=True)
def at_every_epoch(monkeypatch):
    """Writes a checkpoint after each epoch."""
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN", 0.0)


def ours():
    return make_distiller(rate=0.5)


def plain():
    """Returns a compiled model that is no Distiller."""
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, name="out")]
    )
    model.compile("sgd", CROSSENTROPY, run_eagerly=True)
    return model


def fit(folder, make, *others, **given):
    make().fit(
        **{"x": X, "y": Y, **given},
        epochs=4,
        verbose=0,
        callbacks=[ResumableCheckpoint(folder), *others],
    )


def ended(folder, make, **given):
    with pytest.raises(EndedError):
        fit(folder, make, EndAt(2), **given)


HELD_OUT = (X[:2], Y[:2])
OTHERS = {
    "validation_data.x": {"validation_data": (X[2:], Y[:2])},
    "validation_data.y": {"validation_data": (X[:2], Y[2:] * 0)},
    "validation_data.sample_weight": {
        "validation_data": (*HELD_OUT, np.array([1.0, 2.0]))
    },
    "validation_freq": {"validation_freq": 2},
    "class_weight.1": {"class_weight": {0: 1.0, 1: 3.0}},
}


@pytest.mark.parametrize("make", [ours, plain])
@pytest.mark.parametrize("name", OTHERS)
def test_another_fit_is_refused_by_name(tmp_path, make, name):
    given = {
        "validation_data": HELD_OUT,
        "class_weight": {0: 1.0, 1: 2.0},
        "validation_freq": 1,
    }
    ended(tmp_path / "run", make, **given)

    with pytest.raises(ValueError, match=rf"as it began.*given\.{name} was "):
        fit(tmp_path / "run", make, **{**given, **OTHERS[name]})
    fit(tmp_path / "run", make, **given)


@pytest.mark.parametrize(
    ("make", "shuffle"), [(ours, False), (plain, False), (plain, True)]
)
@pytest.mark.parametrize("place", ["x", "y", "sample_weight"])
def test_other_arrays_are_refused_in_any_order(tmp_path, make, shuffle, place):
    given = {"x": X, "y": Y, "sample_weight": X[:, 0], "shuffle": shuffle}
    ended(tmp_path / "run", make, **given)

    other = {**given, place: given[place][::-1].copy()}
    with pytest.raises(ValueError, match=rf"given\.{place} was "):
        fit(tmp_path / "run", make, **other)
    fit(tmp_path / "run", make, **given)


def test_the_rows_that_are_set_aside_count(tmp_path):
    given = {"validation_split": 0.5}
    ended(tmp_path / "run", ours, **given)

    other = np.concatenate([Y[:2], 1 - Y[2:]])
    with pytest.raises(ValueError, match=r"given\.validation_data\.y was "):
        fit(tmp_path / "run", ours, y=other, **given)


def test_tensors_are_what_their_numbers_are(tmp_path):
    held_out = tuple(map(tf.constant, HELD_OUT))
    ended(tmp_path / "run", plain, validation_data=held_out)

    fit(tmp_path / "run", plain, validation_data=HELD_OUT)


def test_the_outputs_of_a_teacher_do_not_count(tmp_path):
    made = ours()
    cache = TeacherCache(made.teacher, X[:2])
    held_out = (cache.pack(X[:2]), Y[:2])
    ended(tmp_path / "run", ours, validation_data=held_out)

    key = next(k for k in held_out[0] if k != "keras_kddp.inputs")
    held_out[0][key] = held_out[0][key] + np.float32(1e-6)
    fit(tmp_path / "run", ours, validation_data=held_out)


def test_what_cannot_be_read_twice_is_left_out(tmp_path):
    def batches(y):
        return tf.data.Dataset.from_tensor_slices((X, y)).batch(2)

    def given(y):
        pairs = ((X, y) for _ in range(9))
        return {
            "x": batches(y),
            "y": None,
            "shuffle": False,
            "validation_data": pairs,
            "validation_steps": 1,
        }

    ended(tmp_path / "run", ours, **given(Y))

    fit(tmp_path / "run", ours, **given(1 - Y))
