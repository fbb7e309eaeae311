"""What the loss is made of: labels, the teacher, penalties, weights."""

import keras
import numpy as np
import pytest
from classifiers import softmax
from helpers import to_numpy
from two_examples import (
    TEACHER_LOGITS,
    X,
    Y,
    compiled,
    hard_losses,
    make_student,
    make_teacher,
    ours,
    soft_losses,
    trained_kernel,
    training_loss,
)

from keras_kddp import Distiller, SoftTargets, prepare

FeatureDistillation = keras.distillation.FeatureDistillation
LogitsDistillation = keras.distillation.LogitsDistillation


def test_the_students_penalties_are_added_as_they_are():
    student = make_student(
        activity_regularizer=keras.regularizers.L1(0.25),
        kernel_regularizer=keras.regularizers.L2(0.5),
    )
    plain = training_loss(ours(make_teacher(), make_student()))

    penalized = training_loss(ours(make_teacher(), student))

    activity = 0.25 * (1 + 0 + 0 + 2) / 2  # Keras divides by the batch
    kernel = 0.5 * (1**2 + 1**2)
    assert penalized == pytest.approx(plain + activity + kernel)


def test_the_teachers_penalties_are_not_counted():
    regularizers = {
        "activity_regularizer": keras.regularizers.L1(100.0),
        "kernel_regularizer": keras.regularizers.L2(100.0),
    }
    plain = training_loss(ours(make_teacher(), make_student()))

    loss = training_loss(ours(make_teacher(**regularizers), make_student()))

    assert loss == plain


def test_penalties_are_left_out_of_an_evaluation():
    student = make_student(kernel_regularizer=keras.regularizers.L2(100.0))

    penalized = ours(make_teacher(), student).evaluate(X, Y, verbose=0)
    plain = ours(make_teacher(), make_student()).evaluate(X, Y, verbose=0)

    assert penalized == plain


def test_a_logits_distillation_with_a_loss_of_its_own_is_left_alone():
    losses = LogitsDistillation(2.0, "mse")
    distiller = Distiller(
        make_teacher(), make_student(), losses, student_loss_weight=0.0
    )

    loss = training_loss(compiled(distiller, loss=None))

    differences = (TEACHER_LOGITS / 2 - X / 2) ** 2
    assert loss == pytest.approx(differences.mean())


def test_a_sample_weight_multiplies_the_hard_and_the_soft_loss():
    distiller = ours(make_teacher(), make_student(), student_loss_weight=0.25)

    loss = training_loss(distiller, sample_weight=np.array([3.0, 0.5]))

    hard, soft = hard_losses(), soft_losses(4.0)
    assert loss == pytest.approx(
        0.25 * (3 * hard[0] + 0.5 * hard[1]) / 2
        + 0.75 * (3 * soft[0] + 0.5 * soft[1]) / 2
    )


def test_a_sample_weight_does_not_multiply_the_penalty():
    student = make_student(kernel_regularizer=keras.regularizers.L2(0.5))
    distiller = ours(make_teacher(), student)

    loss = training_loss(distiller, sample_weight=np.zeros(2))

    assert loss == pytest.approx(0.5 * (1**2 + 1**2))


def test_a_class_weight_is_a_sample_weight_by_label():
    labels = np.array([0, 1])

    def kernel(**weights):
        distiller = ours(make_teacher(), make_student())
        distiller.fit(X, labels, verbose=0, **weights)
        return to_numpy(distiller.student.layers[0].kernel)

    np.testing.assert_array_equal(
        kernel(class_weight={0: 3.0, 1: 0.5}),
        kernel(sample_weight=np.array([3.0, 0.5])),
    )


def test_training_in_mixed_precision_moves_the_weights():
    half = {"dtype": "mixed_float16"}
    distiller = Distiller(make_teacher(**half), make_student(**half))
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5))

    kernel = trained_kernel(compiled(distiller, optimizer))

    expected = trained_kernel(ours(make_teacher(), make_student()))
    np.testing.assert_allclose(kernel, expected, rtol=1e-2)


def test_a_penalty_in_mixed_precision_stays_finite():
    student = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(
                64, kernel_initializer="ones", dtype="mixed_float16"
            ),
            keras.layers.Dense(2, kernel_initializer="zeros"),
        ]
    )
    distiller = ours(make_teacher(), prepare(student, l1=1.0))

    loss = distiller.compute_loss(1000 * X, Y, training=True)

    # 64 units of mean (1000 + 2000) / 2 sum to more than float16 holds.
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(to_numpy(loss)) == pytest.approx(64 * 1500, rel=0.1)


def test_the_users_loss_sees_the_probabilities_as_they_are():
    distiller = Distiller(
        make_teacher(),
        make_student(keras.layers.Softmax()),
        student_loss_weight=1.0,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=False)

    received = training_loss(compiled(distiller, loss=loss))

    assert received == pytest.approx(hard_losses().mean(), rel=1e-5)


