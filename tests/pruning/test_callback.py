"""Dynamic pruning inside `fit`, on students whose activity is known by hand."""

import contextlib
import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import to_numpy, variable_values

from keras_kddp import Distiller, DynamicPruning, finalize, prepare
from keras_kddp.layers.penalized_models import (
    penalty_layers,
    set_penalty_strength,
)

X = np.array([[1.0, 2.0], [3.0, 1.0], [2.0, 2.0], [4.0, 1.0]], "float32")
Y = np.array([0, 1, 0, 1])
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# Unit 0 hands the first input on, unit 1 the second; unit 2 is dead, and unit
# 3 sends a thousandth of what unit 0 sends.
KERNEL = np.array([[1.0, 0.0, 0.0, 0.001], [0.0, 1.0, 0.0, 0.0]])
BIAS = np.array([0.0, 0.0, -1.0, 0.0])
PARAMETERS = {4: (2 * 4 + 4) + (4 * 2 + 2), 2: (2 * 2 + 2) + (2 * 2 + 2)}
# What the student is worth before and after units 2 and 3 have gone.


def make_student():
    """Returns a prepared student with a hidden layer `fc` of four units."""
    student = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(4, "relu", name="fc"),
            keras.layers.Dense(2, name="out", kernel_initializer="ones"),
        ]
    )
    student.get_layer("fc").set_weights([KERNEL, BIAS])
    return prepare(student)


def make_distiller(student=None, rate=0.0, optimizer=None, **arguments):
    """Returns a compiled Distiller; at rate 0 its weights stand still."""
    teacher = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    distiller = Distiller(teacher, student or make_student(), **arguments)
    distiller.compile(
        optimizer or keras.optimizers.SGD(rate),
        CROSSENTROPY,
        run_eagerly=True,
    )
    return distiller


def pruning(**arguments):
    """Returns a callback whose run is warm-up, ramp, hold, fine-tuning."""
    phases = {"warmup_epochs": 1, "ramp_epochs": 1, "finetune_epochs": 1}
    return DynamicPruning(**{**phases, **arguments})


def fit(distiller, *callbacks, epochs=4, **arguments):
    """Trains on four rows and returns what History holds."""
    arguments = {"x": X, "y": Y, "verbose": 0, **arguments}
    history = distiller.fit(
        epochs=epochs, callbacks=list(callbacks), **arguments
    )
    return history.history


# What a run does.


def test_inactive_units_leave_and_the_history_tells_of_it():
    distiller = make_distiller()
    callback = pruning()

    history = fit(distiller, callback)

    # Observed at the end of the second epoch, gone with the third.
    assert history["penalty_strength"] == [0.0, 1.0, 1.0, 0.0]
    assert history["units"] == [4, 4, 2, 2]
    assert history["live_units"] == [3, 3, 2, 2]
    assert history["parameters"] == [PARAMETERS[n] for n in (4, 4, 2, 2)]
    (removal,) = callback.removals
    assert removal[:5] == (
        *(2, {"fc": 4}, {"fc": 2}),
        *(PARAMETERS[4], PARAMETERS[2]),
    )
    assert [(c.unit, c.kind) for c in removal.certificates] == [
        (2, "observed dead"),
        (3, "negligible"),
    ]
    fc = distiller.student.get_layer("fc")
    np.testing.assert_array_equal(fc.kernel, np.float32(KERNEL[:, :2]))


def test_only_units_that_never_fired_leave_by_the_papers_criterion():
    distiller = make_distiller()
    before = to_numpy(distiller.student(X))

    history = fit(distiller, pruning(criterion="never_active"))

    assert history["units"] == [4, 4, 3, 3]
    # A product of another width may add up in another order.
    np.testing.assert_allclose(distiller.student(X), before, rtol=1e-6)


@pytest.mark.parametrize(
    ("threshold", "units"), [(0.0, 3), (0.0001, 3), (0.01, 2), (0.9, 1)]
)
def test_units_at_or_below_the_threshold_leave(threshold, units):
    distiller = make_distiller()

    history = fit(distiller, pruning(threshold=threshold))

    assert history["units"][-1] == units


