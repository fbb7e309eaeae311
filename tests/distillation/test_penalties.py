"""The student's penalties under a Distiller are those of plain Keras."""

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from helpers import to_numpy

from keras_kddp import (
    Distiller,
    FeatureHints,
    SoftTargets,
    plan_removal,
    prepare,
)
from keras_kddp.layers import ActivityRegularizedDense

layers, L1, L2 = keras.layers, keras.regularizers.L1, keras.regularizers.L2
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(12, 5)).astype("float32")
Y = RANDOM.integers(0, 3, 12)


def network(width=6, **regularizers):
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(width, "relu", name="hidden", **regularizers),
            layers.BatchNormalization(name="norm"),
            layers.Dense(3, name="logits"),
        ]
    )


def nested():
    inner = prepare(network(activity_regularizer=L1(0.1)), l1=0.5)
    return keras.Sequential(
        [keras.Input((5,)), inner, layers.Dense(3, bias_regularizer=L2(1.0))]
    )


STUDENTS = {
    "activity": lambda: network(activity_regularizer=L1(0.5)),
    "weights": lambda: network(kernel_regularizer=L2(0.5)),
    "penalty": lambda: prepare(network(), l1=0.5),
    "all": lambda: prepare(
        network(activity_regularizer=L2(0.1), bias_regularizer=L1(1.0)), l1=0.5
    ),
    "regularized dense": lambda: keras.Sequential(
        [
            keras.Input((5,)),
            ActivityRegularizedDense(6, l1=0.5, activity_regularizer=L1(0.1)),
            layers.Dense(3),
        ]
    ),
    "nested": nested,
}


def teacher():
    """Returns one whose own penalties would drown all else."""
    return network(
        8, activity_regularizer=L1(100.0), kernel_regularizer=L2(100.0)
    )


def compiled(model, **arguments):
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, **arguments)
    # On TensorFlow tracing would take most of the time.
    is_eager = keras.backend.backend() == "tensorflow"
    model.compile(optimizer, CROSSENTROPY, run_eagerly=is_eager)
    return model


def outcome(model, student):
    """Returns the losses of one and four more steps, and the weights."""
    first = model.train_on_batch(X[:6], Y[:6], return_dict=True)["loss"]
    history = model.fit(
        X, Y, batch_size=6, shuffle=False, epochs=2, verbose=0
    ).history
    weights = [to_numpy(weight) for weight in student.weights]
    return [float(first), *history["loss"]], weights


@pytest.mark.parametrize(
    ("kind", "accumulated"), [*((kind, None) for kind in STUDENTS), ("all", 2)]
)
def test_without_a_share_of_the_teacher_it_is_plain_keras(kind, accumulated):
    accumulation = {"gradient_accumulation_steps": accumulated}
    student, plain = STUDENTS[kind](), STUDENTS[kind]()
    plain.set_weights(student.get_weights())
    distiller = Distiller(teacher(), student, student_loss_weight=1.0)

    losses, weights = outcome(compiled(distiller, **accumulation), student)

    expected, theirs = outcome(compiled(plain, **accumulation), plain)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for ours, other in zip(weights, theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)


def test_an_evaluation_has_no_penalties():
    student = STUDENTS["all"]()
    distiller = compiled(Distiller(teacher(), student, student_loss_weight=1.0))

    loss = distiller.evaluate(X, Y, verbose=0, return_dict=True)["loss"]

    expected = CROSSENTROPY(Y, student.predict(X, verbose=0))
    assert loss == pytest.approx(float(to_numpy(expected)), rel=1e-5)


def test_penalties_are_counted_once_beside_a_feature_loss():
    losses = [SoftTargets(2.0), FeatureHints("hidden", "hidden")]

    def first_loss(l1):
        keras.utils.set_random_seed(3)
        student = prepare(network(), l1=l1)
        distiller = compiled(Distiller(teacher(), student, losses))
        hidden = student.get_layer("hidden")(X)
        observed = student.get_layer("norm")(hidden, training=True)
        logs = distiller.train_on_batch(X, Y, return_dict=True)
        return float(logs["loss"]), np.abs(to_numpy(observed)).mean(axis=0)

    (without, _), (with_penalty, activity) = first_loss(0.0), first_loss(10.0)

    expected = without + 10 * activity.sum()
    assert with_penalty == pytest.approx(expected, rel=1e-5)


def test_every_call_of_a_shared_layer_is_charged():
    # Plain Keras forgets all calls but the last on JAX.
    pixels = keras.Input((5,))
    layer = layers.Dense(5, "relu", activity_regularizer=L2(0.5))
    student = keras.Model(pixels, layers.Dense(3)(layer(layer(pixels))))
    once = layer(X)
    activations = [to_numpy(once), to_numpy(layer(once))]
    hard = CROSSENTROPY(Y, student(X))

    distiller = Distiller(teacher(), student, student_loss_weight=1.0)
    logs = compiled(distiller).train_on_batch(X, Y, return_dict=True)

    charges = [0.5 * (values**2).sum() / 12 for values in activations]
    expected = float(to_numpy(hard)) + sum(charges)
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)


def test_penalties_are_counted_once_after_a_swap():
    student = prepare(network(), l1=10.0)
    distiller = compiled(Distiller(teacher(), student))
    distiller.train_on_batch(X, Y)
    distiller.replace_student(plan_removal(student, {"hidden": [0, 3]}))

    def first_loss(strength):
        snapshot = distiller.snapshot()
        distiller.student.get_layer("norm_penalty").strength.assign(strength)
        loss = distiller.train_on_batch(X, Y, return_dict=True)["loss"]
        distiller.restore(snapshot)
        return float(loss)

    whole = first_loss(1.0) - first_loss(0.0)
    half = first_loss(0.5) - first_loss(0.0)

    assert whole == pytest.approx(2 * half, rel=1e-4) and half > 0


def test_the_losses_of_a_distiller_are_the_students():
    student = STUDENTS["all"]()
    distiller = Distiller(teacher(), student)

    distiller(X, training=True)

    ours, theirs = (
        sorted(float(to_numpy(loss)) for loss in model.losses)
        for model in (distiller, student)
    )
    assert ours == theirs
    assert len(ours) == 3  # activity regularizer, penalty, bias regularizer
