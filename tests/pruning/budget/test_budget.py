"""What a budget takes, and how a run meets the sizes it limits."""

import keras
import numpy as np
import pytest
from budgeted_runs import make_student, train, units_of
from classifiers import CROSSENTROPY

from keras_kddp import Budget, Distiller, DynamicPruning, finalize, prepare
from keras_kddp.export import to_tflite
from keras_kddp.models import fashion_cnn_student
from keras_kddp.profiling import profile
from keras_kddp.pruning.budget.int8_trial import int8_bytes
from keras_kddp.surgery import remove_units

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
    distiller.compile("adam", CROSSENTROPY, run_eagerly=True)
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
