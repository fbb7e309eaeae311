"""Default soft targets are for class scores, and say so at `compile`."""

import functools

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY, Subclassed
from helpers import variable_values

import keras_kddp as kddp

losses = keras.losses
X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1])
MESSAGE = "The default soft targets put a softmax over the outputs"


def model(*activations, structure=list):
    """Returns a model with an output `a`, `b`, ... of each activation."""
    inputs = keras.Input((3,))
    outputs = [
        keras.layers.Dense(3, activation, name=name)(inputs)
        for name, activation in zip("ab", activations, strict=False)
    ]
    if structure is dict:
        outputs = dict(zip(["tags", "digit"], outputs, strict=True))
    return keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs)


def compiled(loss, *activations, structure=list, **arguments):
    models = [model(*activations, structure=structure) for _ in range(2)]
    distiller = kddp.Distiller(*models, **arguments)
    distiller.compile("sgd", loss, run_eagerly=True)
    return distiller


def with_gamma(y, outputs):
    """A loss of the user's own."""
    return losses.sparse_categorical_crossentropy(y, outputs, from_logits=True)


class OwnLoss(losses.Loss):
    """A class of the user's own."""

    def call(self, y, outputs):
        """Returns the losses of a batch."""
        return with_gamma(y, outputs)


class Renamed(losses.MeanSquaredError):
    """Still squares."""


@pytest.mark.parametrize("activation", [None, "softmax", "log_softmax"])
@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "categorical_crossentropy",
        "crossentropy",
        "kl_divergence",
        "CategoricalFocalCrossentropy",
        losses.categorical_crossentropy,
        losses.SparseCategoricalCrossentropy(from_logits=True),
        losses.CategoricalFocalCrossentropy(),
        losses.CategoricalHinge(),
        losses.KLDivergence(),
        functools.partial(
            losses.sparse_categorical_crossentropy, from_logits=True
        ),
        with_gamma,
        OwnLoss(),
        lambda y, outputs: with_gamma(y, outputs),
    ],
)
def test_class_scores_have_the_default_soft_targets(loss, activation):
    distiller = compiled(loss, activation)

    assert isinstance(distiller.distillation_losses[0], kddp.SoftTargets)


REFUSED = [
    "binary_crossentropy",
    "BinaryCrossentropy",
    "mse",
    "mae",
    losses.BinaryCrossentropy(from_logits=True),
    losses.BinaryFocalCrossentropy(from_logits=True),
    losses.Huber(),
    losses.CosineSimilarity(),
    losses.Poisson(),
    losses.LogCosh(),
    losses.Hinge(),
    losses.mean_squared_error,
    functools.partial(losses.binary_crossentropy, from_logits=True),
    Renamed(),
]


@pytest.mark.parametrize("loss", REFUSED)
def test_losses_of_independent_numbers_refuse_them(loss):
    with pytest.raises(ValueError, match=MESSAGE):
        compiled(loss, None)


@pytest.mark.parametrize("loss", REFUSED[::5])
@pytest.mark.parametrize(
    "arguments",
    [
        {"distillation_losses": kddp.SoftTargets()},
        {
            "distillation_losses": keras.distillation.LogitsDistillation(
                1.0, loss="mse"
            )
        },
        {"student_loss_weight": 1},
    ],
)
def test_who_chose_something_else_is_not_refused(loss, arguments):
    compiled(loss, None, **arguments)


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy", losses.Dice()])
def test_softmax_outputs_are_class_scores_under_any_loss(loss):
    history = compiled(loss, "softmax").fit(X, np.eye(3)[Y], verbose=0)

    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("loss", [None, with_gamma, OwnLoss()])
@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus"])
def test_without_a_known_loss_the_last_activation_decides(loss, activation):
    with pytest.raises(ValueError, match=f"which ends in {activation}"):
        compiled(loss, activation, student_loss_weight=0)
    compiled(loss, None, student_loss_weight=0)


def test_the_refusal_says_what_fits_and_changes_nothing():
    distiller = compiled(CROSSENTROPY, None)
    optimizer, loss = distiller.optimizer, distiller.loss
    before = variable_values(distiller)

    message = (
        r"loss=BinaryCrossentropy, which ends in linear: .*LogitsDistillation"
        r"\(1.0, loss='mse'\).*FeatureHints.*student_loss_weight=1"
    )
    with pytest.raises(ValueError, match=message):
        distiller.compile("adam", losses.BinaryCrossentropy(from_logits=True))

    assert distiller.optimizer is optimizer and distiller.loss is loss
    for now, then in zip(variable_values(distiller), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("loss", "structure", "name"),
    [
        ([CROSSENTROPY, "mse"], list, "b"),
        ({"a": "mse", "b": CROSSENTROPY}, list, "a"),
        ({"tags": "mse", "digit": CROSSENTROPY}, dict, "tags"),
        ({"tags": CROSSENTROPY, "digit": "mae"}, dict, "digit"),
        ({"tags": [CROSSENTROPY], "digit": ["mae"]}, dict, "digit"),
        ({"digit": "mae"}, dict, "digit"),
        ([None, "mse"], list, "b"),
        ([[CROSSENTROPY, "mse"], ["mse"]], list, "b"),
        ("mse", list, "a"),
    ],
)
def test_the_output_is_named_among_several(loss, structure, name):
    with pytest.raises(ValueError, match=f"for output '{name}', which ends"):
        compiled(loss, None, None, structure=structure)


