"""What reads a mask, what hands one on, and what one is computed from."""

import keras
import numpy as np
import pytest
from helpers import (
    error_of_removal,
    float64,
    held_outputs,
    outputs_of,
    random_inputs,
    randomize,
    reason_of,
    relative_error,
)
from keras.src.utils.naming import reset_uids

import keras_kddp as kddp
from keras_kddp.surgery import (
    ChannelGraph,
    SurgeryError,
    explain,
    plan_removal,
    remove_units,
)
from keras_kddp.surgery.activity_bounds import activity_bounds
from keras_kddp.surgery.folding import fold_constants
from keras_kddp.surgery.registry import rules

layers, ops = keras.layers, keras.ops

# Keras says so of Flatten and its like, and of every nested model.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Layer .* was passed an input with a mask:UserWarning"
)


@pytest.fixture(autouse=True)
def in_float64():
    with float64():
        yield


def tokens(name="ids"):
    return keras.Input((5,), dtype="int32", name=name)


def embedded(ids, name="words", size=4):
    return layers.Embedding(6, size, mask_zero=True, name=name)(ids)


def pooled(x, **options):
    return layers.GlobalAveragePooling1D()(x, **options)


def model_of(body):
    """Returns ids -> Embedding "words" -> body(x, ids) -> Dense."""
    ids = tokens()
    outputs = layers.Dense(2, name="head")(body(embedded(ids), ids))
    return randomize(keras.Model(ids, outputs), seed=1)


def dense(x, units=5, name="fc", **options):
    return layers.Dense(units, "relu", name=name, **options)(x)


def nested(body, *shapes, name="nested"):
    inputs = [keras.Input(shape) for shape in shapes or [(5, 4)]]
    outputs = body(*inputs)
    return keras.Model(inputs if shapes else inputs[0], outputs, name=name)


# Numbers that can be checked by hand.


def test_a_mean_over_the_words_that_are_there_loses_a_unit_exactly():
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Embedding(3, 2, mask_zero=True, name="words"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1, name="head"),
        ]
    )
    model.set_weights(
        [
            np.array([[9.0, 9.0], [1.0, 10.0], [3.0, 30.0]]),
            np.array([[2.0], [5.0]]),
            np.array([7.0]),
        ]
    )
    x = np.array([[1, 2, 0], [0, 2, 0]])

    at_zero = remove_units(model, {"words": [1]})(x)
    at_four = remove_units(
        model, {"words": [1]}, constants={"words": {1: 4.0}}
    )(x)

    # The mean of 1 and 3, and 3 alone; the padding is in neither.
    assert ops.convert_to_numpy(at_zero).tolist() == [[11.0], [13.0]]
    assert ops.convert_to_numpy(at_four).tolist() == [[31.0], [33.0]]


def test_a_row_that_is_masked_whole_stays_without_a_mean():
    model = model_of(lambda x, ids: pooled(dense(x)))
    x = np.array([[1, 2, 0, 0, 0], [0, 0, 0, 0, 0]])
    units, constants = {"fc": [0, 2]}, {"fc": {0: 0.5, 2: -1.0}}
    smaller = remove_units(model, units, constants=constants)

    (received,) = outputs_of(smaller, x)
    (expected,) = held_outputs(model, units, x, constants)

    assert np.isnan(expected[1]).all()  # 0 / 0, in Keras too
    np.testing.assert_allclose(received, expected, rtol=1e-10)


# What reads masks, or hands them on: everything in front of it may go.


def shared(x, ids):
    layer, reader = layers.Dense(3, name="fc"), layers.GRU(2)
    other = layers.Embedding(6, 4, mask_zero=True)(ids[:, ::-1])
    return layers.Add()([reader(layer(x)), reader(layer(other))])


def joined(make):
    def body(x, ids):
        other = embedded(ids[:, ::-1], "others")
        x = make()([dense(x, 4), dense(other, 4, "other")])
        return pooled(dense(x, 3, "behind"))

    return body


def unmasked_joined(make):
    def body(x, ids):
        other = layers.Embedding(6, 4, name="others")(ids[:, ::-1])
        x = make()([dense(x, 4), dense(other, 4, "other")])
        return pooled(dense(x, 3, "behind"))

    return body


def recurrent(make):
    def body(x, ids):
        x = make(3, return_sequences=True)(dense(x))
        return make(2)(dense(x, 4, "behind"))

    return body


