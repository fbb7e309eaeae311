"""Penalties go in where units can leave, and come out without a trace."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from helpers import randomize, to_numpy

from keras_kddp import finalize, prepare
from keras_kddp.layers.penalized_models import penalty_layers
from keras_kddp.layers.penalties import (
    ActivityPenalty,
    ActivityRegularizedDense,
)


def sequential():
    """Dense - Dropout - Dense."""
    return keras.Sequential(
        [
            keras.Input((4,), name="pixels"),
            keras.layers.Dense(3, "relu", name="fc"),
            keras.layers.Dropout(0.5, name="drop"),
            keras.layers.Dense(2, name="out"),
        ],
        name="student",
    )


def functional():
    """The same as a Functional model."""
    pixels = keras.Input((4,), name="pixels")
    hidden = keras.layers.Dense(3, "relu", name="fc")(pixels)
    hidden = keras.layers.Dropout(0.5, name="drop")(hidden)
    outputs = keras.layers.Dense(2, name="out")(hidden)
    return keras.Model(pixels, outputs, name="student")


def convolutional():
    """Conv - BatchNorm - ReLU - pool, Conv - pool - Flatten, Dense - Dense."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="pixels"),
            keras.layers.Conv2D(4, 3, use_bias=False, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.MaxPooling2D(name="pool"),
            keras.layers.Conv2D(3, 2, activation="relu", name="conv_2"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(5, "relu", name="fc"),
            keras.layers.Dense(2, name="out"),
        ]
    )


def residual():
    """A block whose two convolutions meet in an Add."""
    pixels = keras.Input((4, 4, 1), name="pixels")
    first = keras.layers.Conv2D(3, 3, padding="same", name="first")(pixels)
    first = keras.layers.ReLU(name="first_relu")(first)
    second = keras.layers.Conv2D(3, 3, padding="same", name="second")(first)
    hidden = keras.layers.Add(name="add")([first, second])
    hidden = keras.layers.ReLU(name="add_relu")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pool")(hidden)
    hidden = keras.layers.Dense(4, "relu", name="fc")(hidden)
    return keras.Model(pixels, keras.layers.Dense(2, name="out")(hidden))


def raw_operations():
    """Two branches that meet in `+` and `keras.ops.relu`."""
    pixels = keras.Input((4,), name="pixels")
    left = keras.layers.Dense(3, name="left")(pixels)
    right = keras.layers.Dense(3, name="right")(pixels)
    hidden = keras.ops.relu(left + right)
    return keras.Model(pixels, keras.layers.Dense(2, name="out")(hidden))


def shared():
    """A layer called on two inputs, which come in a dict; one named output."""
    inputs = {name: keras.Input((4,), name=name) for name in ("left", "right")}
    layer = keras.layers.Dense(3, "relu", name="shared")
    left = keras.layers.Dense(2, name="left_out")(layer(inputs["left"]))
    right = keras.layers.Dense(2, name="right_out")(layer(inputs["right"]))
    outputs = {"out": keras.layers.Add(name="out")([left, right])}
    return keras.Model(inputs, outputs)


STUDENTS = [
    sequential,
    functional,
    convolutional,
    residual,
    raw_operations,
    shared,
]


def names_of(model):
    return [layer.name for layer in model.layers]


def inputs_of(model):
    """Returns three rows for every input, in the model's structure."""
    random = np.random.default_rng(0)
    symbols = model.inputs[0] if len(model.inputs) == 1 else model.input
    return keras.tree.map_structure(
        lambda symbol: random.normal(size=(3, *symbol.shape[1:])), symbols
    )


def predict(model, x):
    (outputs,) = keras.tree.flatten(model(x, training=False))
    return to_numpy(outputs)


@pytest.mark.parametrize("make", STUDENTS)
def test_preparing_keeps_the_outputs_to_the_bit(make):
    student = randomize(make(), seed=0)
    x = inputs_of(student)

    prepared = prepare(student)

    np.testing.assert_array_equal(predict(prepared, x), predict(student, x))


