"""Features of the teacher, matched through a projection of their own."""

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY
from helpers import to_numpy

from keras_kddp import (
    Distiller,
    DynamicPruning,
    FeatureHints,
    SoftTargets,
    finalize,
    plan_removal,
    prepare,
)

X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def make_model(width, seed, *, norm=False):
    """Returns a classifier with a layer `fc`, on request normalized."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((6,))
    x = keras.layers.Dense(width, "relu", name="fc")(x)
    if norm:
        x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def make_distiller(student=None, weights=(1.0, 1.0), **arguments):
    distiller = Distiller(
        make_model(9, 0),
        student or make_model(4, 1),
        [SoftTargets(2.0), FeatureHints("fc", "fc")],
        list(weights),
        **arguments,
    )
    distiller.compile(
        keras.optimizers.Adam(0.01), CROSSENTROPY, metrics=["accuracy"]
    )
    return distiller


def feature(model, x, name="fc"):
    reader = keras.Model(model.input, model.get_layer(name).output)
    return to_numpy(reader(x))


def test_the_loss_is_the_mean_square_behind_the_projection():
    distiller = make_distiller(weights=(0.0, 1.0), student_loss_weight=0.0)

    loss = distiller.compute_loss(X, Y, training=False)

    kernel = to_numpy(distiller.projection_1.kernel)
    projected = feature(distiller.student, X) @ kernel
    expected = np.mean((feature(distiller.teacher, X) - projected) ** 2)
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-5)


def test_sample_weights_weigh_the_features_of_examples():
    hints = FeatureHints("a", "b")
    teacher, student = np.ones((2, 3)), np.zeros((2, 3))

    loss = hints.compute_loss(teacher, student, np.array([[1.0], [3.0]]))

    assert float(loss) == (1 + 3) / 2


def test_student_and_projection_learn_the_features():
    distiller = make_distiller()
    before = distiller.projection_1.kernel.numpy()

    history = distiller.fit(X, Y, epochs=30, verbose=0).history

    assert (
        history["distillation_loss"][-1] < history["distillation_loss"][0] / 2
    )
    assert np.abs(distiller.projection_1.kernel.numpy() - before).min() > 0


def test_a_step_runs_each_model_once(monkeypatch):
    student = make_model(4, 1)
    distiller = make_distiller(student)
    calls = {"student": 0, "teacher": 0}
    for role, model in (("student", student), ("teacher", distiller.teacher)):
        layer = model.get_layer("fc")
        original = layer.call

        def counting(*args, role=role, original=original, **kwargs):
            calls[role] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(layer, "call", counting)
    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)

    distiller.train_on_batch(X[:64], Y[:64])  # builds what Keras builds late
    before = dict(calls)
    distiller.train_on_batch(X[:64], Y[:64])

    steps = {role: count - before[role] for role, count in calls.items()}
    assert steps == {"student": 1, "teacher": 1}


def test_evaluate_leaves_batch_normalization_as_it_is():
    distiller = make_distiller(make_model(4, 1, norm=True))
    norm = distiller.student.get_layer("norm")
    distiller.fit(X, Y, epochs=2, verbose=0)
    before = norm.moving_mean.numpy()

    distiller.evaluate(X, Y, verbose=0)

    np.testing.assert_array_equal(norm.moving_mean, before)


def test_units_of_a_matched_layer_leave_with_their_rows_of_the_projection():
    distiller = make_distiller(prepare(make_model(4, 1)))
    distiller.fit(X, Y, epochs=3, verbose=0)
    old = distiller.projection_1.kernel.numpy()
    momentum = {
        v.path: v.numpy()
        for v in distiller.optimizer.variables
        if "projection" in v.path
    }

    distiller.replace_student(plan_removal(distiller.student, {"fc": [1, 2]}))

    np.testing.assert_array_equal(distiller.projection_1.kernel, old[[0, 3]])
    carried = [
        v for v in distiller.optimizer.variables if "projection" in v.path
    ]
    assert len(carried) == len(momentum) == 2
    for new, before in zip(carried, momentum.values(), strict=True):
        np.testing.assert_array_equal(new, before[[0, 3]])
    distiller.fit(X, Y, epochs=1, verbose=0)
    assert distiller.projection_1.kernel.shape == (2, 9)


def test_a_pruned_run_with_hints_ends_in_a_plain_student():
    distiller = make_distiller(prepare(make_model(16, 1), l1=0.1))
    callback = DynamicPruning(threshold=0.3)

    distiller.fit(X, Y, epochs=24, verbose=0, callbacks=[callback])

    compact = finalize(distiller.student)
    assert callback.removals
    assert [layer.name for layer in compact.layers][1:] == ["fc", "logits"]
    assert compact.get_layer("fc").units < 16
    assert (
        distiller.projection_1.kernel.shape[0] == compact.get_layer("fc").units
    )


def test_going_back_brings_the_projection_back():
    distiller = make_distiller(prepare(make_model(4, 1)))
    distiller.fit(X, Y, epochs=1, verbose=0)
    snapshot = distiller.snapshot()
    before = distiller.projection_1.kernel.numpy()
    outputs = distiller.student.predict(X, verbose=0)
    distiller.replace_student(plan_removal(distiller.student, {"fc": [1]}))
    distiller.fit(X, Y, epochs=1, verbose=0)

    distiller.restore(snapshot)

    np.testing.assert_array_equal(distiller.projection_1.kernel, before)
    np.testing.assert_array_equal(
        distiller.student.predict(X, verbose=0), outputs
    )
    distiller.fit(X, Y, epochs=1, verbose=0)


def test_a_distiller_with_hints_can_be_saved(tmp_path):
    distiller = make_distiller()
    distiller.fit(X, Y, epochs=2, verbose=0)
    distiller.save(tmp_path / "distiller.keras")

    loaded = keras.saving.load_model(tmp_path / "distiller.keras")

    np.testing.assert_array_equal(
        loaded.projection_1.kernel, distiller.projection_1.kernel
    )
    loaded.fit(X, Y, epochs=1, verbose=0)


def test_convolutional_features_are_projected_at_every_position():
    x = np.ones((8, 6, 6, 1), "float32")

    def model(filters):
        return keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Conv2D(filters, 3, name="conv"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3),
            ]
        )

    losses = [SoftTargets(), FeatureHints("conv", "conv")]
    distiller = Distiller(model(8), model(2), losses, student_loss_weight=0)
    distiller.compile("adam")

    distiller.fit(x, np.zeros(8), verbose=0)

    assert distiller.projection_1.kernel.shape == (2, 8)


def test_models_of_several_outputs_take_hints():
    def model(width):
        inputs = keras.Input((6,))
        x = keras.layers.Dense(width, "relu", name="fc")(inputs)
        outputs = [keras.layers.Dense(3)(x), keras.layers.Dense(2)(x)]
        return keras.Model(inputs, outputs)

    losses = [SoftTargets(2.0), FeatureHints("fc", "fc")]
    distiller = Distiller(model(8), model(4), losses, student_loss_weight=0)
    distiller.compile("adam")

    distiller.fit(X, [Y, Y], epochs=1, verbose=0)


def test_a_layer_with_units_on_another_axis_is_pinned():
    def model(width):
        return keras.Sequential(
            [
                keras.Input((6, 2)),
                keras.layers.Dense(width, "relu", name="q"),
                keras.layers.Permute((2, 1), name="p"),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )

    losses = [SoftTargets(2.0), FeatureHints("p", "p")]
    distiller = Distiller(model(8), model(8), losses)

    assert list(distiller.pinned_layers) == ["p"]
    with pytest.raises(ValueError, match="must keep the output of layer 'p'"):
        distiller.replace_student(plan_removal(distiller.student, {"q": [1]}))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("fc", "none"), r"must name a layer of the student.*'none'"),
        (("none", "fc"), r"must name a layer of the teacher.*'none'"),
        ((3, "fc"), "must be the name of a layer. Received: 3"),
    ],
)
def test_a_layer_that_is_not_there_is_refused(names, message):
    with pytest.raises(ValueError, match=message):
        Distiller(make_model(9, 0), make_model(4, 1), FeatureHints(*names))


def test_other_positions_are_refused():
    student = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Reshape((2, 3), name="fc"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )

    with pytest.raises(ValueError, match="differ in their last axis alone"):
        Distiller(make_model(9, 0), student, FeatureHints("fc", "fc"))


def test_hints_need_the_teacher():
    with pytest.raises(ValueError, match="teacher=None and FeatureHints"):
        Distiller(None, make_model(4, 1), FeatureHints("fc", "fc"))


def layer_that(kind):
    """Returns a model whose layer 'fc' cannot be matched, or can."""
    inputs = keras.Input((6,))
    dense = keras.layers.Dense(4, name="fc")
    if kind == "called twice":
        x = keras.layers.Add()([dense(inputs), dense(inputs)])
    elif kind == "several outputs":
        pair = keras.layers.Reshape((3, 2))(inputs)
        lstm = keras.layers.LSTM(4, return_state=True, name="fc")
        x = lstm(pair)[0]
    elif kind == "nested":
        x = keras.Model(
            inner := keras.Input((6,)), keras.layers.Dense(4)(inner), name="fc"
        )(inputs)
    else:  # one that is part of another model too
        keras.Model(other := keras.Input((6,)), dense(other))
        x = dense(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize(
    ("kind", "received"),
    [
        ("called twice", r"2 calls of \[1, 1\] tensors"),
        ("several outputs", r"1 calls of \[3\] tensors"),
    ],
)
def test_a_layer_without_one_output_is_refused(kind, received):
    with pytest.raises(ValueError, match=received):
        Distiller(
            layer_that(kind), layer_that("nested"), FeatureHints("fc", "fc")
        )


@pytest.mark.parametrize("kind", ["nested", "shared with another model"])
def test_the_output_is_that_of_the_call_in_this_model(kind):
    losses = [SoftTargets(2.0), FeatureHints("fc", "fc")]
    distiller = Distiller(layer_that(kind), layer_that(kind), losses)
    distiller.compile("adam", CROSSENTROPY)

    distiller.fit(X, Y, epochs=1, verbose=0)


def test_a_model_without_a_graph_is_refused():
    class Wrapped(keras.Model):
        def __init__(self):
            super().__init__()
            self.fc = keras.layers.Dense(3, name="fc")

        def call(self, inputs):
            return self.fc(inputs)

    teacher = Wrapped()
    teacher(X[:1])

    with pytest.raises(ValueError, match="Wrapped without a graph"):
        Distiller(teacher, layer_that("nested"), FeatureHints("fc", "fc"))


def test_features_of_unknown_width_are_refused():
    def model():
        inputs = keras.Input((None,))
        x = keras.layers.Activation("relu", name="fc")(inputs)
        x = keras.layers.Reshape((-1, 1))(x)
        x = keras.layers.GlobalAveragePooling1D()(x)
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    with pytest.raises(ValueError, match="last axis of known size"):
        Distiller(model(), model(), FeatureHints("fc", "fc"))
