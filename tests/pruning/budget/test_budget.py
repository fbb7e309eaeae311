"""What the student of a finished run fits."""

import keras
import numpy as np
import pytest
from helpers import randomize
from hypothesis import given, reject, settings
from sklearn.datasets import load_digits
from strategies import Case, cases

import keras_kddp.pruning.budget.accuracy_guard
from keras_kddp import (
    Budget,
    Distiller,
    DynamicPruning,
    TeacherCache,
    finalize,
    prepare,
)
from keras_kddp.export import to_tflite
from keras_kddp.models import fashion_cnn_student
from keras_kddp.profiling import profile
from keras_kddp.pruning.activity import activity_on
from keras_kddp.pruning.budget.int8_trial import int8_bytes
from keras_kddp.pruning.budget.planned_sizes import PlannedSizes
from keras_kddp.pruning.budget.quota import FallingQuota
from keras_kddp.pruning.ranking import group_scores
from keras_kddp.surgery import (
    ChannelGraph,
    SurgeryError,
    plan_removal,
    remove_units,
)

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def digits():
    """Training and validation rows of digits, as images."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


@pytest.fixture(scope="module")
def teacher(digits):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, "relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile("adam", CROSSENTROPY)
    model.fit(*digits[0], epochs=15, verbose=0)
    return model


def make_student():
    """Returns a student whose convolutions and Dense layer can shrink."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    y = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="a")(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    x = keras.layers.ReLU(name="relu")(keras.layers.Add(name="add")([x, y]))
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(40, "relu", name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))


def train(digits, teacher, budget, *, epochs=6, optimizer="adam", **pruning):
    """Returns the Distiller and the callback of a run under a budget."""
    train_data, validation = digits
    distiller = Distiller(teacher, prepare(make_student()))
    distiller.compile(optimizer, CROSSENTROPY, metrics=["accuracy"])
    phases = {"warmup_epochs": 1, "ramp_epochs": 1, "finetune_epochs": 2}
    callback = DynamicPruning(budget=budget, **{**phases, **pruning})
    history = distiller.fit(
        *train_data,
        validation_data=validation,
        epochs=epochs,
        batch_size=64,
        verbose=0,
        callbacks=[callback],
    )
    return distiller, callback, history.history


# Of c channels and h hidden units: conv, a, norm, hidden, logits.
SIZES = {
    "parameters": lambda c, h: (
        10 * c + 9 * c * c + 4 * c + (36 * c + 1) * h + 10 * h + 10
    ),
    "macs": lambda c, h: 36 * 9 * c + 36 * 9 * c * c + 36 * c * h + 10 * h,
}


@pytest.mark.parametrize(
    ("measure", "limit"),
    [("parameters", 3_000), ("parameters", 12_650), ("macs", 15_000)],
)
def test_a_size_budget_is_met_by_less_than_one_group(
    digits, teacher, measure, limit
):
    distiller, _, history = train(
        digits, teacher, Budget(**{f"max_{measure}": limit})
    )

    size = SIZES[measure]
    widths = {name: len(units) for name, units in units_of(distiller).items()}
    c, h = widths["conv"], widths["hidden"]
    assert size(c, h) == getattr(profile(distiller.student), measure)
    assert size(c, h) <= limit
    # The last group to leave was a channel or a hidden unit.
    assert limit < max(size(c + 1, h), size(c, h + 1))
    assert history["val_accuracy"][-1] > 0.7


def test_the_limit_falls_by_the_same_factor(digits, teacher):
    _, callback, history = train(
        digits, teacher, Budget(max_parameters=2_658), epochs=8
    )

    # Five removals, from 12,658 down to 2,658: each to 73 %.
    assert history["parameters"][1] == 12_658
    after = [removal.parameters_after for removal in callback.removals]
    limits = [9_265, 6_781, 4_963, 3_632, 2_658]
    for size, limit in zip(after, limits, strict=True):
        assert limit - 700 < size <= limit + 1


def units_of(distiller):
    return ChannelGraph(distiller.student).units


def test_all_limits_hold_together(digits, teacher):
    budget = Budget(max_parameters=9_000, max_macs=15_000)

    distiller, _, _ = train(digits, teacher, budget)

    found = profile(distiller.student)
    assert found.parameters <= 9_000
    assert found.macs <= 15_000