@pytest.mark.parametrize("make", STUDENTS)
def test_finalizing_gives_back_the_very_model_that_was_prepared(make):
    student = randomize(make(), seed=0)

    result = finalize(prepare(student))

    assert type(result) is type(student)
    assert result.get_config() == student.get_config()
    for new, old in zip(result.weights, student.weights, strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("make", [sequential, functional])
def test_a_dense_layer_is_charged_before_its_dropout(make):
    names = names_of(prepare(make()))

    start = names.index("fc")
    assert names[start:] == ["fc", "fc_penalty", "drop", "out"]


def test_a_convolution_is_charged_behind_its_activation_before_the_pooling():
    assert names_of(prepare(convolutional())) == [
        *["conv", "norm", "relu", "relu_penalty", "pool"],
        *["conv_2", "conv_2_penalty", "flat"],
        *["fc", "fc_penalty", "out"],
    ]


def test_a_residual_sum_is_charged_behind_its_activation():
    assert names_of(prepare(residual())) == [
        *["pixels", "first", "first_relu", "first_relu_penalty", "second"],
        *["add", "add_relu", "add_relu_penalty", "pool"],
        *["fc", "fc_penalty", "out"],
    ]


def test_raw_operations_are_charged_where_they_end():
    student = raw_operations()
    (hidden,) = (x for x in student.operations if "relu" in x.name)

    names = names_of(prepare(student))

    assert names[-2:] == [f"{hidden.name}_penalty", "out"]


def test_a_shared_layer_is_charged_at_every_call():
    names = names_of(prepare(shared()))

    penalties = [name for name in names if "penalty" in name]
    assert penalties == ["shared_penalty", "shared_penalty_1"]


def test_a_layer_that_already_has_the_name_of_a_penalty_keeps_it():
    student = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, "relu", name="fc"),
            keras.layers.Dropout(0.5, name="fc_penalty"),
            keras.layers.Dense(2, name="out"),
        ]
    )

    prepared = prepare(student)

    assert names_of(prepared) == ["fc", "fc_penalty_", "fc_penalty", "out"]
    assert finalize(prepared).get_config() == student.get_config()


def test_the_charge_is_in_the_losses_of_the_prepared_student_only():
    student = sequential()
    prepared = prepare(student, l1=0.5)
    x = inputs_of(student)

    student(x, training=True)
    prepared(x, training=True)

    hidden = np.maximum(x @ student.layers[0].kernel, 0)
    expected = 0.5 * hidden.mean(axis=0).sum()
    assert student.losses == []
    assert [float(loss) for loss in prepared.losses] == [
        pytest.approx(expected, rel=1e-5)
    ]


def test_the_student_that_is_prepared_is_left_as_it_was():
    student = randomize(residual(), seed=0)
    student.compile("sgd", "mse")
    config, weights = student.get_config(), student.get_weights()

    prepared = prepare(student)
    for weight in prepared.weights:
        weight.assign(keras.ops.zeros_like(weight))

    assert student.compiled and not prepared.compiled
    assert student.get_config() == config
    for now, before in zip(student.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, before)


def test_frozen_layers_and_their_dtypes_stay_as_they_are():
    student = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, "relu", name="fc", trainable=False),
            keras.layers.Dense(3, "relu", name="half", dtype="mixed_float16"),
            keras.layers.Dense(2, name="out", dtype="float64"),
        ]
    )

    prepared = prepare(student)

    assert not prepared.get_layer("fc").trainable
    policies = [layer.dtype_policy.name for layer in prepared.layers]
    assert policies == [
        *["float32", "float32"],
        *["mixed_float16", "float16"],
        "float64",
    ]


def test_preparing_draws_no_random_numbers():
    student = sequential()
    keras.utils.set_random_seed(7)
    expected = np.random.random(), float(keras.random.normal(()))
    keras.utils.set_random_seed(7)

    finalize(prepare(student))

    assert (np.random.random(), float(keras.random.normal(()))) == expected


def test_preparing_again_updates_the_charge_and_keeps_the_strength():
    prepared = prepare(convolutional(), l1=0.1)
    prepared.get_layer("fc_penalty").strength.assign(0.25)

    again = prepare(prepared, l1=0.5)

    assert names_of(again) == names_of(prepared)
    assert [x.l1 for x in penalty_layers(prepared)] == [0.1] * 3
    assert [x.l1 for x in penalty_layers(again)] == [0.5] * 3
    assert float(again.get_layer("fc_penalty").strength) == 0.25


def test_preparing_again_without_names_adds_no_layer():
    prepared = prepare(convolutional(), layers=["fc"])

    again = prepare(prepared, l1=0.5)

    assert [x.name for x in penalty_layers(again)] == ["fc_penalty"]


