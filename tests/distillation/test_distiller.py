"""Our Distiller beside the stock one, and what it promises by itself."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import to_numpy, variable_values

from keras_kddp import Distiller, SoftTargets, finalize, plan_removal, prepare

Stock = keras.distillation.Distiller
LogitsDistillation = keras.distillation.LogitsDistillation
FeatureDistillation = keras.distillation.FeatureDistillation

# Two examples whose inputs are also the logits of a student that hands them
# on, and the logits of the teacher for them.
X = np.array([[1.0, 0.0], [0.0, 2.0]], dtype="float32")
TEACHER_LOGITS = np.array([[0.0, 3.0], [4.0, 0.0]])
Y = np.array([0, 0])
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

MENDED = "Keras has mended the stock Distiller here: this fix can go."


def linear(kernel, *layers, **arguments):
    """Returns a model that multiplies by a kernel."""
    kernel = np.array(kernel, dtype="float64")
    dense = keras.layers.Dense(
        kernel.shape[1], use_bias=False, name="logits", **arguments
    )
    model = keras.Sequential([keras.Input(kernel.shape[:1]), dense, *layers])
    dense.kernel.assign(kernel)
    return model


def make_teacher(*layers, **arguments):
    """Returns a model that gives `TEACHER_LOGITS` for `X`."""
    return linear([[0.0, 3.0], [2.0, 0.0]], *layers, **arguments)


def make_student(*layers, **arguments):
    """Returns a model that hands its inputs on as logits."""
    return linear(np.eye(2), *layers, **arguments)


def softmax(logits):
    powers = np.exp(logits, dtype="float64")
    return powers / powers.sum(axis=-1, keepdims=True)


def soft_losses(temperature):
    """Returns T^2 KL(teacher || student) of both examples."""
    p = softmax(TEACHER_LOGITS / temperature)
    q = softmax(X / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(axis=-1)


def hard_losses():
    """Returns the crossentropy of both examples."""
    return -np.log(softmax(X)[[0, 1], Y])


def compiled(distiller, optimizer=None, **arguments):
    """Compiles a Distiller to run without tracing."""
    arguments = {"loss": CROSSENTROPY, "run_eagerly": True, **arguments}
    distiller.compile(optimizer or keras.optimizers.SGD(0.5), **arguments)
    return distiller


def training_loss(distiller, y=Y, sample_weight=None):
    """Returns the loss of a training step on `X`."""
    loss = distiller.compute_loss(
        X, y, sample_weight=sample_weight, training=True
    )
    return float(loss)


def trained_kernel(distiller, **arguments):
    """Returns the student's first kernel after a step on `X`."""
    distiller.fit(X, Y, verbose=0, **arguments)
    return to_numpy(distiller.student.layers[0].kernel)


def stock(teacher, student, **arguments):
    """Returns the stock Distiller with a loss that is right by itself."""
    loss = LogitsDistillation(4.0, keras.losses.KLDivergence())
    return compiled(Stock(teacher, student, loss, **arguments))


def ours(teacher, student, **arguments):
    return compiled(Distiller(teacher, student, **arguments))


# The defects of the stock Distiller.


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


def test_a_logits_distillation_with_a_loss_of_its_own_is_left_alone():
    losses = LogitsDistillation(2.0, "mse")
    distiller = Distiller(
        make_teacher(), make_student(), losses, student_loss_weight=0.0
    )

    loss = training_loss(compiled(distiller, loss=None))

    differences = (TEACHER_LOGITS / 2 - X / 2) ** 2
    assert loss == pytest.approx(differences.mean())


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
    assert loss.dtype == "float32"
    assert float(loss) == pytest.approx(64 * 1500, rel=0.1)


def ending(activation):
    return [] if activation is None else [keras.layers.Activation(activation)]


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


def with_normalization(name):
    """Returns a model with BatchNormalization, and Dropout behind it."""
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, name=f"{name}_dense"),
            keras.layers.BatchNormalization(name=f"{name}_norm"),
            keras.layers.ReLU(name=f"{name}_relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
    )


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


# What the loss is made of.


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
    assert loss.dtype == "float64"
    # Keras computes the hard loss in its default float32.
    precision = 1e-6 if share else 1e-12
    assert float(loss) == pytest.approx(expected, rel=precision)


def test_a_single_step_follows_the_gradient():
    distiller = ours(make_teacher(), make_student(), student_loss_weight=0)

    kernel = trained_kernel(distiller)

    # dL/dz = T (q - p) / batch, and z = x @ kernel; the rate is 0.5.
    p, q = softmax(TEACHER_LOGITS / 4), softmax(X / 4)
    gradient = X.T @ (4 * (q - p) / 2)
    np.testing.assert_allclose(kernel, np.eye(2) - 0.5 * gradient, rtol=1e-5)