def many_handing_on(x, ids):
    x = layers.PReLU(alpha_initializer="ones")(dense(x))
    x = layers.GaussianDropout(0.1)(layers.Dropout(0.5)(x))
    x = layers.SpatialDropout1D(0.5)(layers.GaussianNoise(0.1)(x))
    x = layers.Identity()(layers.Activation("tanh")(layers.LeakyReLU()(x)))
    return pooled(layers.ActivityRegularization(0.1)(layers.Rescaling(2.0)(x)))


def strung(x, ids):
    x = layers.Concatenate()([x, dense(x, 3)])
    x = layers.Concatenate()([embedded(ids, "more", 2), x])
    return pooled(dense(x, 3, "behind"))


def half_masked(x, ids):
    bare = layers.Embedding(6, 3, name="bare")(ids)
    return pooled(dense(layers.Concatenate()([x, bare])))


def by_hand(x, ids):
    mask = ops.expand_dims(ops.cast(ids != 0, "float64"), -1)
    return ops.sum(dense(x) * mask, axis=1) / ops.sum(mask, axis=1)


def chosen(x, ids):
    mask = ops.expand_dims(ops.logical_and(ids != 0, ids < 5), -1)
    return ops.max(ops.where(mask, dense(x), -9.0), axis=1)


def through_a_nested_model(x, ids):
    inner = nested(lambda y: layers.Dropout(0.5)(dense(y, 3)))
    return pooled(inner(x))


def into_a_nested_model(x, ids):
    return nested(lambda y: pooled(dense(y, 3)))(x)


def into_a_nested_model_by_name(x, ids):
    return nested(lambda y: pooled(dense(y, 3)))(x, mask=ids > 2)


def into_one_of_two_inputs(x, ids):
    inner = nested(
        lambda a, b: pooled(dense(layers.Concatenate()([a, b]))),
        (5, 4),
        (5, 3),
    )
    return inner([x, layers.Embedding(6, 3, name="bare")(ids)])


def nested_twice(x, ids):
    inner = nested(lambda y: pooled(dense(y, 3)))
    outer = keras.Sequential(
        [keras.Input((5, 4)), layers.Dense(4, name="first"), inner],
        name="outer",
    )
    return outer(x)


BODIES = {
    "pooling": lambda x, ids: pooled(x),
    "a Dense layer": lambda x, ids: pooled(dense(x)),
    "normalization": lambda x, ids: pooled(
        layers.BatchNormalization()(dense(x))
    ),
    "a mask that is not in the graph": lambda x, ids: pooled(
        layers.BatchNormalization()(dense(x), training=False)
    ),
    "LSTM": recurrent(layers.LSTM),
    "GRU": recurrent(layers.GRU),
    "SimpleRNN": recurrent(layers.SimpleRNN),
    "layers that hand it on": many_handing_on,
    "Flatten": lambda x, ids: layers.Flatten()(dense(x)),
    "Conv1D": lambda x, ids: pooled(layers.Conv1D(3, 2, name="c")(dense(x))),
    "Reshape": lambda x, ids: pooled(layers.Reshape((5, 5))(dense(x))),
    "Concatenate": strung,
    "Concatenate along steps": lambda x, ids: pooled(
        dense(layers.Concatenate(axis=1)([x, dense(x, 4, "other")]))
    ),
    "Concatenate with what has no mask": half_masked,
    **{
        make.__name__: joined(make)
        for make in [
            *[layers.Add, layers.Subtract, layers.Multiply],
            *[layers.Average, layers.Maximum, layers.Minimum],
        ]
    },
    "Multiply with what has no mask": unmasked_joined(layers.Multiply),
    "Maximum with what has no mask": unmasked_joined(layers.Maximum),
    "a mask of one's own": lambda x, ids: pooled(
        dense(x), mask=ops.not_equal(ids, 2)
    ),
    "a mask by position": lambda x, ids: layers.GlobalAveragePooling1D()(
        dense(x), ids > 1
    ),
    "a mask for a recurrent layer": lambda x, ids: layers.LSTM(3)(
        dense(x), mask=ids < 4
    ),
    "a mask applied by hand": by_hand,
    "a choice by a mask": chosen,
    "a shared layer": shared,
    "out of a nested model": through_a_nested_model,
    "inside a nested model": into_a_nested_model,
    "given to a nested model": into_a_nested_model_by_name,
    "one of two inputs": into_one_of_two_inputs,
    "inside a model inside a model": nested_twice,
    "behind Bidirectional": lambda x, ids: pooled(
        dense(layers.Bidirectional(layers.GRU(2, return_sequences=True))(x))
    ),
    "behind TimeDistributed": lambda x, ids: pooled(
        dense(layers.TimeDistributed(layers.Dense(3))(x))
    ),
    "behind Attention": lambda x, ids: pooled(
        dense(layers.Attention()([x, x]))
    ),
    "behind MultiHeadAttention": lambda x, ids: pooled(
        dense(layers.MultiHeadAttention(1, 2)(x, x))
    ),
}


