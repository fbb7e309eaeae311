"""What the Distiller trains, predicts, leaves alone and saves."""

import keras
import numpy as np
import pytest
from classifiers import Subclassed
from helpers import to_numpy, variable_values
from two_examples import (
    X,
    Y,
    compiled,
    make_student,
    make_teacher,
    ours,
    with_normalization,
)

from keras_kddp import Distiller, SoftTargets, prepare

LogitsDistillation = keras.distillation.LogitsDistillation


def test_predictions_and_metrics_are_the_students():
    student = with_normalization("student")
    distiller = compiled(
        Distiller(make_teacher(), student), metrics=["accuracy"]
    )

    predictions = distiller.predict(X, verbose=0)
    metrics = distiller.evaluate(X, Y, verbose=0, return_dict=True)

    expected = to_numpy(student(X, training=False))
    np.testing.assert_array_equal(predictions, expected)
    accuracy = (expected.argmax(axis=-1) == Y).mean()
    assert metrics["accuracy"] == pytest.approx(accuracy)


def test_evaluating_changes_neither_student_nor_teacher():
    teacher = with_normalization("teacher")
    student = with_normalization("student")
    distiller = ours(teacher, student)
    distiller.evaluate(X, Y, verbose=0)
    before = variable_values(teacher) + variable_values(student)

    distiller.evaluate(X, Y, verbose=0)
    distiller.predict(X, verbose=0)

    after = variable_values(teacher) + variable_values(student)
    for now, then in zip(after, before, strict=True):
        np.testing.assert_array_equal(now, then)


def trainable_flags(model):
    return [layer.trainable for layer in (model, *model.layers)]


@pytest.mark.parametrize("is_frozen", [False, True])
def test_training_leaves_the_teacher_as_it_was(is_frozen):
    teacher = with_normalization("teacher")
    teacher.get_layer("teacher_dense").trainable = False
    if is_frozen:
        teacher.trainable = False
    flags, values = trainable_flags(teacher), variable_values(teacher)
    student = with_normalization("student")
    before = variable_values(student)

    ours(teacher, student).fit(X, Y, epochs=2, verbose=0)

    assert trainable_flags(teacher) == flags
    for now, then in zip(variable_values(teacher), values, strict=True):
        np.testing.assert_array_equal(now, then)
    moved = zip(variable_values(student), before, strict=True)
    assert any((now != then).any() for now, then in moved)


def test_a_fit_that_fails_leaves_the_teacher_as_it_was():
    class Failure(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("stop here")

    teacher = with_normalization("teacher")
    flags, values = trainable_flags(teacher), variable_values(teacher)
    distiller = ours(teacher, make_student())

    with pytest.raises(RuntimeError, match="stop here"):
        distiller.fit(X, Y, verbose=0, callbacks=[Failure()])

    assert trainable_flags(teacher) == flags
    for now, then in zip(variable_values(teacher), values, strict=True):
        np.testing.assert_array_equal(now, then)
    assert distiller.fit_inputs is distiller.fit_callbacks is None


def test_only_the_student_is_trained():
    student = with_normalization("student")
    distiller = Distiller(with_normalization("teacher"), student)

    trained = {id(x) for x in distiller.trainable_variables}
    assert trained == {id(x) for x in student.trainable_variables}
    others = {id(x) for x in distiller.non_trainable_variables}
    everything = {id(x) for x in distiller.variables}
    assert not trained & others and trained | others == everything


def test_a_frozen_layer_of_the_student_is_not_trained():
    student = with_normalization("student")
    frozen = student.get_layer("student_dense")
    frozen.trainable = False
    before = to_numpy(frozen.kernel)

    ours(make_teacher(), student).fit(X, Y, epochs=2, verbose=0)

    np.testing.assert_array_equal(frozen.kernel, before)


def test_a_second_fit_goes_on_where_the_first_stopped():
    def kernel(*epochs):
        adam = keras.optimizers.Adam(0.1)
        distiller = compiled(Distiller(make_teacher(), make_student()), adam)
        for count in epochs:
            distiller.fit(X, Y, epochs=count, shuffle=False, verbose=0)
        return to_numpy(distiller.student.layers[0].kernel)

    np.testing.assert_array_equal(kernel(2, 3), kernel(5))


def test_a_subclassed_student_can_be_distilled():
    distiller = ours(make_teacher(), Subclassed())

    losses = distiller.fit(X, Y, epochs=5, verbose=0).history["loss"]

    assert losses[-1] < losses[0]


def test_a_loaded_distiller_goes_on_as_the_saved_one(tmp_path):
    student = prepare(make_student(keras.layers.Dense(2)), l1=0.5)
    losses = [SoftTargets(2.0), LogitsDistillation(3.0)]
    distiller = Distiller(make_teacher(), student, losses, [0.5, 2.0], 0.3)
    compiled(distiller, keras.optimizers.Adam(0.1))
    distiller.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    distiller.save(tmp_path / "distiller.keras")

    loaded = keras.models.load_model(tmp_path / "distiller.keras")

    assert isinstance(loaded, Distiller)
    assert loaded.student_loss_weight == 0.3
    assert loaded.distillation_loss_weights == [0.5, 2.0]
    temperatures = [x.temperature for x in loaded.distillation_losses]
    assert temperatures == [2.0, 3.0]
    loaded.run_eagerly = True
    for one in (distiller, loaded):
        one.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    for mine, theirs in zip(
        loaded.student.weights, distiller.student.weights, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_default_losses_are_the_default_of_a_loaded_distiller_too(tmp_path):
    distiller = Distiller(make_teacher(), make_student(), temperature=2.0)
    compiled(distiller).fit(X, Y, verbose=0)
    distiller.save(tmp_path / "distiller.keras")

    loaded = keras.models.load_model(tmp_path / "distiller.keras")

    assert [x.temperature for x in loaded.distillation_losses] == [2.0]
    for one in (distiller, loaded):
        with pytest.raises(ValueError, match="The default soft targets put a"):
            one.compile("sgd", "mse")
    chosen = Distiller(make_teacher(), make_student(), SoftTargets(2.0))
    Distiller.from_config(chosen.get_config()).compile("sgd", "mse")
