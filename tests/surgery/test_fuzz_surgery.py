"""Requests that make sense and requests that make none, on random graphs.

Whatever is asked of surgery, the answer is an exact smaller model or an error
that says what is wrong; the model that was given stays as it was.
"""

import contextlib
import json
import math
import random
import signal
from collections import Counter
from collections.abc import Mapping

import keras
import numpy as np
import pytest
from helpers import (
    held_outputs,
    outputs_of,
    random_inputs,
    relative_error,
    variable_values,
)
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from strategies import cases, held_constants

from keras_kddp import Budget, finalize, prepare
from keras_kddp.surgery import ChannelGraph, explain, plan_removal

TOLERANCE = 1e-10
SECONDS = 60  # of one graph: most take a fifth of a second
REFUSALS = (ValueError, TypeError)  # SurgeryError is a ValueError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:Layer .* was passed an input with a mask:UserWarning"
    ),
]

ODD_INDICES = [
    -1,
    -(10**20),
    10**20,
    0.5,
    1.0,
    math.nan,
    math.inf,
    True,
    None,
    "0",
    b"0",
    1j,
    [0],
    (),
    np.int64(0),
    np.uint8(1),
    np.float32(0.0),
    np.array([0]),
    np.str_("0"),
    object(),
]
ODD_LISTS = [
    None,
    0,
    "01",
    b"\x00\x01",
    {0: 1},
    {0},
    [],
    [0, 0],
    [0, -1],
    [[0]],
    range(10**6),
    np.array([[0, 1]]),
    np.array([0.0, 1.0]),
    np.array([True, False]),
    np.array(0),
    np.array([], "float32"),
    np.array(["0"]),
    slice(0, 1),
]
ODD_NAMES = ["", "nothing", "x", "layer1/", "../layer1", 0, None, (), b"layer1"]
ODD_VALUES = [math.nan, math.inf, -math.inf, None, "1", [1.0], 1j, True, 1e6]
ODD_REQUESTS = [None, 0, "layer1", [], [("layer1", [0])], {0: [0]}, object()]
ODD_LAYERS = [
    None,
    0,
    "layer1",
    [],
    [0],
    ["nothing"],
    [None],
    [["layer1"]],
    {"layer1": 1},
    object(),
]
ODD_CHARGES = [
    -1,
    -0.0,
    math.nan,
    math.inf,
    None,
    "0.1",
    True,
    [0.1],
    1e300,
    1j,
]
ODD_LIMITS = [
    *[0, -1, 1, 10**30, 0.5, 1e9, math.nan, math.inf, True, "9", [9], 1j],
    *[np.int64(9), np.float64(0.5), np.array(9), np.array([9]), object()],
]


@contextlib.contextmanager
def limited(seconds):
    """Ends what hangs."""

    def stop(number, frame):
        raise RuntimeError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def unchanged(model):
    """Checks that a model is what it was."""
    config, values = model.to_json(), variable_values(model)
    yield
    assert model.to_json() == config
    for a, b in zip(variable_values(model), values, strict=True):
        np.testing.assert_array_equal(a, b)


def odd_request(chance: random.Random, model) -> tuple:
    """Returns units and constants; at least one of them makes little sense."""
    widths = {n: len(u) for n, u in ChannelGraph(model).units.items()}
    names = [*widths, "nothing"]
    units: dict = {
        name: sorted(chance.sample(range(widths.get(name, 1)), 1))
        for name in chance.sample(names, chance.randint(1, len(names)))
        if name in widths or chance.random() < 0.2
    }
    name = chance.choice(names)
    constants = None
    kind = chance.randrange(7)
    if kind == 0:
        units[name] = chance.choice(ODD_LISTS)
    elif kind == 1:
        units[name] = [0, chance.choice(ODD_INDICES)]
    elif kind == 2:
        units = {chance.choice(ODD_NAMES): [0]}
    elif kind == 3:
        units = chance.choice(ODD_REQUESTS)
    elif kind == 4:  # all of them, or one more than there are
        count = widths.get(name, 1) + chance.randint(0, 1)
        units = {name: list(range(count))}
    elif kind == 5:
        unit = units.get(name, [0])[0]
        constants = {name: {unit: chance.choice(ODD_VALUES)}}
    else:
        constants = chance.choice(
            [{name: chance.choice(ODD_LISTS)}, *ODD_REQUESTS]
        )
    return units, constants