def test_a_function_of_ones_own_may_score_the_units():
    def only_the_largest(activity, outgoing_norm):
        norm = np.sqrt(1**2 + 1**2)  # two ones read each unit
        np.testing.assert_allclose(outgoing_norm, norm, rtol=1e-6)
        return np.where(activity.mean == activity.mean.max(), 0.0, 1.0)

    distiller = make_distiller()

    history = fit(distiller, pruning(criterion=only_the_largest))

    assert history["units"] == [4, 4, 3, 2]
    fc = distiller.student.get_layer("fc")
    np.testing.assert_array_equal(fc.bias, BIAS[[2, 3]])


def test_pruning_while_training_keeps_what_was_learned():
    random = np.random.default_rng(0)
    x = random.normal(size=(128, 6)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    student = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(24, "relu", name="fc"),
            keras.layers.Dense(2),
        ]
    )
    distiller = Distiller(
        teacher, prepare(student, l1=0.1), student_loss_weight=1.0
    )
    distiller.compile(
        keras.optimizers.Adam(0.02), CROSSENTROPY, metrics=["accuracy"]
    )

    callback = DynamicPruning(minimum_change=0.2)
    history = distiller.fit(
        x, y, batch_size=8, epochs=12, callbacks=[callback], verbose=0
    ).history

    assert history["accuracy"][-1] > 0.9 > history["accuracy"][0]
    units = history["units"]
    assert units == sorted(units, reverse=True) and units[-1] <= 24 * 2 / 3
    compact = finalize(distiller.student)
    assert compact.get_layer("fc").units == units[-1]
    assert compact.count_params() == history["parameters"][-1]


def test_units_that_are_tied_leave_together():
    pixels = keras.Input((2,))
    left = keras.layers.Dense(4, "relu", name="left")(pixels)
    right = keras.layers.Dense(4, name="right", kernel_initializer="zeros")
    hidden = keras.layers.Add()([left, right(pixels)])
    student = keras.Model(pixels, keras.layers.Dense(2)(hidden))
    student.get_layer("left").set_weights([KERNEL, BIAS])
    distiller = make_distiller(prepare(student))

    history = fit(distiller, pruning(criterion="never_active"))

    assert history["units"] == [2 * 4, 2 * 4, 2 * 3, 2 * 3]
    units = [distiller.student.get_layer(x).units for x in ("left", "right")]
    assert units == [3, 3]


def test_tied_units_stay_where_one_of_them_is_active():
    pixels = keras.Input((2,))
    first = keras.layers.Dense(4, "relu", name="first")(pixels)
    second = keras.layers.Dense(4, name="second", kernel_initializer="zeros")
    hidden = keras.layers.Add()([first, second(first)])
    hidden = keras.layers.ReLU()(hidden)
    student = keras.Model(pixels, keras.layers.Dense(2)(hidden))
    student.get_layer("first").set_weights([KERNEL, BIAS])
    # Behind the sum unit 1 is dead, as unit 2 is everywhere.
    student.get_layer("second").bias.assign([0.0, -100.0, 0.0, 0.0])
    distiller = make_distiller(prepare(student))

    history = fit(distiller, pruning(criterion="never_active"))

    assert history["units"] == [2 * 4, 2 * 4, 2 * 3, 2 * 3]
    bias = distiller.student.get_layer("second").bias
    np.testing.assert_array_equal(bias, [0.0, -100.0, 0.0])


def test_layers_that_a_feature_loss_matches_are_left_alone():
    student = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(4, "relu", name="matched"),
            keras.layers.Dense(4, "relu", name="free"),
            keras.layers.Dense(2),
        ]
    )
    student.get_layer("matched").set_weights([KERNEL, BIAS])
    teacher = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(4, "relu", name="hidden"),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.distillation.FeatureDistillation("mse", "hidden", "matched")
    distiller = Distiller(teacher, prepare(student), loss)
    distiller.compile(keras.optimizers.SGD(0.0), CROSSENTROPY)
    distiller.run_eagerly = True

    fit(distiller, pruning(threshold=0.9))

    units = [distiller.student.get_layer(x).units for x in ("matched", "free")]
    assert units[0] == 4 and units[1] < 4


