"""The students of the comparison can be pruned to their budgets."""

import pytest
from comparison.data import load
from comparison.students import STUDENTS, fashion_conv_student
from comparison.views import KINDS

from keras_kddp import Budget, prepare, profile, remove_units, unit_groups
from keras_kddp.models import digits_student, fashion_mlp_student

ALL = pytest.mark.parametrize(
    "student", STUDENTS.values(), ids=["-".join(key) for key in STUDENTS]
)


def size(model, measure):
    return getattr(profile(model), measure.removeprefix("max_"))


def narrowest(student):
    """Returns a student with one unit in each layer that may be pruned."""
    model = student.make()
    units = {}
    for group in unit_groups(model):
        is_first = any(unit == 0 for _, unit in group.members)
        if not (group.reason or is_first):
            for layer, unit in group.members:
                units.setdefault(layer, []).append(unit)
    names = student.layers or tuple(units)
    return remove_units(model, {name: units[name] for name in names})


@ALL
def test_each_budget_lies_between_the_narrowest_and_the_whole_student(student):
    model, least = student.make(), narrowest(student)

    assert len(student.budgets) == (3 if student.data == "digits" else 4)
    for budget in student.budgets:
        ((measure, limit),) = budget.items()
        Budget(**budget)
        assert size(least, measure) < limit < size(model, measure)


@ALL
def test_each_student_takes_penalties_where_it_is_pruned(student):
    prepared = prepare(student.make(), layers=student.layers)

    assert sum("penalty" in layer.name for layer in prepared.layers) >= 1


@ALL
def test_what_is_tried_for_a_student_is_known(student):
    assert set(student.augmentations) <= set(KINDS)
    assert student.precision in ("float32", "mixed_bfloat16")
    assert len(student.augmentations) * len(student.learning_rates) <= 9
    assert student is STUDENTS[student.data, student.name]


@pytest.mark.parametrize(
    ("key", "units", "make"),
    [
        (("digits", "mlp"), 16, digits_student),
        (("fashion", "mlp"), 100, fashion_mlp_student),
        (("fashion", "cnn"), 42, fashion_conv_student),
    ],
)
def test_the_size_of_the_table_and_the_others_are_whole_units(key, units, make):
    limits = [budget["max_parameters"] for budget in STUDENTS[key].budgets]

    widths = (units, units // 4, units // 2, 2 * units)
    assert limits == [
        profile(make(width)).parameters for width in widths[: len(limits)]
    ]


def test_the_residual_student_keeps_half_of_its_work():
    whole = size(STUDENTS["fashion", "residual"].make(), "max_macs")

    assert STUDENTS["fashion", "residual"].budgets[0] == {
        "max_macs": whole // 2
    }


def test_digits_fit_their_student():
    x = load("digits").train.x[:2]

    assert STUDENTS["digits", "mlp"].make()(x).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion", "watch", "diamonds"])
def test_data_fit_their_students(name):
    data = load(name)
    for student in STUDENTS.values():
        if student.data == name:
            outputs = student.make()(data.train.x[:2].astype("float32"))
            assert outputs.shape == (2, data.classes)