def test_log_softmax_outputs_are_logits_already():
    student = make_student(keras.layers.Activation("log_softmax"))

    loss = training_loss(ours(make_teacher(), student))

    plain = training_loss(ours(make_teacher(), make_student()))
    assert loss == pytest.approx(plain)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    distiller = Distiller(
        make_teacher(),
        make_student(),
        [SoftTargets(2.0), FeatureDistillation("mse")],
        [0.5, 3.0],
        0.25,
    )

    loss = training_loss(compiled(distiller))

    hard = hard_losses().mean()
    soft = soft_losses(2.0).mean()
    squares = np.square(TEACHER_LOGITS - X).mean()
    expected = 0.25 * hard + 0.75 * (0.5 * soft + 3.0 * squares)
    assert loss == pytest.approx(expected)


@pytest.mark.parametrize("share", [0, 0.0, 1, 1.0, np.float32(0.5)])
def test_the_labels_have_the_share_of_student_loss_weight(share):
    distiller = ours(make_teacher(), make_student(), student_loss_weight=share)

    expected = share * hard_losses().mean()
    expected += (1 - share) * soft_losses(4.0).mean()
    assert training_loss(distiller) == pytest.approx(expected)


def test_the_temperature_is_that_of_the_soft_targets():
    distiller = ours(
        make_teacher(), make_student(), student_loss_weight=0, temperature=7.0
    )

    assert training_loss(distiller) == pytest.approx(soft_losses(7.0).mean())


def test_without_labels_the_teacher_alone_counts():
    distiller = ours(make_teacher(), make_student(), student_loss_weight=0.25)

    loss = training_loss(distiller, y=None)

    assert loss == pytest.approx(0.75 * soft_losses(4.0).mean())


def test_without_a_share_for_the_labels_no_loss_is_needed():
    distiller = Distiller(make_teacher(), make_student(), student_loss_weight=0)

    history = compiled(distiller, loss=None).fit(X, verbose=0)

    assert history.history["loss"] == [pytest.approx(soft_losses(4.0).mean())]


def test_the_history_shows_the_parts_of_the_loss():
    student = make_student(kernel_regularizer=keras.regularizers.L2(0.5))
    distiller = ours(make_teacher(), student, student_loss_weight=0.25)

    history = distiller.fit(X, Y, verbose=0, batch_size=2).history

    hard, soft = hard_losses().mean(), soft_losses(4.0).mean()
    total = 0.25 * hard + 0.75 * soft + 0.5 * (1**2 + 1**2)
    assert history == {
        "student_loss": [pytest.approx(hard)],
        "distillation_loss": [pytest.approx(soft)],
        "total_loss": [pytest.approx(total)],
        "loss": [pytest.approx(total)],
    }


def test_batches_of_different_sizes_count_by_their_examples():
    distiller = ours(make_teacher(), make_student(), student_loss_weight=0)
    rows, labels = X[[0, 0, 1]], Y[[0, 0, 1]]

    history = distiller.evaluate(
        rows, labels, batch_size=2, verbose=0, return_dict=True
    )

    first, second = soft_losses(4.0)
    expected = (2 * first + 1 * second) / 3
    assert history["distillation_loss"] == pytest.approx(expected)
    assert history["loss"] == pytest.approx(expected)


@pytest.mark.no_jax  # where Keras' mean is of float32
@pytest.mark.no_torch
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_float64_models_have_a_float64_loss(share):
    wide = {"dtype": "float64"}
    distiller = Distiller(
        make_teacher(**wide),
        make_student(kernel_regularizer=keras.regularizers.L2(0.5), **wide),
        student_loss_weight=share,
    )

    loss = compiled(distiller).compute_loss(
        X.astype("float64"), Y, training=True
    )

    hard, soft = hard_losses().mean(), soft_losses(4.0).mean()
    expected = share * hard + (1 - share) * soft + 0.5 * (1**2 + 1**2)
    assert keras.backend.standardize_dtype(loss.dtype) == "float64"
    # Keras computes the hard loss in its default float32.
    precision = 1e-6 if share else 1e-12
    assert float(to_numpy(loss)) == pytest.approx(expected, rel=precision)


def test_a_single_step_follows_the_gradient():
    distiller = ours(make_teacher(), make_student(), student_loss_weight=0)

    kernel = trained_kernel(distiller)

    # dL/dz = T (q - p) / batch, and z = x @ kernel; the rate is 0.5.
    p, q = softmax(TEACHER_LOGITS / 4), softmax(X / 4)
    gradient = X.T @ (4 * (q - p) / 2)
    np.testing.assert_allclose(kernel, np.eye(2) - 0.5 * gradient, rtol=1e-5)


def test_weights_that_are_set_later_count():
    distiller = compiled(
        Distiller(
            make_teacher(),
            make_student(),
            temperature=2.0,
            student_loss_weight=0,
        )
    )
    before = training_loss(distiller)

    distiller.distillation_loss_weights = [100.0]

    assert training_loss(distiller) == pytest.approx(100 * before, rel=1e-6)