BLOCKING = [body for name, body in BODIES.items() if name.startswith("behind")]


def one_of_each_layer(model):
    """Returns the first group of every layer that may lose units."""
    units = {}
    for group in ChannelGraph(model).groups().values():
        names = {name for name, _ in group.members}
        if not group.reason and names.isdisjoint(units):
            for name, unit in group.members:
                units.setdefault(name, []).append(unit)
    return units


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_units_in_front_of_a_mask_leave_exactly(body):
    model = model_of(body)
    units = one_of_each_layer(model)
    assert ("words" in units) == (body not in BLOCKING)
    assert body in BLOCKING or len(units) > 1 or body is BODIES["pooling"]
    assert error_of_removal(model, units) <= 1e-10


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_penalties_leave_the_masks_to_their_readers(body):
    model = model_of(body)
    units = one_of_each_layer(model)
    x = random_inputs(model, seed=2)
    prepared = kddp.prepare(model)
    finished = kddp.finalize(remove_units(prepared, units))

    assert relative_error(outputs_of(prepared, x), outputs_of(model, x)) == 0
    expected = held_outputs(model, units, x)
    assert relative_error(outputs_of(finished, x), expected) <= 1e-10
    assert sorted(kddp.collect_activity(prepared, x[0])) == sorted(
        ChannelGraph(model).removable_layers()
    )


def test_penalties_that_take_masks_find_them_when_the_model_runs(monkeypatch):
    """Where names start anew, as in a new process, none may come twice."""
    seen = []

    def call(self, inputs, training=None, mask=None):
        seen.append(mask)
        return inputs

    monkeypatch.setattr(kddp.layers.ActivityPenalty, "call", call)
    reset_uids()
    model = model_of(lambda x, ids: layers.GRU(2)(dense(x)))
    reset_uids()

    prepared = kddp.prepare(model)

    names = [node.name for node in ChannelGraph(prepared).nodes]
    assert sum(name.startswith("not_equal") for name in names) == 1
    seen.clear()
    x = np.array([[1, 0, 2, 0, 3]])
    assert relative_error(outputs_of(prepared, x), outputs_of(model, x)) == 0
    for mask in seen:  # behind `words` and behind `fc`
        assert mask.numpy().tolist() == [[True, False, True, False, True]]
    assert len(seen) == 2
    assert error_of_removal(prepared, {"fc": [1], "words": [0]}) <= 1e-10


def test_a_penalized_layer_that_takes_masks_becomes_one_that_takes_none(
    monkeypatch,
):
    kind = kddp.layers.ActivityRegularizedDense
    plain = layers.Dense.call
    monkeypatch.setattr(
        kind,
        "call",
        lambda self, inputs, training=None, mask=None: plain(self, inputs),
    )
    model = model_of(lambda x, ids: pooled(kind(4, name="fc")(x)))
    x = random_inputs(model, seed=2)
    finished = kddp.finalize(remove_units(model, {"fc": [0], "words": [1]}))
    expected = held_outputs(model, {"fc": [0], "words": [1]}, x)
    assert relative_error(outputs_of(finished, x), expected) <= 1e-10
    assert type(finished.get_layer("fc")) is layers.Dense


def test_two_masked_inputs_and_a_given_one():
    first, second = tokens("first"), tokens("second")
    given = keras.Input((5,), dtype="int8", name="given")
    layer = layers.Embedding(6, 4, mask_zero=True, name="words")
    sides = [dense(layer(first), 3, "a"), dense(layer(second), 2, "b")]
    x = layers.Concatenate(axis=1)(
        [dense(side, 3, f"{side.name}_same") for side in sides]
    )
    outputs = [
        layers.Dense(2)(layers.GRU(2)(x)),
        layers.Dense(2)(layers.LSTM(2)(sides[0], mask=given)),
    ]
    model = keras.Model([first, second, given], outputs)
    randomize(model, seed=1)
    assert error_of_removal(model, one_of_each_layer(model)) <= 1e-10


