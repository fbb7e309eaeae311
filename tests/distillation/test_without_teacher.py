"""Students that learn from the labels alone, or from what they were."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import CROSSENTROPY
from known_activity import make_student as known_student
from resumed_runs import PHASES, Outcome, X, Y, assert_equal, resumed, student
from two_examples import make_student, make_teacher

import keras_kddp as kddp
from keras_kddp.distillation.checkpoints import resumable
from keras_kddp.model_io import to_numpy

RNG = np.random.default_rng(1)
TARGETS = (X[:, :1] + 0.5 * X[:, 1:2]).astype("float32")


def network(units=1, last=None):
    """Returns a model of six numbers with a hidden layer of 16 units."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, "relu", name="hidden"),
            keras.layers.Dense(units, last, name="out"),
        ]
    )


def alone(model, loss=CROSSENTROPY, optimizer="adam", **options):
    """Returns a compiled Distiller without a teacher."""
    made = kddp.Distiller(None, model, student_loss_weight=1.0)
    made.compile(optimizer, loss, run_eagerly=True, **options)
    return made


def pruning(**options):
    """Returns a callback that takes the lower half of the units."""
    settings = {"criterion": "mean_activity", "threshold": 0.5}
    return kddp.DynamicPruning(**{**settings, **PHASES, **options})


def train(distiller, x=X, y=Y, *callbacks, **options):
    """Trains for six epochs and returns the history."""
    settings = {"epochs": 6, "batch_size": 16, "verbose": 0, **options}
    return distiller.fit(x, y, callbacks=list(callbacks), **settings).history


# The labels alone.