def test_layers_can_be_prepared_one_after_the_other():
    prepared = prepare(convolutional(), 0.1, layers=["fc"])

    prepared = prepare(prepared, 0.5, layers=["conv"])

    charges = {x.name: x.l1 for x in penalty_layers(prepared)}
    assert charges == {"relu_penalty": 0.5, "fc_penalty": 0.1}


def test_only_the_named_layers_are_charged():
    prepared = prepare(residual(), layers=["first", "second"])

    assert [x.name for x in penalty_layers(prepared)] == [
        *["first_relu_penalty", "add_relu_penalty"]
    ]


def test_a_regularized_dense_is_charged_already_and_ends_as_a_dense():
    student = keras.Sequential(
        [
            keras.Input((4,)),
            ActivityRegularizedDense(3, l1=0.1, name="fc"),
            keras.layers.Dense(2, name="out"),
        ]
    )
    x = inputs_of(student)

    prepared = prepare(student, l1=0.5)
    result = finalize(prepared)

    assert names_of(prepared) == ["fc", "out"]
    assert prepared.get_layer("fc").l1 == 0.5
    assert type(result.get_layer("fc")) is keras.layers.Dense
    np.testing.assert_array_equal(predict(prepared, x), predict(student, x))
    np.testing.assert_array_equal(predict(result, x), predict(student, x))


def test_finalizing_takes_out_penalties_put_in_by_hand():
    pixels = keras.Input((4,))
    hidden = keras.layers.Dense(3, "relu", name="fc")(pixels)
    hidden = ActivityPenalty(name="one")(ActivityPenalty(name="two")(hidden))
    outputs = keras.layers.Dense(2, name="out")(hidden)
    student = keras.Model(pixels, ActivityPenalty(name="last")(outputs))
    x = inputs_of(student)

    result = finalize(student)

    assert names_of(result)[1:] == ["fc", "out"]
    np.testing.assert_array_equal(predict(result, x), predict(student, x))


def test_finalizing_a_plain_model_copies_it():
    student = randomize(sequential(), seed=0)

    result = finalize(student)

    assert result is not student
    assert result.get_config() == student.get_config()


PLAIN_PROCESS = """
    import importlib.abc, sys

    class Blocker(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "keras_kddp":
                raise ModuleNotFoundError("keras_kddp is not installed here")

    sys.meta_path.insert(0, Blocker())
    try:
        import keras_kddp
    except ModuleNotFoundError:
        pass
    else:
        raise SystemExit("keras_kddp could be imported")

    import keras, numpy
    folder = sys.argv[1]
    x = numpy.load(folder + "/x.npy")
    for name in ("sequential", "residual", "regularized"):
        model = keras.models.load_model(f"{folder}/{name}.keras")
        expected = numpy.load(f"{folder}/{name}.npy")
        inputs = x[:, 0, :, 0] if len(model.input_shape) == 2 else x
        received = keras.ops.convert_to_numpy(model(inputs, training=False))
        numpy.testing.assert_array_equal(received, expected)
        before = model.get_weights()
        # XLA would take most of the time.
        model.compile("sgd", "mse", metrics=["mae"], jit_compile=False)
        history = model.fit(inputs, 0 * expected + 1, epochs=2, verbose=0)
        loss = history.history["loss"]
        assert numpy.isfinite(loss).all() and len(loss) == 2
        after = model.get_weights()
        assert any((a != b).any() for a, b in zip(after, before))
    print("plain")
"""


def test_the_result_works_where_keras_kddp_cannot_be_imported(tmp_path):
    regularized = keras.Sequential(
        [
            keras.Input((4,)),
            ActivityRegularizedDense(3),
            keras.layers.Dense(2),
        ]
    )
    students = {
        "sequential": prepare(sequential()),
        "residual": prepare(residual()),
        "regularized": regularized,
    }
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    for name, student in students.items():
        result = finalize(randomize(student, seed=0))
        rows = x if name == "residual" else x[:, 0, :, 0]
        np.save(tmp_path / f"{name}.npy", predict(result, rows))
        result.save(tmp_path / f"{name}.keras")

    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PLAIN_PROCESS), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[-1] == "plain"


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


class FunctionalSubclass(keras.Model):
    def __init__(self, units=3):
        pixels = keras.Input((4,))
        hidden = keras.layers.Dense(units, "relu")(pixels)
        super().__init__(pixels, keras.layers.Dense(2)(hidden))


