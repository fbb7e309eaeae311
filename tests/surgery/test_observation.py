"""Units in front of noise are observed behind the activation that follows."""

import keras
import numpy as np
import pytest
from helpers import error_of_removal, float64, observed_names, randomize
from known_activity import BIAS, KERNEL, X, fit, make_distiller, pruning

from keras_kddp import collect_activity, prepare
from keras_kddp.surgery import ChannelGraph
from keras_kddp.surgery.folding import fold_constants

layers = keras.layers

NOISES = {
    "Dropout": lambda: layers.Dropout(0.5),
    "GaussianDropout": lambda: layers.GaussianDropout(0.5),
    "GaussianNoise": lambda: layers.GaussianNoise(0.1),
}
ACTIVATIONS = {
    "ReLU": lambda: layers.ReLU(name="last"),
    "LeakyReLU": lambda: layers.LeakyReLU(name="last"),
    "PReLU": lambda: layers.PReLU(name="last"),
    "tanh": lambda: layers.Activation("tanh", name="last"),
}


def dense_with(*middle, activation=None) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, activation, name="fc"),
            *middle,
            layers.Dense(2, name="out", kernel_initializer="ones"),
        ]
    )


def known_student(*middle) -> keras.Model:
    """Unit 2 is dead behind a ReLU."""
    student = dense_with(*middle)
    student.get_layer("fc").set_weights([KERNEL, BIAS - [0, 0, 49, 0]])
    return student


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_passed_on_the_way_to_an_activation(noise, activation):
    model = dense_with(NOISES[noise](), ACTIVATIONS[activation]())
    assert observed_names(model, "fc") == ["last"]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_whole_channels_that_are_dropped_are_passed(rank):
    convolution = getattr(layers, f"Conv{rank}D")
    model = keras.Sequential(
        [
            keras.Input((*[3] * rank, 2)),
            convolution(3, 1, name="conv"),
            layers.BatchNormalization(),
            getattr(layers, f"SpatialDropout{rank}D")(0.2),
            layers.ReLU(name="last"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    assert observed_names(model, "conv") == ["last"]


@pytest.mark.parametrize(
    ("middle", "observed"),
    [
        ([layers.Dropout, layers.GaussianNoise, layers.ReLU], "last"),
        ([layers.Dropout, layers.Identity, layers.ReLU], "last"),
        ([layers.Dropout, layers.ReLU, layers.Dropout], "layer_1"),
        ([layers.Dropout, layers.ReLU, layers.BatchNormalization], "last"),
        ([layers.Dropout, layers.BatchNormalization, layers.ReLU], "fc"),
        ([layers.Dropout, layers.Identity], "fc"),
        ([layers.Dropout, layers.Dense, layers.ReLU], "fc"),
        ([layers.ReLU, layers.Dropout, layers.ReLU], "layer_0"),
    ],
)
def test_only_what_leads_to_the_first_activation_is_passed(middle, observed):
    arguments = {layers.Dense: [4]} | dict.fromkeys(
        [layers.Dropout, layers.GaussianNoise], [0.5]
    )
    names = [f"layer_{i}" for i in range(len(middle) - 1)] + ["last"]
    model = dense_with(
        *[
            kind(*arguments.get(kind, []), name=name)
            for kind, name in zip(middle, names, strict=True)
        ]
    )
    assert observed_names(model, "fc") == [observed]


@pytest.mark.parametrize(
    "behind",
    [
        lambda: [layers.Activation("sigmoid")],
        lambda: [layers.Rescaling(1.0, offset=1.0), layers.ReLU()],
    ],
    ids=["sigmoid", "offset"],
)
def test_what_makes_something_of_a_dropped_number_is_not_passed(behind):
    model = dense_with(layers.Dropout(0.5), *behind())
    assert observed_names(model, "fc") == ["fc"]


def test_an_activation_of_the_layer_itself_comes_before_the_noise():
    model = dense_with(layers.Dropout(0.5), layers.ReLU(), activation="relu")
    assert observed_names(model, "fc") == ["fc"]


def test_a_sum_behind_noise_is_not_passed():
    x = keras.Input((2,))
    hidden = layers.Dropout(0.5)(layers.Dense(2, name="fc")(x))
    total = layers.ReLU()(layers.Add()([hidden, layers.Dense(2)(x)]))
    model = keras.Model(x, layers.Dense(1)(total))
    assert observed_names(model, "fc") == ["fc"]


def test_a_unit_that_is_dead_behind_noise_and_activation_has_no_activity():
    student = known_student(layers.Dropout(0.5), layers.ReLU())
    activity = collect_activity(student, X)["fc"]
    np.testing.assert_array_equal(activity.live, [True, True, False, True])
    np.testing.assert_array_equal(activity.mean[:2], [10 / 4, 6 / 4])


@pytest.mark.parametrize("noise", NOISES)
def test_a_removal_is_exact_at_inference(noise):
    with float64():
        model = dense_with(NOISES[noise](), layers.ReLU())
        model = randomize(model, 0)
        assert error_of_removal(model, {"fc": [1]}) <= 1e-10
        held = {"fc": {1: 0.5}}
        assert error_of_removal(model, {"fc": [1]}, held) <= 1e-10


def refusals(noise, held) -> list[str]:
    """Returns why unit 1 cannot be held while training."""
    graph = ChannelGraph(dense_with(noise, layers.ReLU(name="bent")))
    group = {int(graph.group_numbers[graph.units["fc"][1]])}
    constants = {"fc": {1: held}}
    folding = fold_constants(graph, group, constants, training=True)
    return list(folding.refusals.values())


def test_a_zero_behind_dropout_and_activation_is_one_in_training_too():
    assert refusals(layers.Dropout(0.5), 0.0) == []


@pytest.mark.parametrize(
    ("noise", "held"),
    [("Dropout", 0.5), ("GaussianDropout", 0.0), ("GaussianNoise", 0.0)],
)
def test_what_noise_changes_in_front_of_an_activation_is_refused(noise, held):
    assert refusals(NOISES[noise](), held) == [
        "the noise of training gives it another mean behind bent (ReLU)"
    ]


@pytest.mark.parametrize("held", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["Dropout", "GaussianNoise"])
def test_noise_that_is_switched_off_changes_nothing(kind, held):
    assert refusals(getattr(layers, kind)(0.0), held) == []


def test_dead_units_leave_in_front_of_dropout_and_activation():
    student = prepare(known_student(layers.Dropout(0.5), layers.ReLU()))
    assert student.layers[3].name.endswith("_penalty")
    before = np.asarray(student(X))
    distiller = make_distiller(student)
    callback = pruning(criterion="never_active")

    assert fit(distiller, callback)["units"] == [4, 4, 3, 3]

    np.testing.assert_allclose(distiller.student(X), before, rtol=1e-6)
    (removal,) = callback.removals
    assert [x.unit for x in removal.certificates] == [2]


def test_units_that_may_fire_by_noise_are_told_before_training():
    noise = layers.GaussianDropout(0.5)
    student = prepare(known_student(noise, layers.ReLU(name="bent")))
    with pytest.warns(UserWarning, match="can never leave: 'fc' .* bent"):
        fit(make_distiller(student), pruning(criterion="never_active"))
