"""Keras' FeatureDistillation in the Distiller."""

import keras
import numpy as np
import pytest
from helpers import to_numpy
from two_examples import X, compiled, training_loss, with_normalization

from keras_kddp import Distiller, SoftTargets, plan_removal

FeatureDistillation = keras.distillation.FeatureDistillation


def features(student_layer="student_norm", teacher_layer="teacher_norm"):
    return FeatureDistillation("mse", teacher_layer, student_layer)


def test_a_feature_loss_compares_the_named_layers():
    teacher = with_normalization("teacher")
    student = with_normalization("student")
    distiller = Distiller(
        teacher,
        student,
        features("student_dense", "teacher_dense"),
        student_loss_weight=0,
    )

    loss = training_loss(compiled(distiller, loss=None))

    ours_, theirs = (
        X @ to_numpy(x.layers[0].kernel) for x in (student, teacher)
    )
    assert loss == pytest.approx(np.square(ours_ - theirs).mean(), rel=1e-5)


def test_a_feature_loss_trains_the_layers_up_to_the_named_one():
    teacher = with_normalization("teacher")
    student = with_normalization("student")
    distiller = Distiller(teacher, student, features(), student_loss_weight=0)
    head = to_numpy(student.layers[-1].kernel)

    compiled(distiller, loss=None)
    with pytest.warns(UserWarning, match="Gradients do not exist for var"):
        losses = distiller.fit(X, epochs=5, verbose=0).history["loss"]

    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(student.layers[-1].kernel, head)


def test_a_feature_loss_pins_the_layer_it_matches():
    teacher = with_normalization("teacher")
    student = with_normalization("student")
    distiller = Distiller(teacher, student, [SoftTargets(), features()])

    assert list(distiller.pinned_layers) == ["student_norm"]
    message = "must keep the output of layer 'student_norm': the loss Feature"
    with pytest.raises(ValueError, match=message):
        distiller.replace_student(plan_removal(student, {"student_dense": [0]}))
    assert distiller.student is student


def test_a_feature_loss_reads_the_student_that_replaced_another():
    teacher = with_normalization("teacher")
    student = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(4, "relu", name="free"),
            keras.layers.Dense(3, name="matched", kernel_initializer="zeros"),
            keras.layers.Dense(2),
        ]
    )
    loss = features("matched", "teacher_dense")
    distiller = Distiller(teacher, student, loss, student_loss_weight=0)
    compiled(distiller, loss=None)

    distiller.replace_student(plan_removal(student, {"free": [0]}))
    distiller.student.get_layer("matched").bias.assign([1.0, 2.0, 3.0])

    expected = X @ to_numpy(teacher.layers[0].kernel) - [1.0, 2.0, 3.0]
    squares = np.square(expected).mean()
    assert training_loss(distiller) == pytest.approx(squares, rel=1e-5)
