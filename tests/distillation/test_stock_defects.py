"""Our Distiller beside the stock one, whose defects it does not have."""

import keras
import numpy as np
import pytest
from helpers import variable_values
from two_examples import (
    X,
    Y,
    compiled,
    ending,
    linear,
    make_student,
    make_teacher,
    ours,
    soft_losses,
    trained_kernel,
    training_loss,
    with_normalization,
)

from keras_kddp import Distiller

Stock = keras.distillation.Distiller
LogitsDistillation = keras.distillation.LogitsDistillation
FeatureDistillation = keras.distillation.FeatureDistillation
MENDED = "Keras has mended the stock Distiller here: this fix can go."


def stock(teacher, student, **arguments):
    """Returns the stock Distiller with a loss that is right by itself."""
    loss = LogitsDistillation(4.0, keras.losses.KLDivergence())
    return compiled(Stock(teacher, student, loss, **arguments))


@pytest.mark.parametrize("penalty", ["activity", "kernel"])
def test_regularizers_of_the_student_train_it_unlike_in_keras(penalty):
    def outcome(make, strength):
        regularizer = keras.regularizers.L1(strength)
        student = make_student(**{f"{penalty}_regularizer": regularizer})
        return trained_kernel(make(make_teacher(), student))

    unpenalized, penalized = outcome(stock, 0.0), outcome(stock, 1.0)
    assert (unpenalized == penalized).all(), MENDED
    unpenalized, penalized = outcome(ours, 0.0), outcome(ours, 1.0)
    assert (unpenalized != penalized).any()


def test_the_default_logits_distillation_is_a_divergence_unlike_in_keras():
    expected = soft_losses(3.0).mean()

    def loss(distiller_class):
        distiller = distiller_class(
            make_teacher(),
            make_student(),
            LogitsDistillation(),
            student_loss_weight=0.0,
        )
        return training_loss(compiled(distiller))

    assert loss(Stock) != pytest.approx(expected, rel=0.1), MENDED
    assert loss(Distiller) == pytest.approx(expected)


def test_all_zero_sample_weights_train_nothing_unlike_in_keras():
    def moved(make):
        student = make_student()
        distiller = make(make_teacher(), student)
        kernel = trained_kernel(distiller, sample_weight=np.zeros(2))
        return (kernel != np.eye(2)).any()

    assert moved(stock), MENDED
    assert not moved(ours)


def test_class_weights_choose_the_classes_unlike_in_keras():
    def moved(make):
        distiller = make(make_teacher(), make_student())
        kernel = trained_kernel(distiller, class_weight={0: 0.0, 1: 5.0})
        return (kernel != np.eye(2)).any()

    assert moved(stock), MENDED
    assert not moved(ours)  # every label is 0


def test_the_loss_in_mixed_precision_is_finite_unlike_in_keras():
    def loss(distiller_class):
        half = {"dtype": "mixed_float16"}
        distiller = distiller_class(
            linear([[0, 300], [300, 0]], **half),
            linear([[300, 0], [0, 300]], **half),
            LogitsDistillation(4.0),
            student_loss_weight=0.0,
        )
        return training_loss(compiled(distiller))

    assert loss(Stock) == np.inf, MENDED
    # log q of the teacher's class is -300 / T, and -600 / T for row two.
    expected = 4.0**2 * (300 / 4 + 600 / 4) / 2
    assert loss(Distiller) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("teacher_ending", [None, "softmax"])
@pytest.mark.parametrize("student_ending", [None, "softmax"])
def test_softmax_outputs_give_the_loss_of_logits(
    teacher_ending, student_ending
):
    def loss(make):
        return training_loss(
            make(
                make_teacher(*ending(teacher_ending)),
                make_student(*ending(student_ending)),
                student_loss_weight=0.0,
            )
        )

    expected = soft_losses(4.0).mean()
    if (teacher_ending, student_ending) == (None, None):
        assert loss(stock) == pytest.approx(expected, rel=1e-4)
    else:
        assert loss(stock) != pytest.approx(expected, rel=0.1), MENDED
    assert loss(ours) == pytest.approx(expected, rel=1e-5)


def test_evaluating_with_a_feature_loss_changes_nothing_unlike_in_keras():
    loss = FeatureDistillation("mse", "teacher_norm", "student_norm")

    def moved(distiller_class):
        teacher = with_normalization("teacher")
        student = with_normalization("student")
        distiller = compiled(distiller_class(teacher, student, [loss]))
        distiller.evaluate(X, Y, verbose=0)
        before = variable_values(student)
        distiller.evaluate(X, Y, verbose=0)
        after = variable_values(student)
        return any((a != b).any() for a, b in zip(after, before, strict=True))

    assert moved(Stock), MENDED
    assert not moved(Distiller)


@pytest.mark.filterwarnings("ignore:.compile... was not called as part")
def test_a_loaded_distiller_trains_on_unlike_in_keras(tmp_path):
    def trains(make):
        distiller = make(make_teacher(), make_student())
        distiller.fit(X, Y, verbose=0)
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.models.load_model(tmp_path / "distiller.keras")
        try:
            loaded.fit(X, Y, verbose=0)
        except (AttributeError, ValueError):
            return False
        return True

    assert not trains(stock), MENDED
    assert trains(ours)


def test_the_teacher_can_be_trained_afterwards_unlike_in_keras():
    def is_trainable(distiller_class):
        teacher = make_teacher()
        distiller_class(teacher, make_student(), LogitsDistillation())
        return teacher.trainable

    assert not is_trainable(Stock), MENDED
    assert is_trainable(Distiller)