class Spy(keras.callbacks.Callback):
    """Notes the student's units and the strength, as other callbacks see."""

    def __init__(self):
        super().__init__()
        self.units, self.logged, self.strengths = [], [], []

    def on_epoch_end(self, epoch, logs=None):
        (penalty,) = penalty_layers(self.model.student)
        self.strengths.append(float(penalty.strength))
        self.units.append(self.model.student.get_layer("fc").units)
        self.logged.append(logs["units"])


def test_other_callbacks_see_the_student_that_the_logs_describe():
    first, last = Spy(), Spy()

    history = fit(make_distiller(), first, pruning(), last)

    for spy in (first, last):
        assert spy.units == spy.logged == history["units"]
        assert spy.strengths == history["penalty_strength"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_logger_has_the_columns_wherever_it_is_listed(tmp_path, order):
    path = tmp_path / "log.csv"
    callbacks = [keras.callbacks.CSVLogger(path), pruning()][::order]

    history = fit(make_distiller(), *callbacks)

    with path.open() as file:
        rows = list(csv.DictReader(file))
    for name in ("units", "live_units", "parameters", "penalty_strength"):
        assert [float(row[name]) for row in rows] == history[name]


class Changing:
    """A criterion that finds another unit inactive at every call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, activity, outgoing_norm):
        self.calls += 1
        scores = np.ones(len(activity.mean))
        scores[0] = 0.0
        return scores


def test_units_leave_only_between_the_first_ramp_and_the_last_hold_epoch():
    callback = pruning(
        criterion=Changing(), warmup_epochs=2, ramp_epochs=1, finetune_epochs=2
    )

    history = fit(make_distiller(), callback, epochs=6)

    # Strengths 0, 0, 1, 1, 0, 0: observed to leave after epochs 2 and 3.
    assert history["units"] == [4, 4, 4, 3, 2, 2]
    assert [removal.epoch for removal in callback.removals] == [3, 4]


def test_nothing_leaves_after_the_last_epoch():
    distiller = make_distiller()
    callback = pruning(
        criterion=Changing(), warmup_epochs=0, ramp_epochs=0, finetune_epochs=0
    )

    history = fit(distiller, callback, epochs=2)

    assert history["units"] == [4, 3]
    assert distiller.student.get_layer("fc").units == 3


@pytest.mark.parametrize("minimum", [1, 2, 3, 4])
def test_the_minimum_of_units_stays_the_most_active_first(minimum):
    def scores_of(activity, outgoing_norm):
        return activity.mean / 100

    distiller = make_distiller()
    callback = pruning(
        criterion=scores_of, threshold=0.9, minimum_units=minimum
    )

    history = fit(distiller, callback)

    assert history["units"][-1] == minimum
    # Mean activities: 10 / 4, 6 / 4, 0 and 0.01 / 4.
    kept = [0, 1, 3, 2][:minimum]
    np.testing.assert_array_equal(
        distiller.student.get_layer("fc").bias, BIAS[sorted(kept)]
    )


@pytest.mark.parametrize(
    ("share", "units"), [(0.3, [4, 3, 3, 3]), (0.4, [4, 4, 4, 3])]
)
def test_a_small_removal_waits_for_the_last(share, units):
    # One of three live units is a third of them.
    callback = pruning(
        criterion="never_active",
        warmup_epochs=0,
        ramp_epochs=0,
        minimum_change=share,
    )

    assert fit(make_distiller(), callback)["units"] == units


def test_a_verbose_run_prints_a_line_a_removal(capsys):
    fit(make_distiller(), pruning(verbose=1))

    printed = capsys.readouterr().out.split("\n")
    assert [line for line in printed if line] == [
        f"Epoch 3: removed units (fc 4 -> 2), parameters {PARAMETERS[4]} -> "
        f"{PARAMETERS[2]}; 1 observed dead (fire on < 75.00% of examples, 95 % "
        "confidence), 1 negligible (contribute <= 0.10% of the largest)"
    ]


def test_a_run_is_silent_by_default(capsys):
    fit(make_distiller(), pruning())

    assert capsys.readouterr().out == ""


def test_a_run_may_be_started_in_the_middle():
    history = fit(make_distiller(), pruning(), initial_epoch=2)

    assert history["penalty_strength"] == [1.0, 0.0]
    assert history["units"] == [4, 2]


def test_the_defaults_fit_the_shortest_run():
    history = fit(make_distiller(), DynamicPruning(), epochs=2)

    assert history["penalty_strength"] == [1.0, 0.0]
    assert history["units"] == [4, 2]


def test_a_callback_and_a_distiller_can_be_used_again():
    distiller, callback = make_distiller(), pruning(criterion=Changing())

    first = fit(distiller, callback)
    second = fit(distiller, callback)

    assert first["units"] == [4, 4, 3, 2]
    assert second["units"] == [2, 2, 1, 1]
    assert [removal.epoch for removal in callback.removals] == [2]


def test_a_run_that_is_stopped_early_keeps_the_student_of_its_last_epoch():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    distiller, callback = make_distiller(), pruning()
    history = fit(distiller, callback, Stop())
    assert history["units"] == [4, 4]
    assert distiller.student.get_layer("fc").units == 4

    assert fit(distiller, callback)["units"] == [4, 4, 2, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: keras.callbacks.EarlyStopping("loss", patience=9),
        lambda path: keras.callbacks.ModelCheckpoint(path / "{epoch}.keras"),
        lambda path: keras.callbacks.ReduceLROnPlateau("loss"),
        lambda path: keras.callbacks.LearningRateScheduler(lambda epoch: 0.0),
        lambda path: keras.callbacks.TerminateOnNaN(),
    ],
    ids=["early", "checkpoint", "plateau", "schedule", "nan"],
)
def test_it_gets_along_with_other_callbacks(tmp_path, make):
    history = fit(make_distiller(), pruning(), make(tmp_path))

    assert history["units"] == [4, 4, 2, 2]
    for path in tmp_path.glob("*.keras"):
        saved = keras.models.load_model(path).student
        units = history["units"][int(path.stem) - 1]
        assert saved.get_layer("fc").units == units


# What is observed.


class Observing:
    """A criterion that keeps every unit and notes what it was shown."""

    def __init__(self):
        self.seen = []

    def __call__(self, activity, outgoing_norm):
        self.seen.append(activity)
        return np.ones(len(activity.mean))


def observed(epochs=4, data=None, samples=4096, **arguments):
    """Returns the statistics that a run was decided on."""
    criterion = Observing()
    callback = pruning(criterion=criterion, data=data, samples=samples)
    fit(make_distiller(), callback, epochs=epochs, **arguments)
    return criterion.seen


ROWS = np.arange(20, dtype="float32").reshape(10, 2)
LABELS = np.arange(10) % 2


@pytest.mark.parametrize(
    ("samples", "rows"),
    [(4096, range(10)), (10, range(10)), (4, [0, 3, 6, 9]), (1, [0])],
)
def test_evenly_spaced_rows_of_the_training_data_are_observed(samples, rows):
    for seen in observed(x=ROWS, y=LABELS, samples=samples):
        assert seen.count == len(rows)
        assert seen.mean[:2].tolist() == ROWS[list(rows)].mean(axis=0).tolist()


def test_rows_that_are_set_aside_for_validation_are_not_observed():
    for seen in observed(x=ROWS, y=LABELS, validation_split=0.3):
        assert seen.count == 7
        assert seen.maximum[:2].tolist() == ROWS[6].tolist()


def test_validation_data_are_not_observed():
    seen, *_ = observed(validation_data=(1000 * X, Y))

    assert seen.maximum[:2].tolist() == X.max(axis=0).tolist()


def test_data_of_ones_own_are_observed_instead():
    for seen in observed(data=ROWS, samples=2):
        assert seen.count == 2
        assert seen.maximum[:2].tolist() == ROWS[9].tolist()


def test_a_dataset_of_ones_own_is_observed_up_to_the_samples():
    rows = tf.data.Dataset.from_tensor_slices((ROWS, LABELS)).batch(3)

    for seen in observed(data=rows, samples=4):
        assert seen.count == 3 + 3


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "generator"])
def test_the_dataset_given_to_fit_is_never_read_by_the_callback(kind):
    reads = []

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            reads.append(index)
            return X, Y

    def rows():
        for _ in range(4 if kind == "generator" else 1):
            reads.append(0)
            yield X, Y

    def training_data():
        reads.clear()
        if kind == "tf.data":
            specs = (
                tf.TensorSpec((4, 2), tf.float32),
                tf.TensorSpec((4,), tf.int64),
            )
            x = tf.data.Dataset.from_generator(rows, output_signature=specs)
            x = x.apply(tf.data.experimental.assert_cardinality(1))
        else:
            x = Batches() if kind == "PyDataset" else rows()
        steps = {"steps_per_epoch": 1} if kind == "generator" else {}
        return {"x": x, "y": None, "shuffle": False, **steps}

    fit(make_distiller(), **training_data())
    expected = len(reads)

    history = fit(make_distiller(), pruning(data=X), **training_data())

    assert len(reads) == expected
    assert history["units"] == [4, 4, 2, 2]


TRAINING = {
    "tensors": lambda: {"x": tf.constant(X), "y": tf.constant(Y)},
    "validation data": lambda: {"validation_data": (X, Y)},
    "sample weights": lambda: {"sample_weight": np.array([1.0, 0, 2, 0])},
    "class weights": lambda: {"class_weight": {0: 1.0, 1: 0.0}},
    "steps per epoch": lambda: {"steps_per_epoch": 2, "batch_size": 2},
    "integers": lambda: {"x": X.astype("int64")},
    "float64": lambda: {"x": X.astype("float64")},
}


@pytest.mark.parametrize("kind", TRAINING)
def test_a_run_takes_what_keras_takes(kind):
    history = fit(make_distiller(), pruning(), **TRAINING[kind]())

    assert history["units"] == [4, 4, 2, 2]


def test_a_student_with_inputs_in_a_dict_is_pruned():
    def model(units):
        inputs = {name: keras.Input((2,), name=name) for name in ("a", "b")}
        hidden = [
            keras.layers.Dense(units, "relu", name=f"{name}_fc")(x)
            for name, x in inputs.items()
        ]
        outputs = [keras.layers.Dense(2)(x) for x in hidden]
        return keras.Model(inputs, keras.layers.Add()(outputs))

    student = model(4)
    student.get_layer("a_fc").set_weights([KERNEL, BIAS])
    student.get_layer("b_fc").set_weights([KERNEL, BIAS])
    distiller = Distiller(model(3), prepare(student))
    distiller.compile(keras.optimizers.SGD(0.0), CROSSENTROPY)
    distiller.run_eagerly = True

    history = fit(
        distiller, pruning(criterion="never_active"), x={"a": X, "b": X}
    )

    assert history["units"] == [4 + 4, 4 + 4, 3 + 3, 3 + 3]


def test_a_run_without_labels_is_pruned():
    distiller = make_distiller(student_loss_weight=0)

    assert fit(distiller, pruning(), y=None)["units"] == [4, 4, 2, 2]


# When the loss is lost.


class Poison(keras.callbacks.Callback):
    """Makes the student's weights NaN in one epoch, and notes them before."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.before = variable_values(self.model.student)
            self.student = self.model.student
            bias = self.model.student.get_layer("out").bias
            bias.assign(np.full(2, np.nan))


@pytest.mark.parametrize(
    ("epoch", "use_ema"),
    [(0, False), (0, True), (2, False), (2, True), (3, False)],
)
def test_a_lost_loss_stops_the_run_with_the_last_good_student(epoch, use_ema):
    optimizer = keras.optimizers.Adam(0.001, use_ema=use_ema, ema_momentum=0.0)
    distiller = make_distiller(optimizer=optimizer)
    poison = Poison(epoch)

    with pytest.warns(UserWarning, match=f"in epoch {epoch + 1}: training st"):
        history = fit(distiller, pruning(), poison)

    assert len(history["loss"]) == epoch + 1
    assert history["units"] == [4, 4, 2, 2][: epoch + 1]
    assert distiller.student is poison.student
    if not use_ema:  # else Keras ends with the moving average
        for now, then in zip(
            variable_values(distiller.student), poison.before, strict=True
        ):
            np.testing.assert_array_equal(now, then)
    assert np.isfinite(to_numpy(distiller.student(X))).all()
    assert np.isfinite(fit(distiller)["loss"]).all()


def test_a_weight_that_is_lost_after_the_last_step_is_noticed():
    class PoisonAtTheEnd(keras.callbacks.Callback):
        runs_first = True

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                bias = self.model.student.get_layer("out").bias
                bias.assign(np.full(2, np.inf))

    distiller = make_distiller()

    with pytest.warns(UserWarning, match="in epoch 2: training stops"):
        history = fit(distiller, PoisonAtTheEnd(), pruning())

    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(to_numpy(distiller.student(X))).all()


# What is refused, before anything is changed.


@contextlib.contextmanager
def refused(distiller, message):
    """Checks that a fit raises and leaves both models as they were."""
    set_penalty_strength(distiller.student, 0.5)
    student, teacher = distiller.student, distiller.teacher
    before = variable_values(student) + variable_values(teacher)

    with pytest.raises(ValueError, match=message):
        yield

    assert distiller.student is student and distiller.teacher is teacher
    after = variable_values(student) + variable_values(teacher)
    for now, then in zip(after, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_outputs_that_differ_in_shape_are_refused():
    teacher = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    student = make_student()
    before = variable_values(student) + variable_values(teacher)

    with pytest.raises(ValueError, match="outputs of teacher and student must"):
        Distiller(teacher, student)

    after = variable_values(student) + variable_values(teacher)
    for now, then in zip(after, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_student_that_is_not_prepared_is_refused():
    distiller = make_distiller(finalize(make_student()), rate=0.5)

    with refused(distiller, r"Call `student = keras_kddp.prepare\(student\)`"):
        fit(distiller, pruning())


def test_a_student_without_removable_units_is_refused():
    student = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    distiller = make_distiller(student, rate=0.5)

    with refused(distiller, "must have a penalized layer whose units can be"):
        fit(distiller, pruning())


def test_a_student_whose_only_layer_is_pinned_is_refused():
    teacher = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(4, name="hidden"),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.distillation.FeatureDistillation("mse", "hidden", "fc")
    distiller = Distiller(teacher, make_student(), loss)
    distiller.compile("sgd", CROSSENTROPY)

    with refused(distiller, "must have a penalized layer whose units can be"):
        fit(distiller, pruning())


def test_a_subclassed_student_is_refused():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    student = Subclassed()
    student(X)
    distiller = make_distiller(student, rate=0.5)

    with refused(distiller, "the subclassed model Subclassed: write it as a"):
        fit(distiller, pruning())


def test_the_fit_of_a_plain_model_is_refused():
    model = finalize(make_student())
    model.compile("sgd", CROSSENTROPY)
    before = variable_values(model)

    with pytest.raises(ValueError, match="Received: the fit of a Sequential"):
        model.fit(X, Y, callbacks=[pruning()], verbose=0)

    for now, then in zip(variable_values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_schedule_longer_than_the_run_is_refused(epochs):
    distiller = make_distiller(rate=0.5)

    with refused(distiller, "The schedule must not be longer than the run"):
        fit(distiller, pruning(), epochs=epochs)


def test_a_run_of_one_epoch_is_refused():
    distiller = make_distiller(rate=0.5)

    with refused(distiller, "at least one epoch with a penalty, and one after"):
        fit(distiller, DynamicPruning(), epochs=1)


UNREADABLE = {
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(4),
    "generator": lambda: ((X, Y) for _ in range(4)),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_dataset_without_data_to_observe_is_refused(kind):
    distiller = make_distiller(rate=0.5)

    with refused(distiller, "`data` must be given when `fit` gets a tf.data"):
        fit(distiller, pruning(), x=UNREADABLE[kind](), y=None, shuffle=False)


def test_a_pydataset_without_data_to_observe_is_refused():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return X, Y

    distiller = make_distiller(rate=0.5)

    with refused(distiller, "a PyDataset or a generator: it cannot be read"):
        fit(distiller, pruning(), x=Batches(), y=None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X[:, :1], "`data` must hold inputs of the student"),
        ((X, Y), "`data` must hold inputs of the student.*no labels"),
        (X[:0], "at least one example"),
        ((batch for batch in [X]), "can be run through again. Received: gen"),
    ],
    ids=["too narrow", "with labels", "empty", "generator"],
)
def test_data_that_cannot_be_observed_are_refused(data, message):
    distiller = make_distiller(rate=0.5)

    with refused(distiller, message):
        fit(distiller, pruning(data=data))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: keras.callbacks.EarlyStopping(
                "loss", restore_best_weights=True
            ),
            "`EarlyStopping` keeps weights.*Set restore_best_weights=False",
        ),
        (
            lambda path: keras.callbacks.BackupAndRestore(path),
            "`BackupAndRestore` keeps weights.*Leave it out",
        ),
        (
            lambda path: keras.callbacks.ModelCheckpoint(
                path / "a.weights.h5", save_weights_only=True
            ),
            "`ModelCheckpoint` keeps weights.*Set save_weights_only=False",
        ),
        (lambda path: pruning(), "Received several"),
    ],
    ids=["early", "backup", "checkpoint", "pruning"],
)
@pytest.mark.parametrize("order", [1, -1])
def test_callbacks_that_a_removal_would_break_are_refused(
    tmp_path, make, message, order
):
    distiller = make_distiller(rate=0.5)
    callbacks = [make(tmp_path), pruning()][::order]

    with refused(distiller, message):
        fit(distiller, *callbacks)