# Whose outputs, metrics and states are whose.


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


# What fit takes.


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X, Y


FITS = {
    "tensors": lambda: {"x": tf.constant(X), "y": tf.constant(Y)},
    "lists of one array": lambda: {"x": X, "y": [Y]},
    "a column of labels": lambda: {"x": X, "y": Y[:, None]},
    "a dataset": lambda: {
        "x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    },
    "a weighted dataset": lambda: {
        "x": tf.data.Dataset.from_tensor_slices((X, Y, np.ones(2))).batch(2)
    },
    "a PyDataset": lambda: {"x": Batches()},
    "a generator": lambda: {
        "x": ((X, Y) for _ in range(1)),
        "steps_per_epoch": 1,
    },
    "validation data": lambda: {"x": X, "y": Y, "validation_data": (X, Y)},
    "weighted validation data": lambda: {
        "x": X,
        "y": Y,
        "validation_data": (X, Y, np.ones(2)),
    },
    "steps per epoch": lambda: {"x": X, "y": Y, "steps_per_epoch": 1},
    "a column of weights": lambda: {
        "x": X,
        "y": Y,
        "sample_weight": np.ones((2, 1)),
    },
}


@pytest.mark.parametrize("kind", FITS)
def test_fit_takes_what_keras_takes(kind):
    expected = trained_kernel(ours(make_teacher(), make_student()))
    distiller = ours(make_teacher(), make_student())

    distiller.fit(verbose=0, shuffle=False, **FITS[kind]())

    kernel = distiller.student.layers[0].kernel
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)


def test_one_hot_labels_train_like_numbers():
    expected = trained_kernel(ours(make_teacher(), make_student()))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    distiller = Distiller(make_teacher(), make_student())

    compiled(distiller, loss=loss).fit(X, np.eye(2)[Y], verbose=0)

    kernel = distiller.student.layers[0].kernel
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)


def test_inputs_may_come_in_a_dict():
    def two_inputs():
        inputs = {name: keras.Input((1,), name=name) for name in ("a", "b")}
        hidden = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
        return keras.Model(inputs, keras.layers.Dense(2)(hidden))

    distiller = ours(two_inputs(), two_inputs())

    history = distiller.fit(
        {"a": X[:, :1], "b": X[:, 1:]}, Y, epochs=5, verbose=0
    )

    losses = history.history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("weight_shape", [None, (2, 1), (2, 1, 1)])
def test_outputs_may_have_positions(weight_shape):
    weight = None if weight_shape is None else np.ones(weight_shape)

    def with_positions(kernel):
        return linear(kernel, keras.layers.Reshape((1, 2)))

    distiller = ours(
        with_positions([[0.0, 3.0], [2.0, 0.0]]), with_positions(np.eye(2))
    )

    loss = training_loss(distiller, y=Y[:, None], sample_weight=weight)

    expected = 0.1 * hard_losses().mean() + 0.9 * soft_losses(4.0).mean()
    assert loss == pytest.approx(expected)


def test_fit_shows_callbacks_the_training_rows_only():
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(self.model.fit_inputs)

    distiller = ours(make_teacher(), make_student())
    rows = np.arange(20.0).reshape(10, 2)
    distiller.fit(
        rows,
        [0] * 10 * np.ones(1),
        validation_split=0.3,
        verbose=0,
        callbacks=[Spy()],
    )
    distiller.fit(Batches(), verbose=0, callbacks=Spy())

    np.testing.assert_array_equal(seen[0], rows[:7])
    assert seen[1] is None
    assert distiller.fit_inputs is None


def test_a_second_fit_goes_on_where_the_first_stopped():
    def kernel(*epochs):
        adam = keras.optimizers.Adam(0.1)
        distiller = compiled(Distiller(make_teacher(), make_student()), adam)
        for count in epochs:
            distiller.fit(X, Y, epochs=count, shuffle=False, verbose=0)
        return to_numpy(distiller.student.layers[0].kernel)

    np.testing.assert_array_equal(kernel(2, 3), kernel(5))


def test_a_subclassed_student_can_be_distilled():
    class Subclassed(keras.Model):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.dense = keras.layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    distiller = ours(make_teacher(), Subclassed())

    losses = distiller.fit(X, Y, epochs=5, verbose=0).history["loss"]

    assert losses[-1] < losses[0]


# Saving.


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


# Features.


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


# What is refused, and what it says.


def models(*shapes):
    """Returns a model with inputs of shape (2,) and some outputs."""
    inputs = keras.Input((2,))
    outputs = [
        keras.layers.Reshape(shape)(
            keras.layers.Dense(math.prod(shape))(inputs)
        )
        for shape in shapes
    ]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0])