@pytest.mark.parametrize("change", [prepare, finalize])
def test_a_subclassed_student_is_refused(change):
    with pytest.raises(ValueError, match="the subclassed model Subclassed"):
        change(Subclassed())


@pytest.mark.parametrize("change", [prepare, finalize])
def test_a_subclass_with_a_graph_is_refused_with_the_way_out(change):
    student = FunctionalSubclass()

    with pytest.raises(ValueError, match="keras.Model.student.inputs"):
        change(student)

    change(keras.Model(student.inputs, student.outputs))


@pytest.mark.parametrize("change", [prepare, finalize])
def test_a_student_that_is_not_built_is_refused(change):
    student = keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(2)])

    with pytest.raises(ValueError, match="give it an Input or call it once"):
        change(student)


@pytest.mark.parametrize("change", [prepare, finalize])
def test_what_is_no_model_is_refused(change):
    with pytest.raises(ValueError, match="must be a keras.Model. Received: st"):
        change("student.keras")


def test_a_student_without_removable_units_is_refused_with_the_reasons():
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])

    with pytest.raises(ValueError, match="(?s)must have a layer.*an output of"):
        prepare(student)


@pytest.mark.parametrize("l1", [-1.0, float("nan"), "0.1"])
def test_an_l1_out_of_range_is_refused(l1):
    with pytest.raises(ValueError, match="`l1` must be a finite number >= 0"):
        prepare(sequential(), l1=l1)


@pytest.mark.parametrize("layers", ["fc", [], ()])
def test_layers_that_are_no_list_of_names_are_refused(layers):
    with pytest.raises(ValueError, match="`layers` must be a list of layer"):
        prepare(sequential(), layers=layers)


@pytest.mark.parametrize("name", ["nope", "out", "drop"])
def test_a_layer_without_removable_units_is_refused(name):
    message = rf"layers with removable units: \['fc'\]. Received: '{name}'"
    with pytest.raises(ValueError, match=message):
        prepare(sequential(), layers=["fc", name])


def test_a_layer_without_its_partner_is_refused():
    message = r"'first' leave only together with those of \['second'\]"
    with pytest.raises(ValueError, match=message):
        prepare(residual(), layers=["first", "fc"])


def test_a_penalty_inside_a_nested_model_goes_in_and_out():
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, "relu", name="fc")],
        name="inner",
    )
    inputs = keras.Input((4,))
    both = keras.layers.Concatenate()([inner(inputs), inner(2 * inputs)])
    student = keras.Model(inputs, keras.layers.Dense(2)(both))
    prepared = prepare(student, l1=0.5)
    penalty = prepared.get_layer("inner").get_layer("fc_penalty")
    assert penalty.l1 == 0.5
    assert prepare(prepared, l1=0.25).get_layer("inner").layers[-1].l1 == 0.25
    x = np.ones((2, 4))
    prepared(x, training=True)
    activities = [inner(x), inner(2 * x)]
    expected = sum(0.5 * np.abs(a).mean(0).sum() for a in activities)
    assert sum(map(float, prepared.losses)) == pytest.approx(expected)
    plain = finalize(prepared)
    assert [layer.name for layer in plain.get_layer("inner").layers] == ["fc"]
    np.testing.assert_array_equal(plain(x), student(x))


def test_a_penalty_inside_a_wrapper_is_refused():
    wrapped = keras.layers.TimeDistributed(
        ActivityRegularizedDense(3, name="inner")
    )
    student = keras.Sequential(
        [
            keras.Input((5, 4)),
            wrapped,
            keras.layers.Flatten(),
            keras.layers.Dense(5),
            keras.layers.Dense(2),
        ]
    )
    for act in (prepare, finalize):
        with pytest.raises(ValueError, match="'inner' inside a wrapper"):
            act(student)


def test_a_subclass_of_a_penalty_is_refused():
    class Louder(ActivityPenalty):
        pass

    student = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="relu"),
            Louder(name="louder"),
            keras.layers.Dense(2),
        ]
    )
    for act in (prepare, finalize):
        with pytest.raises(ValueError, match="'louder' of the subclass Louder"):
            act(student)


def test_a_penalty_that_stands_elsewhere_is_refused():
    student = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            ActivityPenalty(name="late"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    with pytest.raises(ValueError, match="'late' must follow"):
        prepare(student)