@pytest.mark.parametrize(
    "scores",
    [
        lambda units: np.ones(units + 1),
        lambda units: np.nan,
        lambda units: -1.0,
        lambda units: 5.0,
    ],
)
def test_scores_that_are_not_one_number_a_unit_are_refused(scores):
    def criterion(activity, outgoing_norm):
        return scores(len(activity.mean)) * np.ones(1)

    distiller = make_distiller()

    with pytest.raises(
        ValueError, match=r"one score in \[0, 1\] a unit, \(4,\)"
    ):
        fit(distiller, pruning(criterion=criterion))

    assert distiller.student.get_layer("fc").units == 4


def test_data_that_are_not_numbers_remove_nothing():
    distiller = make_distiller()

    with pytest.raises(ValueError, match="Look for NaN in the data that are"):
        fit(distiller, pruning(data=np.full((3, 2), np.nan)))

    assert distiller.student.get_layer("fc").units == 4


@pytest.mark.parametrize(
    "criterion", ["apoz", "Contribution", None, 0.02, ["contribution"]]
)
def test_a_criterion_that_does_not_exist_is_refused(criterion):
    message = r"one of \['contribution', .*'never_active', .*\] or a function"
    with pytest.raises(ValueError, match=message):
        DynamicPruning(criterion)


