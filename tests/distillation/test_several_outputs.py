"""Students of several outputs: their losses, their pruning, their cache."""

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY, softmax
from helpers import to_numpy

import keras_kddp as kddp

X = np.array([[1.0, 0.0], [0.0, 2.0]], dtype="float32")
Y = {"digit": np.array([0, 1]), "parity": np.array([2, 0])}
KERNELS = {
    "digit": np.array([[0.0, 3.0], [2.0, 0.0]]),
    "parity": np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]),
}


def two_heads(scale, activation=None, structure=dict):
    """Returns a model whose heads multiply by scaled kernels."""
    inputs = keras.Input((2,))
    heads = {}
    for name, kernel in KERNELS.items():
        head = keras.layers.Dense(
            kernel.shape[1], activation, use_bias=False, name=name
        )
        heads[name] = head(inputs)
        head.kernel.assign(scale * kernel)
    outputs = heads if structure is dict else structure(heads.values())
    return keras.Model(inputs, outputs)


def soft_loss(kernel, temperature, weights=(1.0, 1.0)):
    """Returns T^2 KL(teacher || student) where the student has half of it."""
    p = softmax(X @ kernel / temperature)
    q = softmax(X @ kernel / 2 / temperature)
    divergence = (p * np.log(p / q)).sum(axis=-1)
    return temperature**2 * np.mean(weights * divergence)


def hard_loss(kernel, labels):
    return np.mean(-np.log(softmax(X @ kernel / 2)[[0, 1], labels]))


def compiled(distiller, structure=dict):
    losses = (
        structure([CROSSENTROPY, CROSSENTROPY])
        if structure is not dict
        else dict.fromkeys(KERNELS, CROSSENTROPY)
    )
    distiller.compile("sgd", loss=losses)
    return distiller


def expected_loss(temperature=2.0, share=0.25):
    soft = sum(soft_loss(kernel, temperature) for kernel in KERNELS.values())
    hard = sum(hard_loss(KERNELS[name], Y[name]) for name in KERNELS)
    return share * hard + (1 - share) * soft


@pytest.mark.parametrize("structure", [dict, list])
def test_losses_of_the_outputs_are_added(structure):
    distiller = compiled(
        kddp.Distiller(
            two_heads(1, structure=structure),
            two_heads(0.5, structure=structure),
            student_loss_weight=0.25,
            temperature=2.0,
        ),
        structure,
    )
    y = Y if structure is dict else list(Y.values())

    loss = float(distiller.compute_loss(X, y, training=True))

    assert loss == pytest.approx(expected_loss(), rel=1e-5)


def test_each_output_tells_by_itself_whether_it_is_softmax():
    plain = two_heads(1)
    teacher = keras.Model(
        plain.input,
        {
            "digit": keras.layers.Softmax()(plain.output["digit"]),
            "parity": plain.output["parity"],
        },
    )
    distiller = compiled(
        kddp.Distiller(
            teacher,
            two_heads(0.5),
            student_loss_weight=0.25,
            temperature=2.0,
        )
    )

    loss = float(distiller.compute_loss(X, Y, training=True))

    assert loss == pytest.approx(expected_loss(), rel=1e-5)


def test_weights_may_differ_from_output_to_output():
    targets = kddp.SoftTargets(2.0)
    weights = {"digit": np.array([2.0, 0.0]), "parity": np.array([1.0, 3.0])}
    logits = {name: X @ kernel for name, kernel in KERNELS.items()}
    halves = {name: values / 2 for name, values in logits.items()}

    one_for_all = targets.compute_loss(logits, halves, np.array([2.0, 0.0]))
    each = targets.compute_loss(logits, halves, weights)

    assert float(one_for_all) == pytest.approx(
        sum(soft_loss(k, 2.0, [2.0, 0.0]) for k in KERNELS.values()), rel=1e-5
    )
    assert float(each) == pytest.approx(
        sum(soft_loss(KERNELS[n], 2.0, weights[n]) for n in KERNELS), rel=1e-5
    )


def test_a_student_of_two_outputs_shrinks_inside_fit():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(16, "relu", name="hidden")(inputs)
    student = keras.Model(
        inputs,
        {
            name: keras.layers.Dense(kernel.shape[1], name=name)(hidden)
            for name, kernel in KERNELS.items()
        },
    )
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    y = {"digit": (x[:, 0] > 0) * 1, "parity": (x[:, 1] > 0) * 1}
    cache = kddp.TeacherCache(two_heads(1), x)
    distiller = compiled(kddp.Distiller(None, kddp.prepare(student, l1=1.0)))

    history = distiller.fit(
        cache.pack(x),
        y,
        epochs=8,
        verbose=0,
        callbacks=[kddp.DynamicPruning(threshold=0.5)],
    ).history

    compact = kddp.finalize(distiller.student)
    units = compact.get_layer("hidden").units
    assert units < 16
    assert history["units"][-1] == units
    assert {name: out.shape for name, out in compact.output.items()} == {
        "digit": (None, 2),
        "parity": (None, 3),
    }
    assert np.isfinite(to_numpy(compact(x)["digit"])).all()