def test_the_int8_file_fits_its_budget_by_less_than_one_unit(digits, teacher):
    (x, _), _ = digits
    student = make_student()
    limit = (int8_bytes(student, x) + 8_000) // 2

    distiller, _, _ = train(digits, teacher, Budget(max_bytes=limit))

    size = int8_bytes(distiller.student, x)
    widths = {name: len(u) for name, u in units_of(distiller).items()}
    # A channel, or a hidden unit, and what the file rounds up to.
    group = max(
        36 * widths["hidden"] + 18 * widths["conv"] + 9 + 56,
        36 * widths["conv"] + 10 + 28,
    )
    assert limit - group - 64 < size <= limit


def test_80_000_bytes_of_the_cnn_are_kept_by_the_exported_file(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.random((128, 28, 28, 1), dtype="float32")
    y = np.arange(128) % 10
    student = prepare(fashion_cnn_student(), layers=["hidden"])
    distiller = Distiller(fashion_cnn_student(16), student)
    distiller.compile("adam", CROSSENTROPY)
    callback = DynamicPruning(budget=Budget(max_bytes=80_000))

    distiller.fit(x, y, epochs=5, verbose=0, callbacks=[callback])

    artifact = to_tflite(
        finalize(distiller.student),
        tmp_path / "student.tflite",
        quantization="int8",
        calibration=x,
    )
    # A unit has 800 weights in, 10 out and 28 bytes beside; 64 are spare.
    assert 80_000 - 838 - 128 < artifact.num_bytes <= 80_000


def test_a_budget_below_the_floor_is_refused_by_name(digits, teacher):
    floor = profile(
        remove_units(
            make_student(),
            {"hidden": range(39), "conv": range(7), "a": range(7)},
        )
    ).parameters

    with pytest.raises(ValueError, match=f"must be at least {floor:,}, the"):
        train(digits, teacher, Budget(max_parameters=floor - 1))


def test_a_file_below_the_floor_is_refused_before_training(digits, teacher):
    with pytest.raises(ValueError, match=r"`max_bytes` must be at least [\d,]"):
        train(digits, teacher, Budget(max_bytes=1_000))


def test_the_floor_itself_is_reached(digits, teacher):
    wide = make_student()
    floor = remove_units(
        wide, {"hidden": range(36), "conv": range(4), "a": range(4)}
    )
    limit = profile(floor).parameters

    distiller, _, _ = train(
        digits, teacher, Budget(max_parameters=limit), minimum_units=4
    )

    assert profile(distiller.student).parameters == limit


def test_what_fits_already_is_told_and_left_whole(digits, teacher):
    with pytest.warns(UserWarning, match="fits its budget already"):
        distiller, callback, _ = train(
            digits, teacher, Budget(max_parameters=10**6), epochs=4
        )

    assert callback.removals == []
    assert len(units_of(distiller)["hidden"]) == 40


def test_a_run_that_stops_early_says_what_it_missed(digits, teacher):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    train_data, validation = digits
    distiller = Distiller(teacher, prepare(make_student()))
    distiller.compile("adam", CROSSENTROPY)
    callback = DynamicPruning(budget=Budget(max_parameters=5_000))

    with pytest.warns(UserWarning, match="does not fit max_parameters=5,000"):
        distiller.fit(
            *train_data, epochs=6, verbose=0, callbacks=[callback, Stop()]
        )


@given(cases())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_planned_sizes_are_those_of_the_smaller_model(case: Case):
    graph = ChannelGraph(case.model)
    names = {
        (name, unit) for name, units in case.units.items() for unit in units
    }
    roots = {
        root
        for root, group in graph.groups().items()
        if names & set(group.members)
    }
    gone = np.isin(graph.group_numbers, list(roots))

    planned = PlannedSizes(graph).without(gone)

    try:
        plan = plan_removal(case.model, case.units)
    except SurgeryError:  # what these units leave behind cannot be folded
        reject()
    smaller = profile(plan.build())
    assert planned["macs"] == smaller.macs
    assert planned["parameters"] + plan.gained_biases() == smaller.parameters


def test_units_of_several_layers_are_ranked_by_their_share():
    x = inputs = keras.Input((3,))
    x = keras.layers.Dense(8, name="wide")(x)
    x = keras.layers.Dense(2, name="narrow")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(x))
    graph = ChannelGraph(model)
    activity = activity_on(graph, np.ones((4, 3), "float32"))

    def score(activity, outgoing_norm):
        return np.linspace(0.5, 1, len(outgoing_norm))

    plain = group_scores(graph, activity, score)
    balanced = group_scores(graph, activity, score, balanced=True)

    root = {
        name: graph.group_numbers[labels]
        for name, labels in graph.units.items()
    }
    assert plain[root["wide"][7]] == plain[root["narrow"][1]] == 1
    assert balanced[root["wide"][7]] == pytest.approx(1 / 6)  # of 8 * 0.75
    assert balanced[root["narrow"][1]] == pytest.approx(1 / 1.5)