def check_plan(model, units, constants, seed, **options) -> str:
    """Asks for a removal; says whether it was refused or is exact."""
    note(f"{units=} {constants=}")
    try:
        plan = plan_removal(model, units, constants=constants, **options)
    except REFUSALS as error:
        assert len(str(error)) > 20, repr(error)
        return "refused"
    removed = {name: list(indices) for name, indices in plan.removed.items()}
    assert json.loads(plan.to_json())["removed"] == removed
    assert str(plan)
    x = random_inputs(model, seed)
    held = constants if isinstance(constants, Mapping) else None
    expected = held_outputs(model, removed, x, held)
    received = outputs_of(plan.build(), x)
    assert relative_error(received, expected) <= TOLERANCE
    return "exact"


def check_preparation(chance, model, seed) -> str:
    """Prepares a student for odd layers; says how it ended."""
    named = [None, [chance.choice([*ChannelGraph(model).units, "x"])]]
    layers = chance.choice(chance.choice([named, ODD_LAYERS]))
    charge = chance.choice(chance.choice([[0.01], [0.01], ODD_CHARGES]))
    note(f"{layers=} {charge=}")
    try:
        prepared = prepare(model, charge, layers)
    except REFUSALS as error:
        assert len(str(error)) > 20, repr(error)
        return "not prepared"
    x = random_inputs(model, seed)
    expected = outputs_of(model, x)
    for same in (prepared, finalize(prepared)):
        assert relative_error(outputs_of(same, x), expected) == 0
    return "prepared"


def check_graphs(count: int) -> Counter:
    """Asks for five things of each of so many random graphs."""
    outcomes: Counter = Counter()

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.data())
    def answers_are_exact_or_refusals(data):
        case = data.draw(cases(prepared=0.5))
        constants = data.draw(held_constants(case.model, case.units))
        chance = random.Random(case.seed)
        note(explain(case.model))
        with limited(SECONDS), unchanged(case.model):
            outcomes[
                check_plan(case.model, case.units, constants, case.seed)
            ] += 1
            for _ in range(3):
                request = odd_request(chance, case.model)
                answer = check_plan(case.model, *request, case.seed)
                outcomes[f"odd {answer}"] += 1
            outcomes[check_preparation(chance, case.model, case.seed)] += 1

    answers_are_exact_or_refusals()
    return outcomes


def test_answers_on_random_graphs_are_exact_or_refusals():
    outcomes = check_graphs(250)

    assert sum(outcomes.values()) >= 1_250
    assert outcomes["exact"] >= 150
    assert outcomes["odd refused"] >= 400
    assert outcomes["odd exact"] >= 10
    assert outcomes["prepared"] >= 20
    assert outcomes["not prepared"] >= 100


def test_a_budget_takes_numbers_that_make_sense_and_refuses_all_others():
    names = ("parameters", "macs", "bytes", "arena_bytes", "accuracy_drop")
    outcomes: Counter = Counter()
    for name in names:
        for value in ODD_LIMITS:
            try:
                budget = Budget(**{f"max_{name}": value})
            except REFUSALS as error:
                assert f"max_{name}" in str(error)
                outcomes["refused"] += 1
            else:
                assert getattr(budget, f"max_{name}") == value >= 0
                outcomes["taken"] += 1
    assert outcomes["refused"] >= 50
    assert outcomes["taken"] >= 5


@pytest.mark.parametrize(
    "model",
    [None, 0, "model", object(), keras.layers.Dense(1), keras.Sequential()],
    ids=["None", "0", "text", "object", "layer", "unbuilt"],
)
def test_what_is_no_model_is_refused(model):
    for ask in (plan_removal, prepare, finalize, explain):
        arguments = ({},) if ask is plan_removal else ()
        with pytest.raises(REFUSALS, match=r"must be|Received"):
            ask(model, *arguments)
