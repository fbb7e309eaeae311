"""Losses, metrics, labels and weights by output, as Keras takes them."""

import keras
import numpy as np
import pytest
from classifiers import CROSSENTROPY, Subclassed
from helpers import to_numpy

import keras_kddp as kddp

OURS = {"student_loss", "distillation_loss", "total_loss"}
X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
SCORE = np.array([0, 1, 2, 0, 1, 2, 0, 1])
BOX = np.array([1, 0, 1, 0, 1, 0, 1, 0])
FIRST = np.arange(8) % 3 / 2
LAST = np.arange(8) % 2 + 0.5
XE = CROSSENTROPY


def two_heads(structure=dict, width=4, seed=0):
    """Returns a model with the outputs `score` and `box`."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,))
    x = keras.layers.Dense(width, "relu", name="fc")(inputs)
    if structure is dict:  # the layers have names of their own
        outputs = {
            "score": keras.layers.Dense(3, name="a")(x),
            "box": keras.layers.Dense(2, name="b")(x),
        }
    else:
        outputs = [
            keras.layers.Dense(3, name="score")(x),
            keras.layers.Dense(2, name="box")(x),
        ]
    return keras.Model(inputs, outputs)


def distiller_of(make, **arguments):
    return kddp.Distiller(make(width=6, seed=1), make(), **arguments)


BY_NAME = {"score": SCORE, "box": BOX}
IN_ORDER = [SCORE, BOX]
WEIGHTS = {"score": FIRST, "box": LAST}
BOTH = {"score": XE, "box": XE}
ACCURACIES = {"score": ["accuracy"], "box": ["accuracy"]}

# structure, arguments of compile, arguments of fit
CASES = [
    (dict, {"loss": BOTH}, {"y": BY_NAME}),
    (dict, {"loss": XE}, {"y": BY_NAME}),
    (
        dict,
        {
            "loss": BOTH,
            "loss_weights": {"score": 1.0, "box": 0.5},
            "metrics": {"box": ["accuracy"]},
            "weighted_metrics": {"score": ["accuracy"]},
        },
        {"y": BY_NAME, "sample_weight": WEIGHTS},
    ),
    (dict, {"loss": {"score": XE}}, {"y": {"score": SCORE}}),
    (
        dict,
        {"loss": {"score": XE, "box": None}, "metrics": ACCURACIES},
        {"y": BY_NAME},
    ),
    (list, {"loss": BOTH, "metrics": ACCURACIES}, {"y": BY_NAME}),
    (
        list,
        {"loss": BOTH, "loss_weights": {"score": 1.0, "box": 0.5}},
        {"y": IN_ORDER, "sample_weight": [FIRST, LAST]},
    ),
    (list, {"loss": [XE, XE], "metrics": [["accuracy"], []]}, {"y": IN_ORDER}),
    (list, {"loss": XE}, {"y": IN_ORDER, "sample_weight": FIRST}),
    (list, {"loss": [XE, None]}, {"y": IN_ORDER}),
]


@pytest.mark.parametrize(("structure", "compiled", "given"), CASES)
def test_the_columns_are_those_of_the_student_alone_beside_ours(
    structure, compiled, given
):
    student = two_heads(structure)
    student.compile("sgd", **compiled, run_eagerly=True)
    alone = student.evaluate(X, **given, verbose=0, return_dict=True)
    distiller = distiller_of(lambda **k: two_heads(structure, **k))
    distiller.compile("sgd", **compiled, run_eagerly=True)

    logs = distiller.evaluate(X, **given, verbose=0, return_dict=True)

    assert set(logs) == set(alone) | OURS
    assert logs["student_loss"] == pytest.approx(alone.pop("loss"))
    assert {name: logs[name] for name in alone} == pytest.approx(alone)


@pytest.mark.parametrize("kind", ["Functional", "Sequential"])
def test_a_single_output_may_be_named_too(kind):
    def make(width=4, seed=0):
        keras.utils.set_random_seed(seed)
        layers = [
            keras.Input((3,)),
            keras.layers.Dense(width, "relu", name="fc"),
            keras.layers.Dense(3, name="score"),
        ]
        model = keras.Sequential(layers)
        if kind == "Functional":
            model = keras.Model(model.inputs[0], model.outputs[0])
        return model

    def logs(loss, metrics):
        distiller = distiller_of(make)
        distiller.compile("sgd", loss, metrics, run_eagerly=True)
        return distiller.evaluate(X, SCORE, verbose=0, return_dict=True)

    by_name = logs({"score": XE}, {"score": ["accuracy"]})

    assert by_name == logs(XE, ["accuracy"])
    assert set(by_name) == {"loss", "accuracy"} | OURS


def test_a_loss_for_an_output_that_is_not_there_is_refused():
    distiller = distiller_of(
        lambda **_: keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(3, name="score")]
        )
    )

    with pytest.raises(
        ValueError, match=r"the output \['score'\]. Received the"
    ):
        distiller.compile("sgd", {"box": XE})


def test_a_subclassed_student_has_outputs_without_names():
    distiller = kddp.Distiller(
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
        Subclassed(),
    )

    assert distiller.output_names is None
    distiller.compile("sgd", XE, ["accuracy"], run_eagerly=True)
    logs = distiller.evaluate(X, BOX, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "accuracy"} | OURS


def test_names_are_kept_by_a_replaced_and_by_a_loaded_student(tmp_path):
    distiller = distiller_of(two_heads)
    compiled = {"loss": BOTH, "metrics": ACCURACIES}
    distiller.compile("sgd", **compiled)
    before = distiller.fit(X, BY_NAME, verbose=0).history

    plan = kddp.plan_removal(distiller.student, {"fc": [1]})
    distiller.replace_student(plan)
    after = distiller.fit(X, BY_NAME, verbose=0).history
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")

    names = {"score_loss", "box_loss", "score_accuracy", "box_accuracy"}
    assert set(before) == set(after) == {"loss"} | names | OURS
    assert loaded.output_names == distiller.output_names == ["b", "a"]
    logs = [
        model.evaluate(X, BY_NAME, verbose=0, return_dict=True)
        for model in (loaded, distiller)
    ]
    assert logs[0] == pytest.approx(logs[1])
    assert set(logs[0]) == set(before)


@pytest.mark.parametrize("has_teacher", [True, False])
@pytest.mark.parametrize("as_dataset", [True, False])
def test_packed_inputs_have_the_same_columns(has_teacher, as_dataset):
    teacher = two_heads(width=6, seed=1)
    live = kddp.Distiller(teacher, two_heads())
    distiller = kddp.Distiller(teacher if has_teacher else None, two_heads())
    for each in (live, distiller):
        each.compile("sgd", loss=BOTH, metrics=ACCURACIES, run_eagerly=True)
    if as_dataset:
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((X, BY_NAME)).batch(8)
        given = (kddp.TeacherCache(teacher, data).zip(data),)
    else:
        given = (kddp.TeacherCache(teacher, X).pack(X), BY_NAME)

    logs = distiller.evaluate(*given, verbose=0, return_dict=True)

    expected = live.evaluate(X, BY_NAME, verbose=0, return_dict=True)
    assert logs == pytest.approx(expected, rel=1e-5)


def test_views_carry_the_labels_and_weights_of_each_output():
    cache = kddp.TeacherCache(
        two_heads(), X, augment=lambda row, generator: row, views=2
    )

    batches = cache.batches(X, BY_NAME, WEIGHTS, batch_size=8)

    _, labels, weights = batches[0]
    order = [BY_NAME["score"].tolist(), WEIGHTS["score"].tolist()]
    received = [labels["score"].tolist(), weights["score"].tolist()]
    assert sorted(zip(*received, strict=True)) == sorted(
        zip(*order, strict=True)
    )
    assert sorted(weights["box"]) == sorted(LAST)
    distiller = kddp.Distiller(None, two_heads())
    distiller.compile("sgd", loss=BOTH, run_eagerly=True)
    distiller.fit(batches, verbose=0, shuffle=False)


@pytest.mark.parametrize(
    ("structure", "weights"),
    [(dict, WEIGHTS), (list, WEIGHTS), (list, [FIRST, LAST])],
)
def test_each_output_has_its_own_weights(structure, weights):
    student, teacher = two_heads(structure), two_heads(structure, 6, 1)
    distiller = kddp.Distiller(teacher, student, student_loss_weight=0.25)
    distiller.compile("sgd", XE)

    y = BY_NAME if structure is dict else IN_ORDER
    loss = distiller.compute_loss(X, y, sample_weight=weights)

    targets = kddp.SoftTargets()
    expected = 0.0
    for index, (name, labels) in enumerate(BY_NAME.items()):
        place = name if structure is dict else index
        logits = student(X)[place]
        weight = WEIGHTS[name]
        soft = targets.compute_loss(teacher(X)[place], logits, weight)
        hard = XE(labels, logits, weight)
        expected += 0.25 * float(hard) + 0.75 * float(soft)
    assert float(loss) == pytest.approx(expected)


def test_one_loss_counts_for_every_output():
    def kernels(loss):
        distiller = distiller_of(
            lambda **k: two_heads(list, **k), student_loss_weight=1
        )
        distiller.compile("sgd", loss, run_eagerly=True)
        distiller.fit(X, IN_ORDER, shuffle=False, verbose=0)
        return [to_numpy(weight) for weight in distiller.student.weights]

    for one, each in zip(kernels(XE), kernels([XE, XE]), strict=True):
        np.testing.assert_array_equal(one, each)


def test_several_distillation_losses_may_meet_several_outputs():
    student, teacher = two_heads(), two_heads(width=6, seed=1)
    squares = keras.distillation.LogitsDistillation(
        2.0, {"score": "mse", "box": None}
    )
    distiller = kddp.Distiller(
        teacher,
        student,
        [kddp.SoftTargets(), squares, kddp.FeatureHints("fc", "fc")],
        [1.0, 3.0, 0.0],
        student_loss_weight=0,
    )
    distiller.compile("sgd")

    loss = distiller.compute_loss(X, BY_NAME)

    soft = kddp.SoftTargets().compute_loss(teacher(X), student(X))
    halves = (teacher(X)["score"] - student(X)["score"]) / 2
    expected = float(soft) + 3.0 * np.square(halves).mean()
    assert float(loss) == pytest.approx(expected)


def test_outputs_may_be_nested():
    def model(width):
        plain = two_heads(width=width, seed=width)
        score, box = plain.output["score"], plain.output["box"]
        return keras.Model(plain.input, {"x": [score, box], "y": score})

    distiller = kddp.Distiller(model(6), model(4))
    distiller.compile("sgd", {"x": [XE, XE], "y": XE}, run_eagerly=True)
    y = {"x": [SCORE, BOX], "y": SCORE}
    weights = {"x": [FIRST, LAST], "y": LAST}

    loss = distiller.compute_loss(X, y, sample_weight=weights)

    targets = kddp.SoftTargets()
    expected = 0.0
    teachers, students = distiller.teacher(X), distiller.student(X)
    for path in (("x", 0), ("x", 1), ("y",)):
        teacher, student, label, weight = teachers, students, y, weights
        for key in path:
            teacher, student = teacher[key], student[key]
            label, weight = label[key], weight[key]
        soft = targets.compute_loss(teacher, student, weight)
        expected += 0.1 * float(XE(label, student, weight)) + 0.9 * float(soft)
    assert float(loss) == pytest.approx(expected)


def nested(width):
    """Returns a model of as many outputs as its dict has keys, yet nested."""
    plain = two_heads(width=width, seed=width)
    score, box = plain.output["score"], plain.output["box"]
    return keras.Model(plain.input, {"x": {"p": score}, "q": box})


def test_dicts_of_outputs_may_be_nested():
    distiller = kddp.Distiller(nested(6), nested(4))
    distiller.compile("sgd", {"x": {"p": XE}, "q": XE}, run_eagerly=True)
    weights = {"x": {"p": FIRST}, "q": LAST}
    y = {"x": {"p": SCORE}, "q": BOX}

    loss = distiller.compute_loss(X, y, sample_weight=weights)

    targets = kddp.SoftTargets()
    teacher, student = distiller.teacher(X), distiller.student(X)
    expected = 0.1 * float(
        XE(SCORE, student["x"]["p"], FIRST) + XE(BOX, student["q"], LAST)
    )
    expected += 0.9 * float(
        targets.compute_loss(teacher["x"]["p"], student["x"]["p"], FIRST)
        + targets.compute_loss(teacher["q"], student["q"], LAST)
    )
    assert float(loss) == pytest.approx(expected)
    # An output that has no weights weighs 1.
    ones = {"x": {"p": FIRST}, "q": np.ones_like(LAST)}
    assert float(
        distiller.compute_loss(X, y, sample_weight={"x": {"p": FIRST}})
    ) == pytest.approx(float(distiller.compute_loss(X, y, sample_weight=ones)))


@pytest.mark.parametrize("structure", [dict, list, "nested"])
@pytest.mark.parametrize(
    ("weights", "received"),
    [
        ({"typo": FIRST}, r"the keys \['typo'\]"),
        ({"score": FIRST, "typo": LAST}, r"the keys \['score', 'typo'\]"),
        ({"score": FIRST, "box": LAST, "x": LAST}, "the keys"),
        ({"x": {"typo": FIRST}}, r"the keys \['x'\]"),
        ((FIRST, LAST, LAST), "3 of them"),
        ([FIRST], "1 of them"),
        ([[FIRST, LAST], FIRST], "2 of them"),
    ],
)
def test_weights_of_other_outputs_are_refused(structure, weights, received):
    models = (
        [nested(6), nested(4)]
        if structure == "nested"
        else [two_heads(structure, 6, 1), two_heads(structure)]
    )
    distiller = kddp.Distiller(*models, student_loss_weight=0.25)
    distiller.compile("sgd", XE)

    message = f"one for each output in a list or dict. Received: {received}"
    with pytest.raises(ValueError, match=message):
        distiller.compute_loss(X, None, sample_weight=weights)


def test_a_single_output_knows_its_weights_by_its_name():
    def model(width):
        plain = two_heads(width=width, seed=width)
        return keras.Model(plain.input, plain.output["score"])

    distiller = kddp.Distiller(model(6), model(4))
    distiller.compile("sgd", XE)

    def loss(weights):
        return float(distiller.compute_loss(X, SCORE, sample_weight=weights))

    assert loss({"a": FIRST}) == loss(FIRST) == loss([FIRST])
    with pytest.raises(ValueError, match=r"for the 1 outputs \['a'\]"):
        loss({"typo": FIRST})