# Accuracy.


def test_the_smallest_student_that_keeps_its_accuracy_is_returned(
    digits, teacher
):
    distiller, callback, history = train(
        digits, teacher, Budget(max_accuracy_drop=0.03), epochs=16
    )

    _, (x, y) = digits
    accuracy = (distiller.student.predict(x, verbose=0).argmax(1) == y).mean()
    unpruned = history["units"].count(history["units"][0])
    reference = max(history["val_accuracy"][: unpruned - 1] or [0])
    assert accuracy >= reference - 0.03
    assert callback.removals
    assert profile(distiller.student).parameters < 12_658


def test_a_removal_that_broke_the_accuracy_is_taken_back(digits, teacher):
    # At rate 0 nothing recovers: whatever breaks stays broken.
    distiller, callback, history = train(
        digits,
        teacher,
        Budget(max_accuracy_drop=0.0, reference=0.0001),
        optimizer=keras.optimizers.SGD(0.0),
        epochs=6,
    )

    assert callback.removals  # an untrained student has nothing to lose
    assert history["units"][-1] < history["units"][0]


def test_the_student_before_a_broken_removal_comes_back_whole(digits, teacher):
    keras.utils.set_random_seed(2)
    trained = make_student()
    trained.compile("adam", CROSSENTROPY, metrics=["accuracy"])
    trained.fit(*digits[0], epochs=10, verbose=0)
    distiller = Distiller(teacher, prepare(trained, l1=0.0))
    distiller.compile(
        keras.optimizers.SGD(0.0), CROSSENTROPY, metrics=["accuracy"]
    )
    callback = DynamicPruning(
        warmup_epochs=0,
        ramp_epochs=0,
        finetune_epochs=1,
        budget=Budget(max_accuracy_drop=0.0),
    )

    history = distiller.fit(
        *digits[0],
        validation_data=digits[1],
        epochs=12,
        verbose=0,
        callbacks=[callback],
    ).history

    # Removals were tried and taken back, with half as many each time.
    assert min(history["units"]) < history["units"][-1]
    _, (x, y) = digits
    accuracy = (distiller.student.predict(x, verbose=0).argmax(1) == y).mean()
    assert accuracy >= history["val_accuracy"][0] - 1e-6
    assert history["parameters"][-1] == profile(distiller.student).parameters


@pytest.mark.parametrize("is_packed", [True, False])
def test_the_teacher_is_the_reference_if_asked(
    digits, teacher, is_packed, monkeypatch
):
    train_data, validation = digits
    seen = []
    original = keras_kddp.pruning.budget.teacher_accuracy.teacher_accuracy
    monkeypatch.setattr(
        keras_kddp.pruning.budget.accuracy_guard,
        "teacher_accuracy",
        lambda distiller: seen.append(original(distiller)) or seen[-1],
    )
    x, y = train_data
    x_validation, y_validation = validation
    if is_packed:
        x = TeacherCache(teacher, x).pack(x)
        x_validation = TeacherCache(teacher, x_validation).pack(x_validation)
    distiller = Distiller(
        None if is_packed else teacher, prepare(make_student())
    )
    distiller.compile("adam", CROSSENTROPY, metrics=["accuracy"])
    budget = Budget(max_accuracy_drop=0.5, reference="teacher")

    distiller.fit(
        x,
        y,
        validation_data=(x_validation, y_validation),
        epochs=4,
        verbose=0,
        callbacks=[DynamicPruning(budget=budget)],
    )

    outputs = teacher.predict(validation[0], verbose=0)
    assert seen == [(outputs.argmax(1) == validation[1]).mean()]