@pytest.mark.parametrize("name", ["threshold", "minimum_change"])
@pytest.mark.parametrize("value", [-0.1, 1, 1.0, float("nan"), "0.1", [0.1]])
def test_a_share_outside_of_0_to_1_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be a number in \[0"):
        DynamicPruning(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", 0),
        ("samples", 0.5),
        ("minimum_units", 0),
        ("minimum_units", True),
        ("warmup_epochs", -1),
        ("ramp_epochs", 1.5),
        ("finetune_epochs", "3"),
    ],
)
def test_a_count_that_is_none_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer >="):
        DynamicPruning(**{name: value})


def test_numbers_may_be_of_numpy():
    callback = DynamicPruning(
        threshold=np.float32(0.5), samples=np.int64(4), warmup_epochs=np.int8(0)
    )

    history = fit(make_distiller(), callback, epochs=3)

    assert history["units"][-1] < 4


def test_callbacks_are_checked_inside_nested_lists():
    distiller = make_distiller()
    stopping = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    with pytest.raises(ValueError, match="`EarlyStopping` keeps weights"):
        fit(distiller, [pruning(), [stopping]])


@pytest.mark.parametrize("criterion", ["contribution", "never_active"])
def test_nan_in_the_observed_data_is_said_before_training(criterion):
    distiller = make_distiller()
    before = variable_values(distiller.student)
    data = np.ones((8, distiller.student.inputs[0].shape[1]), "float32")
    data[3, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        fit(distiller, pruning(criterion=criterion, data=data))
    after = variable_values(distiller.student)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