@pytest.mark.parametrize(
    ("role", "thing"),
    [
        ("teacher", "model.keras"),
        ("teacher", keras.Model),
        ("student", "model.keras"),
        ("student", keras.Model),
        ("student", None),
    ],
)
def test_what_is_no_model_is_refused(role, thing):
    arguments = {"teacher": make_teacher(), "student": make_student()}

    with pytest.raises(ValueError, match=f"`{role}` must be a keras.Model"):
        Distiller(**{**arguments, role: thing})


@pytest.mark.parametrize(
    ("teacher", "student"), [((2,), (3,)), ((2,), (1, 2)), ((4, 2), (3, 2))]
)
def test_outputs_of_different_shapes_are_refused(teacher, student):
    message = r"The outputs of teacher and student .*student's last layer"
    with pytest.raises(ValueError, match=message):
        Distiller(models(teacher), models(student))


def test_inputs_of_different_shapes_are_refused():
    message = r"The inputs .* teacher \[\(None, 3\)\], student \[\(None, 2\)\]"
    with pytest.raises(ValueError, match=message):
        Distiller(linear(np.ones((3, 2))), make_student())


def test_outputs_that_are_known_only_in_training_are_compared_then():
    class Subclassed(keras.Model):
        def __init__(self, classes):
            super().__init__()
            self.dense = keras.layers.Dense(classes)

        def call(self, inputs):
            return self.dense(inputs)

    for classes in (1, 3):  # one class would be broadcast
        student = Subclassed(classes)
        distiller = Distiller(make_teacher(), student, student_loss_weight=0)
        with pytest.raises(ValueError, match="must have the same shapes"):
            compiled(distiller, loss=None).fit(X, verbose=0)


@pytest.mark.parametrize(
    "teacher",
    [
        models((2,), (2,)),
        keras.Model(*(lambda m: (m.input, {"out": m.output}))(models((2,)))),
    ],
    ids=["two outputs", "a dict"],
)
def test_outputs_in_another_structure_are_refused(teacher):
    with pytest.raises(ValueError, match="must have the same shapes|structure"):
        Distiller(teacher, make_student())


def test_a_student_that_shares_trainable_weights_is_refused():
    teacher = make_teacher()
    student = keras.Sequential([keras.Input((2,)), *teacher.layers])

    with pytest.raises(ValueError, match="must not share trainable weights"):
        Distiller(teacher, student)
    with pytest.raises(ValueError, match="must not share trainable weights"):
        Distiller(teacher, teacher)

    teacher.trainable = False
    Distiller(teacher, student)


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
def test_weights_that_are_not_one_number_a_loss_are_refused(weights):
    message = r"must have one number >= 0 a loss \(1\)"
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


def test_a_plan_for_another_model_is_refused():
    student = with_normalization("student")
    distiller = Distiller(make_teacher(), student)
    plan = plan_removal(finalize(student), {"student_dense": [0]})

    with pytest.raises(ValueError, match="Received one for another model"):
        distiller.replace_student(plan)

    assert distiller.student is student


def test_inputs_in_another_order_are_refused():
    def made(order):
        inputs = {name: keras.Input((2,), name=name) for name in "ab"}
        x = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
        outputs = keras.layers.Dense(2)(x)
        return keras.Model([inputs[name] for name in order], outputs)

    with pytest.raises(ValueError, match="in the same order"):
        Distiller(made("ba"), made("ab"))


@pytest.mark.parametrize("plan", [None, "plan"])
def test_a_plan_that_is_none_is_refused(plan):
    distiller = Distiller(make_teacher(), make_student())
    with pytest.raises(ValueError, match="what `keras_kddp.plan_removal`"):
        distiller.replace_student(plan)


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


def test_a_validation_split_needs_no_labels():
    distiller = compiled(
        Distiller(make_teacher(), make_student(), student_loss_weight=0)
    )

    history = distiller.fit(
        np.tile(X, (4, 1)), validation_split=0.25, verbose=0
    )

    assert "val_loss" in history.history


def test_a_snapshot_of_an_unbuilt_optimizer_restores_its_first_state():
    distiller = compiled(Distiller(make_teacher(), make_student()), "adam")
    snapshot = distiller.snapshot()
    distiller.fit(X, Y, verbose=0)

    distiller.restore(snapshot)

    assert all(not to_numpy(v).any() for v in distiller.optimizer.variables[2:])


def test_a_snapshot_from_before_compile_is_refused_after_it():
    distiller = Distiller(make_teacher(), make_student())
    snapshot = distiller.snapshot()
    distiller.restore(snapshot)
    compiled(distiller)

    with pytest.raises(ValueError, match="one taken before `compile`"):
        distiller.restore(snapshot)