def test_an_accuracy_that_nothing_keeps_is_told(digits, teacher):
    with pytest.warns(UserWarning, match=r"not even the unpruned one"):
        _, callback, history = train(
            digits,
            teacher,
            Budget(max_accuracy_drop=0.0, reference=1.0),
            epochs=4,
        )

    assert callback.removals == []
    assert len(set(history["units"])) == 1


def test_a_drop_without_validation_data_is_refused(digits, teacher):
    distiller = Distiller(teacher, prepare(make_student()))
    distiller.compile("adam", CROSSENTROPY)
    callback = DynamicPruning(budget=Budget(max_accuracy_drop=0.1))

    with pytest.raises(ValueError, match="needs validation data"):
        distiller.fit(*digits[0], epochs=4, verbose=0, callbacks=[callback])


def test_a_drop_without_an_accuracy_in_the_logs_is_refused(digits, teacher):
    distiller = Distiller(teacher, prepare(make_student()))
    distiller.compile("adam", CROSSENTROPY)
    callback = DynamicPruning(budget=Budget(max_accuracy_drop=0.1))

    with pytest.raises(ValueError, match=r"Compile with metrics=\['acc"):
        distiller.fit(
            *digits[0],
            validation_split=0.1,
            epochs=4,
            verbose=0,
            callbacks=[callback],
        )


# What a review found.


class Judged(keras.callbacks.Callback):
    """Writes given accuracies over those of the validation data."""

    runs_first = True

    def __init__(self, *accuracies):
        super().__init__()
        self.accuracies = accuracies
        self.weights = []
        self.rates = []

    def on_epoch_end(self, epoch, logs=None):
        if self.accuracies[epoch] is None:
            for name in [n for n in logs if n.startswith("val_")]:
                del logs[name]
        else:
            logs["val_accuracy"] = self.accuracies[epoch]
        self.weights.append(self.model.student.get_weights())
        self.rates.append(float(self.model.optimizer.learning_rate))


X = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")
Y = X[:, :3].argmax(axis=1)


def small(width=16, use_bias=True):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(width, "relu", name="first"),
            keras.layers.Dense(width, "relu", use_bias, name="second"),
            keras.layers.Dense(3, name="logits"),
        ]
    )


def small_run(budget, *callbacks, epochs=4, optimizer="adam", **pruning):
    """Returns Distiller and callback of a run of warm-up 1 and ramp 1."""
    start = pruning.pop("student", None) or small()
    distiller = Distiller(small(24), prepare(start))
    distiller.compile(optimizer, CROSSENTROPY, metrics=["accuracy"])
    phases = {"warmup_epochs": 1, "ramp_epochs": 1, "finetune_epochs": 1}
    callback = DynamicPruning(budget=budget, **{**phases, **pruning})
    distiller.fit(
        X,
        Y,
        validation_data=(X, Y),
        epochs=epochs,
        verbose=0,
        callbacks=[*callbacks, callback],
    )
    return distiller, callback


def test_a_roomy_file_does_not_cancel_another_limit():
    budget = Budget(max_parameters=200, max_bytes=100_000)

    distiller, _ = small_run(budget)

    assert profile(distiller.student).parameters <= 200


@pytest.mark.parametrize("start", range(0, 21, 2))
def test_the_fewest_groups_are_found_from_any_first_guess(start, monkeypatch):
    # A file that is not as the line foretells: k groups save k^2 bytes.
    quota = object.__new__(FallingQuota)
    quota._limits = {"bytes": 1_000 + 64}
    sizes = lambda k: {"bytes": 1_400 - 20 * k}  # noqa: E731
    monkeypatch.setattr(quota, "_sizes", lambda graph, order: sizes)
    monkeypatch.setattr(
        quota,
        "_measured",
        lambda measure, graph, order, constants: 1_100 - len(order) ** 2,
    )

    found = quota._checked_count(
        "bytes", None, range(20), start, least=0, constants={}
    )

    assert found == 10  # 1,100 - 100


def test_what_never_fits_takes_all_that_may_leave(monkeypatch):
    quota = object.__new__(FallingQuota)
    quota._limits = {"bytes": 500}
    sizes = lambda k: {"bytes": 1_400 - 20 * k}  # noqa: E731
    monkeypatch.setattr(quota, "_sizes", lambda graph, order: sizes)
    monkeypatch.setattr(quota, "_measured", lambda *args: 2_000)

    assert (
        quota._checked_count("bytes", None, range(9), 3, least=0, constants={})
        == 9
    )