def test_what_is_observed_in_a_nested_model_obeys_the_mask_given_to_it():
    gru, fc = layers.GRU(2, return_sequences=True), layers.Dense(3, name="fc")
    inner = nested(lambda y: pooled(fc(gru(y))))
    by_name = model_of(lambda x, ids: inner(x, mask=ids > 2))
    ids = by_name.inputs[0]
    x = by_name.get_layer("words")(ids)
    flat = keras.Model(ids, layers.Dense(2)(pooled(fc(gru(x, mask=ids > 2)))))
    (x,) = random_inputs(flat, seed=2)

    received = kddp.collect_activity(by_name, x)["nested/fc"]
    expected = kddp.collect_activity(flat, x)["fc"]
    np.testing.assert_array_equal(received.mean_abs, expected.mean_abs)


def test_a_sequential_model_carries_its_mask():
    model = keras.Sequential(
        [
            tokens(),
            layers.Embedding(6, 4, mask_zero=True, name="words"),
            layers.Dense(4, "relu", name="fc"),
            layers.LSTM(3, return_sequences=True),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )
    randomize(model, seed=1)
    assert error_of_removal(model, {"words": [1], "fc": [0, 3]}) <= 1e-10


# Masking


def masked_vectors(body):
    inputs = keras.Input((5, 3), name="padded")
    return randomize(keras.Model(inputs, body(inputs)), seed=1)


@pytest.mark.parametrize("read", [layers.GRU(3), pooled], ids=["GRU", "mean"])
def test_behind_masked_inputs_units_leave(read):
    model = masked_vectors(
        lambda x: layers.Dense(2)(read(dense(layers.Masking()(x))))
    )
    assert error_of_removal(model, {"fc": [1, 2]}) <= 1e-10


def test_what_masking_reads_stays_since_a_step_is_masked_by_all_channels():
    model = masked_vectors(
        lambda x: layers.Dense(2)(
            pooled(dense(layers.Masking(name="m")(dense(x, 4, "before"))))
        )
    )
    reason = "leaves out the steps at which all its channels have one value"
    assert reason_of(model, "before") == f"m (Masking) {reason}"
    with pytest.raises(SurgeryError, match=reason):
        remove_units(model, {"before": [0]})
    assert error_of_removal(model, {"fc": [1, 2]}) <= 1e-10


def test_a_mask_computed_from_all_channels_keeps_them():
    model = masked_vectors(
        lambda x: (
            lambda h: layers.Dense(2)(
                pooled(dense(h), mask=ops.any(h > 0, axis=-1))
            )
        )(dense(x, 4, "before"))
    )
    assert "computes a mask from all its channels" in reason_of(model, "before")
    assert error_of_removal(model, {"fc": [1, 2]}) <= 1e-10


def test_no_rule_calls_what_a_mask_is_computed_with_an_obstacle():
    text = explain(model_of(strung))
    for name in ("not_equal", "zeros_like", "logical_or", "any"):
        assert f"\n{name}" not in text


# Constants


def observed_apart(make, *, second_mask=True):
    """Returns `make` of two layers that are read elsewhere too.

    They are observed in front of `make`, and may be held at two values.
    """
    first, second = tokens("first"), tokens("second")
    words = layers.Embedding(6, 4, mask_zero=True)
    others = layers.Embedding(6, 4, mask_zero=second_mask)
    a, b = dense(words(first), 3, "a"), dense(others(second), 3, "b")
    outputs = [layers.Dense(2)(pooled(x)) for x in (make()([a, b]), a, b)]
    return randomize(keras.Model([first, second], outputs), seed=1)


@pytest.mark.parametrize(
    ("make", "second_mask", "values", "folds"),
    [
        # Where a mask leaves one side out, the other one is left.
        (layers.Maximum, True, (1.0, 2.0), False),
        (layers.Minimum, True, (0.0, 2.0), False),
        (layers.Maximum, True, (2.0, 2.0), True),
        (layers.Maximum, False, (1.0, 2.0), False),
        (layers.Multiply, True, (0.0, 2.0), False),
        (layers.Multiply, True, (2.0, 2.0), False),
        (layers.Multiply, True, (0.0, 0.0), True),
        (layers.Multiply, False, (2.0, 0.0), True),  # 0 where b has no mask
        (layers.Multiply, False, (0.0, 2.0), False),
        (layers.Add, True, (1.0, 2.0), True),
        (layers.Average, True, (1.0, 2.0), True),
        (layers.Subtract, False, (1.0, 2.0), True),
    ],
)
def test_of_joined_constants_only_what_no_mask_changes_folds(
    make, second_mask, values, folds
):
    model = observed_apart(make, second_mask=second_mask)
    units = {"a": [1], "b": [1]}
    constants = {name: {1: x} for name, x in zip("ab", values, strict=True)}
    if folds:
        assert error_of_removal(model, units, constants) <= 1e-10
        return
    with pytest.raises(SurgeryError, match="is no constant behind"):
        plan_removal(model, units, constants=constants)


@pytest.mark.parametrize(
    "reduce",
    [pooled, layers.GRU(3), layers.Flatten(), lambda x: ops.sum(x, axis=1)],
    ids=["mean", "GRU", "Flatten", "an operation"],
)
def test_where_masks_have_ended_a_zero_makes_a_product_zero(reduce):
    def body(x, ids):
        x = reduce(x)
        a, b = dense(x, 3, "a"), dense(x, 3, "b")
        return layers.Concatenate()([layers.Multiply()([a, b]), a, b])

    model = model_of(body)
    constants = {"a": {1: 0.0}, "b": {1: 2.0}}
    units = {"a": [1], "b": [1]}
    assert error_of_removal(model, units, constants) <= 1e-10


@pytest.mark.parametrize("training", [None, True, False])
def test_in_training_a_masked_mean_leaves_of_a_constant_only_zero(training):
    """Keras divides by the number of steps and a little more."""
    options = {} if training is None else {"training": training}

    def body(x, ids):
        first = dense(x)
        bn = layers.BatchNormalization(name="bn")
        loose = layers.Dense(2, name="loose")(pooled(first))
        y = layers.Dense(2)(pooled(bn(first, **options)))
        return layers.Concatenate()([loose, y])

    model = model_of(body)
    graph = ChannelGraph(model)
    group = {int(graph.group_numbers[graph.units["fc"][1]])}
    at_zero = fold_constants(graph, group, {"fc": {1: 0.0}}, training=True)
    elsewhere = fold_constants(graph, group, {"fc": {1: 3.0}}, training=True)
    assert "in training" in str(at_zero.refusals)  # the shift, not its mean
    assert "no constant behind bn" in str(elsewhere.refusals)
    assert error_of_removal(model, {"fc": [1]}, {"fc": {1: 3.0}}) <= 1e-10


class StepsThatCount(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if mask is None:
            return inputs
        return inputs * ops.cast(mask, inputs.dtype)[..., None]


class StepsThatCountRule(kddp.surgery.Rule):
    channelwise = True
    monotone = True

    def flow(self, call):
        assert call.takes_mask
        assert call.inputs[0] is call.channels[0].labels
        return call.channels[0]


def test_a_layer_of_ones_own_that_looks_at_masks_passes_units_but_no_constant(
    monkeypatch,
):
    monkeypatch.setattr("keras_kddp.surgery.registry._RULES", rules())
    kddp.surgery.register_rule(StepsThatCount)(StepsThatCountRule)

    def own(x):
        return pooled(StepsThatCount(name="own")(x))

    model = model_of(lambda x, ids: own(dense(x)))  # observed behind it
    assert error_of_removal(model, {"fc": [1]}, {"fc": {1: 2.0}}) <= 1e-10

    model = model_of(
        lambda x, ids: layers.Add()([own(h := dense(x)), pooled(h)])
    )
    with pytest.raises(SurgeryError, match="is no constant behind own"):
        plan_removal(model, {"fc": [1]}, constants={"fc": {1: 2.0}})


def test_bounds_hold_for_a_mean_over_the_steps_of_a_mask():
    inputs = keras.Input((2, 1))
    mean = pooled(inputs, mask=inputs[:, :, 0] > 0)
    fc = layers.Dense(1, name="fc")
    model = keras.Model(inputs, layers.Dense(1)(fc(mean)))
    fc.set_weights([np.array([[3.0]]), np.array([4.0])])
    low, high = activity_bounds(ChannelGraph(model), (-1.0, 1.0))["fc"]
    assert low == pytest.approx([4 - 3], rel=1e-3)
    assert high == pytest.approx([4 + 3], rel=1e-3)