@pytest.mark.parametrize(
    "loss",
    [
        {"digit": CROSSENTROPY},
        {"digit": CROSSENTROPY, "tags": None},
        {"digit": CROSSENTROPY, "tags": "mse"},
    ],
)
def test_each_output_is_judged_by_itself(loss):
    compiled(loss, "softmax", None, structure=dict)  # tags, digit


def test_a_subclassed_student_is_judged_by_its_losses():
    def distiller():
        teacher = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        return kddp.Distiller(teacher, Subclassed())

    distiller().compile("sgd", CROSSENTROPY)
    distiller().compile("sgd", with_gamma)
    with pytest.raises(ValueError, match="Received: loss='mse': numbers "):
        distiller().compile("sgd", "mse")
    with pytest.raises(ValueError, match="loss='mae' for output 'b': numbers"):
        distiller().compile("sgd", {"a": CROSSENTROPY, "b": "mae"})


def test_labels_alone_train_what_ends_in_sigmoid():
    distiller = compiled(
        "binary_crossentropy", "sigmoid", student_loss_weight=1
    )
    student = model("sigmoid")
    student.set_weights(distiller.student.get_weights())
    student.compile("sgd", "binary_crossentropy", run_eagerly=True)

    for each in (distiller, student):
        each.fit(X, np.eye(3)[Y], shuffle=False, verbose=0)

    for one, other in zip(
        distiller.student.weights, student.weights, strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_number_for_each_example_is_no_class_score():
    def numbers():
        x = keras.Input((3,))
        return keras.Model(
            x, keras.layers.Reshape(())(keras.layers.Dense(1)(x))
        )

    with pytest.raises(ValueError, match=r"outputs of shape \(None,\)"):
        kddp.Distiller(numbers(), numbers())


@pytest.mark.parametrize(
    ("loss", "activation", "arguments"),
    [
        ("mse", None, {"distillation_losses": kddp.SoftTargets()}),
        ("binary_crossentropy", "sigmoid", {"student_loss_weight": 1}),
        (CROSSENTROPY, None, {}),
    ],
)
def test_a_loaded_distiller_compiles_as_the_saved_one(
    loss, activation, arguments, tmp_path
):
    distiller = compiled(loss, activation, **arguments)
    y = Y if loss is CROSSENTROPY else np.eye(3)[Y]
    before = distiller.evaluate(X, y, verbose=0)
    distiller.save(tmp_path / "distiller.keras")

    loaded = keras.models.load_model(tmp_path / "distiller.keras")

    assert loaded.evaluate(X, y, verbose=0) == pytest.approx(before)


@pytest.mark.parametrize(
    ("arranged", "loss", "advised"),
    [
        (
            lambda a, b: [a, b],
            [CROSSENTROPY, "mse"],
            "[keras.losses.KLDivergence(), 'mse']",
        ),
        (
            lambda a, b: {"tags": a, "digit": b},
            {"tags": CROSSENTROPY, "digit": "mse"},
            "{'tags': keras.losses.KLDivergence(), 'digit': 'mse'}",
        ),
        (
            lambda a, b: {"x": {"p": a}, "q": b},
            {"x": {"p": CROSSENTROPY}, "q": "mse"},
            "{'x': {'p': keras.losses.KLDivergence()}, 'q': 'mse'}",
        ),
        (lambda a, b: [b], "mse", "'mse'"),  # Keras returns it alone
        (lambda a, b: {"b": b}, {"b": "mse"}, "{'b': 'mse'}"),
        (lambda a, b: b, "mse", "'mse'"),
    ],
    ids=["list", "dict", "nested", "list of one", "dict of one", "one"],
)
def test_the_advised_losses_fit_the_outputs(arranged, loss, advised):
    plain = [model(None, None) for _ in range(2)]
    models = [keras.Model(m.input, arranged(*m.outputs)) for m in plain]

    with pytest.raises(ValueError, match=MESSAGE) as refusal:
        kddp.Distiller(*models).compile("sgd", loss)

    code = f"keras.distillation.LogitsDistillation(1.0, loss={advised})"
    assert code in str(refusal.value)
    distiller = kddp.Distiller(*models, eval(code))  # noqa: S307
    distiller.compile("sgd", loss)
    assert np.isfinite(float(distiller.compute_loss(X, None)))


@pytest.mark.parametrize(
    "loss",
    [
        losses.SparseCategoricalCrossentropy,
        losses.KLDivergence,
        OwnLoss,
        [losses.CategoricalHinge, "mse"],
    ],
)
def test_losses_may_be_given_as_classes(loss):
    compiled(loss, None, *(["softmax"] if isinstance(loss, list) else []))


@pytest.mark.parametrize("loss", [losses.MeanSquaredError, Renamed])
def test_classes_of_independent_numbers_refuse_them(loss):
    with pytest.raises(ValueError, match=f"loss={loss.__name__}, which ends"):
        compiled(loss, None)