@pytest.mark.parametrize("limit", [400, 390, 380, 300])
def test_biases_that_folding_adds_are_paid_for(limit):
    student = small(use_bias=False)
    kernel, bias = student.get_layer("first").get_weights()
    kernel[:, :6], bias[:6] = 0, 1  # six units that are always 1
    student.get_layer("first").set_weights([kernel, bias])

    distiller, _ = small_run(
        Budget(max_parameters=limit),
        student=student,
        optimizer=keras.optimizers.SGD(0.0),
        epochs=3,
        warmup_epochs=0,
    )

    found = profile(distiller.student).parameters
    assert limit - 45 < found <= limit
    assert distiller.student.get_layer("second").use_bias


def test_accuracy_that_holds_does_not_keep_the_size_from_its_limit():
    budget = Budget(max_accuracy_drop=0.5, max_parameters=200)

    distiller, _ = small_run(budget, Judged(0.9, 0.9, 0.9, 0.9))

    assert profile(distiller.student).parameters <= 200


@pytest.mark.parametrize(
    "options", [{}, {"gradient_accumulation_steps": 2}], ids=str
)
def test_a_removal_is_taken_back_and_time_goes_on(options):
    judged = Judged(0.9, 0.9, 0.1, 0.9, 0.9, 0.9)
    halving = keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: rate / 2 if epoch else rate
    )
    optimizer = keras.optimizers.Adam(0.01, **options)

    distiller, callback = small_run(
        Budget(max_accuracy_drop=0.05),
        judged,
        halving,
        optimizer=optimizer,
        epochs=6,
    )

    np.testing.assert_allclose(judged.rates, 0.01 / 2.0 ** np.arange(6))
    steps = 6 * 3 // options.get("gradient_accumulation_steps", 1)
    assert int(distiller.optimizer.iterations) == steps
    assert len(callback.removals) >= 1


def test_a_student_that_was_never_judged_is_not_returned():
    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if callback.removals:
                weight = self.model.student.weights[0]
                weight.assign(weight * np.nan)

    distiller = Distiller(small(24), prepare(small()))
    distiller.compile("adam", CROSSENTROPY, metrics=["accuracy"])
    callback = DynamicPruning(budget=Budget(max_accuracy_drop=0.5))

    with pytest.warns(UserWarning, match="became NaN"):
        distiller.fit(
            X,
            Y,
            validation_data=(X, Y),
            epochs=8,
            verbose=0,
            callbacks=[callback, Break(), Judged(*[0.9] * 8)],
        )

    assert callback.removals == []
    assert units_of(distiller)["first"].size == 16
    assert all(np.isfinite(w).all() for w in distiller.student.get_weights())


def test_training_is_not_undone_where_nothing_was_removed():
    judged = Judged(0.5, 0.9, 0.6, 0.7)

    distiller, _ = small_run(
        Budget(max_accuracy_drop=0.0), judged, minimum_units=16
    )

    assert int(distiller.optimizer.iterations) == 4 * 3
    for now, last in zip(
        distiller.student.get_weights(), judged.weights[-1], strict=True
    ):
        np.testing.assert_array_equal(now, last)


def test_an_epoch_without_validation_is_not_judged():
    judged = Judged(0.9, None, 0.9, 0.9, None, 0.9)

    distiller, callback = small_run(
        Budget(max_accuracy_drop=0.1), judged, epochs=6
    )

    assert callback.removals
    assert units_of(distiller)["first"].size < 16


def test_a_validation_split_may_stand_beside_no_validation_data():
    distiller = Distiller(small(24), prepare(small()))
    distiller.compile("adam", CROSSENTROPY, metrics=["accuracy"])
    callback = DynamicPruning(budget=Budget(max_accuracy_drop=0.5))

    distiller.fit(
        X,
        Y,
        validation_split=0.25,
        validation_data=None,
        epochs=4,
        verbose=0,
        callbacks=[callback],
    )

    assert distiller.fit_validation is None  # the run is over


def test_averages_of_weights_are_refused_beside_a_drop():
    with pytest.raises(ValueError, match="with use_ema=True"):
        small_run(
            Budget(max_accuracy_drop=0.1),
            optimizer=keras.optimizers.Adam(use_ema=True),
        )


