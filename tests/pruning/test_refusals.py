"""What a run of pruning refuses before it changes anything."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import CROSSENTROPY, Subclassed
from helpers import variable_values
from known_activity import X, Y, fit, make_distiller, make_student, pruning

from keras_kddp import Distiller, DynamicPruning, finalize
from keras_kddp.layers.penalized_models import set_penalty_strength


class Backup(keras.callbacks.BackupAndRestore):
    """A callback of a user."""


@contextlib.contextmanager
def refused(distiller, message):
    """Checks that a fit raises and leaves both models as they were."""
    set_penalty_strength(distiller.student, 0.5)
    student, teacher = distiller.student, distiller.teacher
    before = variable_values(student) + variable_values(teacher)

    with pytest.raises(ValueError, match=message):
        yield

    assert distiller.student is student and distiller.teacher is teacher
    after = variable_values(student) + variable_values(teacher)
    for now, then in zip(after, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_outputs_that_differ_in_shape_are_refused():
    teacher = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    student = make_student()
    before = variable_values(student) + variable_values(teacher)

    with pytest.raises(ValueError, match="outputs of teacher and student must"):
        Distiller(teacher, student)

    after = variable_values(student) + variable_values(teacher)
    for now, then in zip(after, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_student_that_is_not_prepared_is_refused():
    distiller = make_distiller(finalize(make_student()), rate=0.5)

    with refused(distiller, r"Call `student = keras_kddp.prepare\(student\)`"):
        fit(distiller, pruning())


def test_a_student_without_removable_units_is_refused():
    student = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    distiller = make_distiller(student, rate=0.5)

    with refused(distiller, "must have a penalized layer whose units can be"):
        fit(distiller, pruning())


def test_a_student_whose_only_layer_is_pinned_is_refused():
    teacher = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(4, name="hidden"),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.distillation.FeatureDistillation("mse", "hidden", "fc")
    distiller = Distiller(teacher, make_student(), loss)
    distiller.compile("sgd", CROSSENTROPY)

    with refused(distiller, "must have a penalized layer whose units can be"):
        fit(distiller, pruning())


def test_a_subclassed_student_is_refused():
    student = Subclassed()
    student(X)
    distiller = make_distiller(student, rate=0.5)

    with refused(distiller, "the subclassed model Subclassed: write it as a"):
        fit(distiller, pruning())


def test_the_fit_of_a_plain_model_is_refused():
    model = finalize(make_student())
    model.compile("sgd", CROSSENTROPY)
    before = variable_values(model)

    with pytest.raises(ValueError, match="Received: the fit of a Sequential"):
        model.fit(X, Y, callbacks=[pruning()], verbose=0)

    for now, then in zip(variable_values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_schedule_longer_than_the_run_is_refused(epochs):
    distiller = make_distiller(rate=0.5)

    with refused(distiller, "The schedule must not be longer than the run"):
        fit(distiller, pruning(), epochs=epochs)


def test_a_run_of_one_epoch_is_refused():
    distiller = make_distiller(rate=0.5)

    with refused(distiller, "at least one epoch with a penalty, and one after"):
        fit(distiller, DynamicPruning(), epochs=1)


UNREADABLE = {
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(4),
    "generator": lambda: ((X, Y) for _ in range(4)),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_dataset_without_data_to_observe_is_refused(kind):
    distiller = make_distiller(rate=0.5)

    with refused(distiller, "`data` must be given when `fit` gets a tf.data"):
        fit(distiller, pruning(), x=UNREADABLE[kind](), y=None, shuffle=False)


def test_a_pydataset_without_data_to_observe_is_refused():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return X, Y

    distiller = make_distiller(rate=0.5)

    with refused(distiller, "a PyDataset or a generator: it cannot be read"):
        fit(distiller, pruning(), x=Batches(), y=None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X[:, :1], "`data` must hold inputs of the student"),
        ((X, Y), "`data` must hold inputs of the student.*no labels"),
        (X[:0], "at least one example"),
        ((batch for batch in [X]), "can be run through again. Received: gen"),
    ],
    ids=["too narrow", "with labels", "empty", "generator"],
)
def test_data_that_cannot_be_observed_are_refused(data, message):
    distiller = make_distiller(rate=0.5)

    with refused(distiller, message):
        fit(distiller, pruning(data=data))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: keras.callbacks.EarlyStopping(
                "loss", restore_best_weights=True
            ),
            r"`EarlyStopping` keeps weights.*BestStudent\('loss'\)",
        ),
        (
            lambda path: keras.callbacks.BackupAndRestore(path),
            "`BackupAndRestore` keeps weights.*ResumableCheckpoint",
        ),
        (
            lambda path: keras.callbacks.ModelCheckpoint(
                path / "a.weights.h5", save_weights_only=True
            ),
            "`ModelCheckpoint` keeps weights.*Set save_weights_only=False",
        ),
        (
            lambda path: Backup(path),
            "`Backup` keeps weights.*ResumableCheckpoint",
        ),
        (lambda path: pruning(), "Received several"),
    ],
    ids=["early", "backup", "checkpoint", "subclass", "pruning"],
)
@pytest.mark.parametrize("order", [1, -1])
def test_callbacks_that_a_removal_would_break_are_refused(
    tmp_path, make, message, order
):
    distiller = make_distiller(rate=0.5)
    callbacks = [make(tmp_path), pruning()][::order]

    with refused(distiller, message):
        fit(distiller, *callbacks)


def test_data_that_are_not_numbers_remove_nothing():
    distiller = make_distiller()

    with pytest.raises(ValueError, match="Look for NaN in the data that are"):
        fit(distiller, pruning(data=np.full((3, 2), np.nan)))

    assert distiller.student.get_layer("fc").units == 4


def test_callbacks_are_checked_inside_nested_lists():
    distiller = make_distiller()
    stopping = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    with pytest.raises(ValueError, match="`EarlyStopping` keeps weights"):
        fit(distiller, [pruning(), [stopping]])


@pytest.mark.parametrize("criterion", ["contribution", "never_active"])
def test_nan_in_the_observed_data_is_said_before_training(criterion):
    distiller = make_distiller()
    before = variable_values(distiller.student)
    data = np.ones((8, distiller.student.inputs[0].shape[1]), "float32")
    data[3, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        fit(distiller, pruning(criterion=criterion, data=data))
    after = variable_values(distiller.student)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("is_eager", [True, False], ids=["eager", "compiled"])
def test_layers_unfrozen_between_runs_are_refused_before_training(is_eager):
    distiller = make_distiller(rate=0.1)
    distiller.run_eagerly = is_eager
    distiller.student.get_layer("out").trainable = False
    fit(distiller, epochs=1)
    distiller.student.get_layer("out").trainable = True
    before = distiller.student.get_weights()

    with pytest.raises(ValueError, match=r"changed since, in layers .'out'"):
        fit(distiller, pruning())

    assert all(map(np.array_equal, distiller.student.get_weights(), before))
    distiller.student.get_layer("out").trainable = False
    fit(distiller, pruning())
