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


@pytest.mark.parametrize(
    "weights", [{"sample_weight": np.ones(2)}, {"class_weight": {0: 2.0}}]
)
def test_weights_beside_a_loss_that_would_ignore_them_are_refused(weights):
    distiller = Distiller(make_teacher(), make_student(), Squares())

    message = "Received: Squares, which does not. Add `sample_weight=None` to"
    with pytest.raises(ValueError, match=message):
        trained_kernel(compiled(distiller), **weights)

    kernel = to_numpy(distiller.student.layers[0].kernel)
    np.testing.assert_array_equal(kernel, np.eye(2))


def test_a_loss_that_is_no_scalar_is_refused():
    distiller = Distiller(make_teacher(), make_student(), SquaresOfRows())

    message = r"must return a scalar. Received from SquaresOfRows: shape \(2,"
    with pytest.raises(ValueError, match=message):
        trained_kernel(compiled(distiller))


@pytest.mark.parametrize(
    ("loss", "of_examples"),
    [
        (LogitsDistillation(2.0, "mse"), lambda d: (d / 2) ** 2),
        (LogitsDistillation(2.0, keras.losses.MeanAbsoluteError()), None),
        (FeatureDistillation("mse"), lambda d: d**2),
        (FeatureDistillation(keras.losses.MeanSquaredError()), lambda d: d**2),
    ],
)
@pytest.mark.parametrize("weights", [np.array([3.0, 0.5]), np.array([0, 1])])
def test_keras_own_losses_are_weighed(loss, of_examples, weights):
    distiller = Distiller(
        make_teacher(), make_student(), loss, student_loss_weight=0
    )
    distiller.compile("sgd")
    of_examples = of_examples or (lambda d: np.abs(d / 2))

    value = distiller.compute_loss(X, None, sample_weight=weights)

    each = of_examples(TEACHER_LOGITS - X).mean(axis=-1)
    assert float(value) == pytest.approx(np.mean(each * weights))


def two_outputs(scale, *activation):
    """Returns a model whose outputs are scaled inputs, and twice those."""
    inputs = keras.Input((2,))
    heads = []
    for name, factor in (("a", scale), ("b", 2 * scale)):
        head = keras.layers.Dense(2, *activation, use_bias=False, name=name)
        heads.append(head(inputs))
        head.kernel.assign(factor * np.array([[1.0, 0.5], [0.0, 1.0]]))
    return keras.Model(inputs, heads)


@pytest.mark.parametrize("activation", [[], ["softmax"]])
@pytest.mark.parametrize(
    "by_name",
    ["kl_divergence", "kld", "KLDivergence", keras.losses.kl_divergence],
)
@pytest.mark.parametrize("weights", [None, np.array([3.0, 0.5])])
def test_a_divergence_by_name_is_one_of_softened_outputs_in_a_list_too(
    activation, by_name, weights
):
    def value(losses):
        teacher, student = two_outputs(2, *activation), two_outputs(1)
        distiller = Distiller(teacher, student, losses, student_loss_weight=0)
        distiller.compile("sgd")
        loss = distiller.compute_loss(X, None, sample_weight=weights)
        return float(loss)

    whole = value(SoftTargets(2.0))
    both = value(LogitsDistillation(2.0, [by_name, by_name]))
    halves = [
        value(LogitsDistillation(2.0, losses))
        for losses in ([by_name, None], [None, by_name])
    ]

    assert both == pytest.approx(whole, rel=1e-4)  # Keras clips at 1e-7
    assert sum(halves) == pytest.approx(whole, rel=1e-4)


def test_one_weight_counts_for_all_of_keras_own_losses():
    distiller = Distiller(
        two_outputs(2),
        two_outputs(1),
        LogitsDistillation(1.0, ["mse", "mae"]),
        student_loss_weight=0,
    )
    distiller.compile("sgd")

    weights = np.array([3.0, 0.5])
    value = distiller.compute_loss(X, None, sample_weight=weights)

    differences = X @ np.array([[1.0, 0.5], [0.0, 1.0]])
    squares = np.square(differences).mean(axis=-1)
    absolutes = np.abs(2 * differences).mean(axis=-1)
    expected = np.mean(weights * (squares + absolutes))
    assert float(value) == pytest.approx(expected)


class Scaled(LogitsDistillation):
    """A subclass of the user's, which does something else."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return 7.0 * keras.ops.mean(student_outputs) / self.temperature


@pytest.mark.parametrize("loss", [Scaled(2.0), Scaled(2.0, "mse")])
def test_a_subclass_of_keras_own_loss_is_used(loss):
    distiller = Distiller(
        make_teacher(), make_student(), loss, student_loss_weight=0
    )
    distiller.compile("sgd")

    value = distiller.compute_loss(X, None)

    assert distiller.distillation_losses == [loss]
    assert float(value) == pytest.approx(7 * X.mean() / 2)