def test_the_teacher_of_a_sequence_is_judged_at_every_position():
    def model(width):
        return keras.Sequential(
            [
                keras.Input((5, 6)),
                keras.layers.Dense(width, "relu"),
                keras.layers.Dense(3),
            ]
        )

    x = np.random.default_rng(1).normal(size=(20, 5, 6)).astype("float32")
    teacher = model(8)
    y = teacher.predict(x, verbose=0).argmax(axis=-1)
    distiller = Distiller(teacher, prepare(model(4)))
    distiller.compile("adam", CROSSENTROPY, metrics=["accuracy"])
    budget = Budget(max_accuracy_drop=0.99, reference="teacher")

    distiller.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=4,
        verbose=0,
        callbacks=[DynamicPruning(budget=budget)],
    )


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "must have a limit. Received none"),
        ({"max_parameters": 0}, "`max_parameters` must be an integer >= 1"),
        ({"max_macs": 1.5}, "Received: max_macs=1.5"),
        ({"max_bytes": True}, "`max_bytes` must be an integer"),
        ({"max_accuracy_drop": 1.0}, r"must be a number in \[0, 1\)"),
        ({"max_accuracy_drop": -0.1}, r"must be a number in \[0, 1\)"),
        ({"max_macs": 5, "reference": "kd"}, "Received: reference='kd'"),
        ({"max_macs": 5, "reference": 1.2}, r"accuracy in \[0, 1\]"),
    ],
)
def test_a_bad_budget_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Budget(**arguments)


def test_what_is_no_budget_is_refused():
    with pytest.raises(ValueError, match="must be a keras_kddp.Budget"):
        DynamicPruning(budget=50_000)


def test_the_line_of_bytes_follows_the_real_file(digits):
    (x, _), _ = digits
    student = randomize(make_student(), 0)
    smaller = remove_units(student, {"hidden": range(20)})

    saved = int8_bytes(student, x) - int8_bytes(smaller, x)

    # A unit has 288 weights in, 10 out and 28 bytes beside.
    assert saved == pytest.approx(20 * (288 + 10 + 28), rel=0.05)


def pair_of(width):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(width, "relu", name="fc")(inputs)
    return keras.Model(inputs, [keras.layers.Dense(3)(x) for _ in range(2)])


def test_a_drop_is_refused_for_several_outputs_before_training():
    distiller = Distiller(pair_of(8), prepare(pair_of(16)))
    distiller.compile("adam", CROSSENTROPY, metrics=["accuracy", "accuracy"])
    callback = DynamicPruning(budget=Budget(max_accuracy_drop=0.1))
    before = distiller.student.get_weights()

    with pytest.raises(ValueError, match="needs models of one output"):
        distiller.fit(
            X, [Y, Y], epochs=4, validation_split=0.25, callbacks=[callback]
        )

    for first, second in zip(
        before, distiller.student.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def judged_by_the_teacher(validation):
    distiller = Distiller(small(), prepare(small()))
    distiller.compile("adam", CROSSENTROPY, metrics=["accuracy"])
    budget = Budget(max_accuracy_drop=0.5, reference="teacher")
    distiller.fit(
        X,
        Y,
        epochs=4,
        validation_data=validation,
        verbose=0,
        callbacks=[DynamicPruning(budget=budget)],
    )


def test_a_generator_is_not_used_up_for_the_teachers_accuracy():
    batches = iter([(X, Y)] * 4)

    with pytest.raises(ValueError, match="batches that can be run through aga"):
        judged_by_the_teacher(batches)

    assert len(list(batches)) == 4


def test_the_teachers_accuracy_needs_labels():
    with pytest.raises(ValueError, match="needs labels beside the validation"):
        judged_by_the_teacher((X,))


@pytest.mark.parametrize(
    "reference", ["teacher", 0.9], ids=["teacher", "number"]
)
def test_a_reference_for_nothing_is_refused(reference):
    with pytest.raises(ValueError, match="beside a `max_accuracy_drop`"):
        Budget(max_parameters=50, reference=reference)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_accuracy_drop": 0.1, "reference": np.array([0.1, 0.2])},
        {"max_accuracy_drop": 10**400},
    ],
    ids=["array", "huge"],
)
def test_odd_numbers_are_refused_plainly(arguments):
    with pytest.raises(ValueError, match="Received: "):
        Budget(**arguments)
