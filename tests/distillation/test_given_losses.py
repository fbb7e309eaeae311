"""The distillation losses a user gives: what is taken, what is refused."""

import keras
import numpy as np
import pytest
from helpers import to_numpy
from two_examples import (
    TEACHER_LOGITS,
    X,
    Y,
    compiled,
    linear,
    make_student,
    make_teacher,
    trained_kernel,
    training_loss,
)

from keras_kddp import Distiller, SoftTargets

FeatureDistillation = keras.distillation.FeatureDistillation
LogitsDistillation = keras.distillation.LogitsDistillation


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "0.1", None, [0.1]])
def test_a_share_outside_of_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match="`student_loss_weight` must be a num"):
        Distiller(make_teacher(), make_student(), student_loss_weight=share)


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), "4"])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    for losses in (None, SoftTargets()):
        with pytest.raises(ValueError, match="`temperature` must be a finite"):
            Distiller(
                make_teacher(),
                make_student(),
                losses,
                temperature=temperature,
            )


def test_a_temperature_beside_losses_is_refused():
    message = r"Give it to the loss: keras_kddp.SoftTargets\(2.0\)"
    with pytest.raises(ValueError, match=message):
        Distiller(
            make_teacher(), make_student(), SoftTargets(), temperature=2.0
        )


@pytest.mark.parametrize(
    "losses", ["kl", SoftTargets, [keras.losses.KLDivergence()], [None]]
)
def test_what_is_no_distillation_loss_is_refused(losses):
    with pytest.raises(ValueError, match="must be DistillationLoss objects"):
        Distiller(make_teacher(), make_student(), losses)


def test_an_empty_list_of_losses_is_refused():
    with pytest.raises(ValueError, match="`distillation_losses` must not be"):
        Distiller(make_teacher(), make_student(), [])


@pytest.mark.parametrize(
    "weights", [[], [1.0, 2.0], 1.0, "1", [-1.0], [float("nan")], ["1"]]
)
def test_weights_that_are_not_one_number_per_loss_are_refused(weights):
    message = r"must have one number >= 0 per loss \(1\)"
    with pytest.raises(ValueError, match=message):
        Distiller(make_teacher(), make_student(), SoftTargets(), weights)


def test_weights_may_be_an_array():
    losses = [SoftTargets(), SoftTargets(2.0)]

    distiller = Distiller(
        make_teacher(), make_student(), losses, np.array([1, 2])
    )

    assert distiller.distillation_loss_weights == [1.0, 2.0]


def test_soft_targets_of_a_single_class_are_refused():
    one = np.ones((2, 1))
    message = r"at least two classes. Received: a teacher with outputs of sh"
    with pytest.raises(ValueError, match=message):
        Distiller(linear(one), linear(one))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_soft_targets_of_a_sigmoid_are_refused(role):
    endings = {role: [keras.layers.Activation("sigmoid")]}
    with pytest.raises(ValueError, match=f"a {role} that ends in sigmoid"):
        Distiller(
            make_teacher(*endings.get("teacher", [])),
            make_student(*endings.get("student", [])),
        )


def test_a_sigmoid_of_one_class_may_have_a_loss_of_its_own():
    one = np.ones((2, 1))
    sigmoid = keras.layers.Activation
    distiller = Distiller(
        linear(2 * one, sigmoid("sigmoid")),
        linear(one, sigmoid("sigmoid")),
        FeatureDistillation("mse"),
    )

    loss = compiled(distiller, loss="binary_crossentropy").fit(X, Y, verbose=0)

    assert np.isfinite(loss.history["loss"]).all()


def test_a_missing_loss_is_refused():
    distiller = Distiller(make_teacher(), make_student())

    with pytest.raises(ValueError, match="`loss` must be given"):
        distiller.compile("sgd")


class Squares(keras.distillation.DistillationLoss):
    """A loss of the user's that knows no weights."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        squares = keras.ops.square(teacher_outputs - student_outputs)
        return keras.ops.mean(squares)


class SquaresOfRows(Squares):
    """A loss that forgot to take the mean."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        squares = keras.ops.square(teacher_outputs - student_outputs)
        return keras.ops.mean(squares, axis=-1)


def test_a_loss_of_the_users_own_is_used():
    distiller = Distiller(
        make_teacher(), make_student(), Squares(), student_loss_weight=0
    )

    loss = training_loss(compiled(distiller))

    assert loss == pytest.approx(np.square(TEACHER_LOGITS - X).mean())


@pytest.mark.parametrize("loss", [Squares(), LogitsDistillation(loss="mse")])
@pytest.mark.parametrize(
    "weights", [{"sample_weight": np.ones(2)}, {"class_weight": {0: 2.0}}]
)
def test_weights_beside_a_loss_that_would_ignore_them_are_refused(
    loss, weights
):
    distiller = Distiller(make_teacher(), make_student(), loss)

    with pytest.raises(ValueError, match="Use keras_kddp.SoftTargets, or lea"):
        trained_kernel(compiled(distiller), **weights)

    kernel = to_numpy(distiller.student.layers[0].kernel)
    np.testing.assert_array_equal(kernel, np.eye(2))


def test_a_loss_that_is_no_scalar_is_refused():
    distiller = Distiller(make_teacher(), make_student(), SquaresOfRows())

    message = r"must return a scalar. Received from SquaresOfRows: shape \(2,"
    with pytest.raises(ValueError, match=message):
        trained_kernel(compiled(distiller))