def test_labels_alone_teach_what_keras_itself_would_teach():
    plain = network(3)
    plain.compile("adam", CROSSENTROPY, run_eagerly=True)
    expected = plain.fit(X, Y, epochs=3, shuffle=False, verbose=0).history
    distiller = alone(network(3))

    found = train(distiller, epochs=3, batch_size=32, shuffle=False)

    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    assert found["student_loss"] == found["total_loss"] == found["loss"]
    assert found["distillation_loss"] == [0.0, 0.0, 0.0]
    for mine, theirs in zip(
        distiller.student.weights, plain.weights, strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


def test_units_pay_for_their_activity_and_leave():
    distiller = alone(kddp.prepare(network(3), l1=1.0), metrics=["accuracy"])
    callback = pruning()

    history = train(distiller, X, Y, callback, validation_data=(X, Y))

    assert callback.removals
    units = distiller.student.get_layer("hidden").units
    assert history["units"][-1] == units < 16
    assert len(history["val_accuracy"]) == 6
    total, hard = history["total_loss"], history["student_loss"]
    assert total[0] == hard[0] and total[2] > hard[2]  # warm-up, then hold
    hits = distiller.predict(X, verbose=0).argmax(axis=1) == Y
    scores = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    assert scores["accuracy"] == pytest.approx(hits.mean())
    assert scores["distillation_loss"] == 0.0


def test_packed_outputs_make_no_difference_to_labels_alone():
    packed = kddp.TeacherCache(network(3), X).pack(X)
    first, second = (
        train(alone(network(3)), x, epochs=2)["loss"] for x in (X, packed)
    )
    assert first == second


def test_batches_of_a_dataset_are_learned_from():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    history = (
        alone(network(3))
        .fit(data, validation_data=data, epochs=2, shuffle=False, verbose=0)
        .history
    )
    assert history["val_loss"][1] < history["val_loss"][0]


class Unheard(keras.distillation.DistillationLoss):
    """A distillation loss that is never to be computed."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        raise AssertionError("computed")


def test_distillation_losses_are_not_computed_where_labels_alone_teach():
    for teacher in (None, network(3)):
        made = kddp.Distiller(
            teacher, network(3), Unheard(), student_loss_weight=1
        )
        made.compile("sgd", CROSSENTROPY, run_eagerly=True)
        assert train(made, epochs=1)["distillation_loss"] == [0.0]


def test_labels_must_be_there_where_they_alone_teach():
    with pytest.raises(ValueError, match="`y` must be given: .*Received: y=No"):
        alone(network(3)).fit(X, verbose=0)


def two_heads():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(16, "relu", name="hidden")(inputs)
    heads = {"a": keras.layers.Dense(3, name="a")(hidden)}
    heads["b"] = keras.layers.Dense(1, name="b")(hidden)
    return keras.Model(inputs, heads)


BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
KINDS = {
    "regression": (network, "mse", TARGETS),
    "one-logit": (network, BINARY, (TARGETS > 0).astype("float32")),
    "sigmoid": (
        lambda: network(1, "sigmoid"),
        "binary_crossentropy",
        (TARGETS > 0).astype("float32"),
    ),
    "several-labels": (
        lambda: network(4, "sigmoid"),
        "binary_focal_crossentropy",
        (X[:, :4] > 0).astype("float32"),
    ),
    "two-outputs": (
        two_heads,
        {"a": CROSSENTROPY, "b": "mse"},
        {"a": Y, "b": TARGETS},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_are_no_classes_are_learned_and_pruned(kind, tmp_path):
    make, loss, y = KINDS[kind]
    distiller = alone(kddp.prepare(make(), l1=0.5), loss, "adam")
    callback = pruning()

    history = train(distiller, X, y, callback, validation_data=(X, y))

    assert callback.removals
    assert history["val_student_loss"][-1] < history["val_student_loss"][0]
    assert distiller.student.get_layer("hidden").units < 16
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    before, after = (
        keras.tree.flatten(each.predict(X, verbose=0))
        for each in (distiller, loaded)
    )
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    loaded.run_eagerly = True
    assert np.isfinite(train(loaded, X, y, epochs=1)["loss"]).all()


def test_a_budget_is_met_without_a_teacher():
    budget = kddp.Budget(max_parameters=60)  # 6 + 1 and 3 a unit, and 3
    distiller = alone(kddp.prepare(network(3)))
    train(distiller, X, Y, pruning(budget=budget))
    assert 50 < distiller.student.count_params() <= 60


def test_a_budget_that_counts_from_the_teacher_says_there_is_none():
    budget = kddp.Budget(max_accuracy_drop=0.1, reference="teacher")
    distiller = alone(kddp.prepare(network(3)), metrics=["accuracy"])
    with pytest.raises(ValueError, match="needs the teacher. Received: teach"):
        train(distiller, X, Y, pruning(budget=budget), validation_data=(X, Y))


@pytest.mark.parametrize(
    "weights",
    [
        {"sample_weight": np.zeros(48, "float32")},
        {"class_weight": {0: 0.0, 1: 0.0, 2: 0.0}},
    ],
    ids=["examples", "classes"],
)
def test_weights_count_where_labels_alone_teach(weights):
    distiller = alone(network(3))
    before = distiller.student.get_weights()
    train(distiller, epochs=1, **weights)
    for now, then in zip(distiller.student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_padding_counts_nothing_where_labels_alone_teach():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), dtype="int32")
    words = keras.layers.Embedding(4, 5, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(words))
    x = np.array([[3, 1, 0, 0], [2, 0, 0, 0]])
    y = np.array([[0, 1, 0, 0], [1, 0, 0, 0]])
    distiller = alone(model)
    first, second = (
        float(distiller.compute_loss(x, labels, training=False))
        for labels in (y, np.where(x == 0, 1, y))
    )
    assert first == second


def test_labels_alone_teach_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = kddp.prepare(network(3), l1=0.5)
    finally:
        keras.config.set_dtype_policy("float32")
    distiller = alone(model)
    losses = train(distiller, X, Y, pruning())["student_loss"]
    assert losses[-1] < losses[0]
    assert distiller.student.get_layer("hidden").units < 16


def run_alone(teacher=None, share=1.0):
    """Returns what `Outcome` takes: a run that removes units."""
    keras.utils.set_random_seed(0)
    made = kddp.Distiller(
        teacher, kddp.prepare(student()), student_loss_weight=share
    )
    made.compile("adam", CROSSENTROPY, run_eagerly=True)
    callback = pruning()
    return made, [callback], {}


@pytest.mark.parametrize(
    ("teacher", "share"), [(None, 1.0), ("self", 0.1)], ids=["none", "self"]
)
def test_a_run_goes_on_where_it_was_ended(
    teacher, share, tmp_path, monkeypatch
):
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN", 0.0)

    def make():
        return run_alone(teacher, share)

    expected = Outcome(make)
    assert expected.removals[0]
    assert_equal(resumed(make, tmp_path, 2, 4), expected)


# The student itself.


def test_a_student_that_teaches_itself_is_a_copy_of_what_it_was():
    start = kddp.prepare(network(3), l1=0.5)
    distiller = kddp.Distiller("self", start)
    expected = to_numpy(start(X))

    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)
    first = distiller.compute_loss(X, Y, training=False)
    callback = pruning()
    train(distiller, X, Y, callback)

    hard = to_numpy(CROSSENTROPY(Y, expected))
    # It is no worse than its teacher: only the labels have something to say.
    assert float(first) == pytest.approx(0.1 * float(hard), rel=1e-5)
    assert callback.removals
    np.testing.assert_array_equal(distiller.teacher(X), expected)
    assert not distiller.teacher.trainable_variables
    names = [layer.name for layer in distiller.teacher.layers]
    assert names == ["hidden", "out"]  # no penalty
    assert distiller.teacher.get_layer("hidden").units == 16


def test_a_saved_distiller_keeps_the_teacher_that_the_student_was(tmp_path):
    distiller = kddp.Distiller("self", kddp.prepare(network(3), l1=0.5))
    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)
    train(distiller, X, Y, pruning())
    assert distiller.get_config()["teacher"]["class_name"] == "Sequential"
    distiller.save(tmp_path / "distiller.keras")

    loaded = keras.models.load_model(tmp_path / "distiller.keras")

    for role in ("teacher", "student"):
        one, other = (getattr(x, role)(X) for x in (distiller, loaded))
        np.testing.assert_array_equal(one, other)


def test_a_student_gives_itself_hints():
    losses = [kddp.SoftTargets(2.0), kddp.FeatureHints("hidden", "hidden")]
    distiller = kddp.Distiller("self", kddp.prepare(network(3)), losses)
    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)
    train(distiller, X, Y, pruning())
    assert distiller.student.get_layer("hidden").units < 16


def test_a_student_that_teaches_itself_may_be_what_a_budget_counts_from():
    budget = kddp.Budget(max_accuracy_drop=0.9, reference="teacher")
    start = known_student()
    distiller = kddp.Distiller("self", start)
    distiller.compile(
        "sgd", CROSSENTROPY, metrics=["accuracy"], run_eagerly=True
    )
    x, y = RNG.normal(size=(8, 2)).astype("float32"), np.arange(8) % 2
    callback = pruning(budget=budget)
    train(distiller, x, y, callback, validation_data=(x, y))
    assert callback.removals


def test_layers_that_the_user_froze_stay_frozen_and_are_copied():
    model = make_student()
    model.get_layer("logits").trainable = False
    distiller = kddp.Distiller("self", model)
    assert distiller.trainable_variables == []
    assert len(distiller.teacher.weights) == len(make_teacher().weights)
