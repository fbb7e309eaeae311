"""What is no class score is judged by the range of each feature."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from foreign_files import converted

from keras_kddp.export import (
    CrashError,
    ExportError,
    LiteRTRuntime,
    TFLMRuntime,
    bench,
    to_microcontroller,
    to_tflite,
    verify,
)
from keras_kddp.export.agreement.classes import ClassScores, are_class_scores
from keras_kddp.export.agreement.features import Features
from keras_kddp.export.tflite.calibration import CALIBRATED

layers = keras.layers

X = np.random.default_rng(0).uniform(size=(100, 2)).astype("float32")
X[:4] = [[0, 0], [0, 1], [1, 0], [1, 1]]


def dense(name, kernel, bias, activation=None):
    """A layer of these weights."""
    kernel = np.asarray(kernel, "float32")
    return layers.Dense(
        kernel.shape[1],
        activation,
        name=name,
        kernel_initializer=keras.initializers.Constant(kernel),
        bias_initializer=keras.initializers.Constant(np.asarray(bias)),
    )


def model_of(*heads):
    inputs = keras.Input((2,), name="x")
    outputs = [head(inputs) for head in heads]
    return keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs)


def weather(humidity=0.2):
    """Pressure of 950 to 1050 beside humidity of 0.2 to 0.9."""
    return model_of(
        dense("weather", [[100, 0], [0, 0.7]], [950, humidity]),
    )


def station():
    """The same, an output each."""
    return model_of(
        dense("pressure", [[100], [0]], [950]),
        dense("humidity", [[0], [0.7]], [0.2]),
    )


BOXES = np.array([[1, 0, 1, 0], [0, 1, 0, 1]])
SCORES = np.array([[8, 0, -8], [-8, 0, 8]])


def detector(boxes=BOXES, scores=SCORES, **options):
    """Boxes beside the probabilities of three classes."""
    return model_of(
        dense("boxes", boxes, [0, 0, 0.5, 0.5]),
        dense("scores", scores, [0, 0.1, 0], options.get("end", "softmax")),
    )


def dead():
    """Two features behind a ReLU; the second never fires."""
    return model_of(dense("r", [[5, -1], [0, -1]], [0, -0.1], "relu"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns a function that makes the file of a model, each once."""
    folder = tmp_path_factory.mktemp("files")
    made = {}

    def file_of(build, quantization="int8"):
        name = f"{build.__name__}_{quantization}"
        if name not in made:
            made[name] = to_tflite(
                build(),
                folder / f"{name}.tflite",
                quantization=quantization,
                calibration=X if quantization in CALIBRATED else None,
            )
        return made[name]

    return file_of


# --- features -------------------------------------------------------------


def test_a_small_feature_beside_a_large_one_is_not_hidden(files):
    artifact = files(weather)

    agreement = verify(weather(), artifact, X)

    row = agreement.row(artifact.path)
    assert not agreement.passed
    assert row.top1_agreement is None
    assert row.relative_error > 0.2 > 0.1 == row.tolerance
    place, range_, advice = (
        "output 'weather', feature 2 of 2: off by ",
        " % of its range 0.2 to 0.9. ",
        "give the feature an output of its own",
    )
    assert row.worst.startswith(place)
    assert range_ in row.worst
    assert advice in row.worst
    lines = str(agreement).splitlines()
    assert lines[3].endswith("FAILED (error not <= 0.1)")
    assert row.worst in " ".join(line.strip() for line in lines)
    assert max(map(len, lines[4:7])) <= 80


@pytest.mark.parametrize(
    ("build", "quantization"),
    [
        (weather, "int16x8"),
        (weather, "none"),
        (weather, "float16"),
        (station, "int8"),
        (detector, "int8"),
        (dead, "int8"),
    ],
)
def test_a_good_file_passes(build, quantization, files):
    agreement = verify(build(), files(build, quantization), X)

    assert agreement.passed, agreement


def test_a_small_feature_of_a_float32_file_is_held_to_its_range(files):
    artifact = files(weather, "none")

    row = verify(weather(humidity=0.2 + 0.001), artifact, X).rows[0]

    assert not row.passed
    assert row.max_abs_error == pytest.approx(0.001, rel=1e-2)
    assert row.relative_error == pytest.approx(0.001 / 0.7, rel=1e-2)
    assert row.worst == (
        "output 'weather', feature 2 of 2: off by 0.143 % of its range "
        "0.201 to 0.901"
    )


def test_outputs_are_named(files):
    other = station()
    other.get_layer("humidity").bias.assign([0.5])

    row = verify(other, files(station), X).rows[0]

    assert not row.passed
    assert row.worst.startswith("output 'humidity': off by 4")
    assert row.worst.endswith(" % of its range 0.5 to 1.2")


def judged(wanted, found, quantization="int8", **options):
    tolerance = options.pop("tolerance", None)
    features = Features("y", np.asarray(wanted, "float32"), **options)
    return features.judged(
        np.asarray(found, "float32"), quantization, tolerance
    )


RAMP = np.linspace(0, 1, 101)


@pytest.mark.parametrize("shape", [(101,), (101, 1), (101, 1, 1)])
def test_errors_are_relative_to_the_range_of_a_feature(shape):
    wanted = 1000 + RAMP.reshape(shape)

    finding = judged(wanted, wanted + 0.25, "dynamic")

    assert finding.error == pytest.approx(0.25)
    assert finding.text == "output 'y': off by 25 % of its range 1000 to 1001"


def test_a_feature_is_an_entry_of_the_last_axis():
    """Forecasts: 20 samples of 5 steps of temperature and rain."""
    wanted = np.stack([20 + 10 * RAMP[:100], 0.01 * RAMP[:100]], axis=-1)
    wanted = wanted.reshape(20, 5, 2)
    found = wanted.copy()
    found[..., 1] = 0

    finding = judged(wanted, found)

    assert finding.error == pytest.approx(0.98 / 0.99, rel=0.02)
    assert "feature 2 of 2" in finding.text


def test_98_percent_of_the_values_of_a_file_that_rounds_count():
    found = RAMP.copy()
    found[:2] += 0.2  # 2 of 101
    assert judged(RAMP, found).excess < 1
    found[:3] += 0.2
    assert judged(RAMP, found).error == pytest.approx(0.2)
    found = RAMP.copy()
    found[50] += 0.6
    assert judged(RAMP, found).error == pytest.approx(0.6)  # a gross one
    assert judged(RAMP, found, tolerance=0.1).error == pytest.approx(0.6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_single_value_that_is_no_number_is_found(value, quantization):
    found = RAMP.copy()
    found[50] = value

    finding = judged(RAMP, found, quantization)

    assert not finding.error <= finding.tolerance
    assert finding.excess == math.inf
    assert finding.text == "output 'y': NaN or infinity in 1 of 101 values"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_found(value):
    wanted = np.eye(3, dtype="float32")
    found = np.where(wanted == 1, 1, value).astype("float32")

    finding = ClassScores("y", wanted, None).judged(found, "int8", None)

    assert not finding.error <= finding.tolerance
    assert finding.severity == math.inf


def test_a_dead_feature_may_be_off_by_a_step_of_the_others():
    wanted = np.stack([5 * RAMP, np.zeros(101)], axis=-1)
    found = wanted + [0, 5 / 255]

    assert judged(wanted, found).excess < 1
    assert judged(wanted, wanted + [0, 1]).text == (
        "output 'y', feature 2 of 2: off by 1 from 0 throughout. A file of "
        "int8 has one scale for an output, whose largest value is 5: give the "
        "feature an output of its own, train on targets scaled to one range, "
        "or take int16x8"
    )
    assert judged(wanted, wanted + [0, 1]).excess > 1


def test_an_output_that_does_not_vary_is_held_to_its_value():
    wanted = np.full((50, 1), 4.0)

    assert judged(wanted, wanted + 0.3).error == pytest.approx(0.3 / 4)
    assert judged(wanted, 0 * wanted).error == 1
    assert judged(0 * wanted, 0 * wanted).error == 0
    assert judged(0 * wanted, wanted).error == math.inf


def test_one_sample_is_held_to_the_largest_value_of_its_output(files):
    agreement = verify(weather(), files(weather, "none"), X[:1])
    other = verify(weather(humidity=0.4), files(weather, "none"), X[:1])

    assert agreement.passed
    assert "Fewer than 3 samples show no range" in str(agreement)
    assert not other.passed
    assert other.rows[0].relative_error == pytest.approx(0.2 / 950, rel=1e-3)
    assert other.rows[0].worst == (
        "output 'weather', feature 2 of 2: off by 0.2 from 0.4 throughout"
    )
    assert verify(weather(), files(weather, "none"), X).notes == ()


def test_few_samples_are_held_to_their_largest_value_too():
    wanted = np.array([[10.0, 0.5], [10.5, 0.6], [11.0, 0.7]])

    finding = judged(wanted, wanted + [0, 0.35])

    assert finding.error == pytest.approx(0.35 / 0.7)
    assert "feature 2 of 2: off by 0.35 from values of 0.5" in finding.text


def test_what_float16_rounds_passes_where_a_feature_is_far_from_0():
    wanted = 1008 + 10 * RAMP
    rounded = wanted.astype("float16")
    assert judged(wanted, rounded, "float16").excess < 1
    assert judged(wanted, wanted + 1.1, "float16").excess > 1


def test_a_label_that_no_sample_has_may_be_off_by_a_step():
    labels = np.stack([RAMP, 1e-3 * RAMP], axis=-1)
    found = np.round(labels * 256) / 256
    assert judged(labels, found).excess > 1
    assert judged(labels, found, least_scale=0.1).excess < 1
    wrong = labels + [0, 0.05]
    assert judged(labels, wrong, least_scale=0.1).excess > 1


def test_sigmoids_are_probabilities(tmp_path):
    model = model_of(dense("tags", 8 * np.eye(2), [-4, -14], "sigmoid"))
    artifact = to_tflite(
        model, tmp_path / "m.tflite", quantization="int8", calibration=X
    )
    assert verify(model, artifact, X).passed
    assert verify(model, artifact, X).rows[0].top1_agreement is None
    model.get_layer("tags").bias.assign([-4, 0])
    assert not verify(model, artifact, X).passed


def test_padding_counts_in_no_error_and_no_range():
    wanted = np.array([[[0.0], [9.0]], [[1.0], [9.0]]] * 10)
    mask = np.array([[True, False]] * 20)
    found = np.where(mask[..., None], wanted, -50)

    finding = judged(wanted, found + 0.05, mask=mask)

    assert finding.error == pytest.approx(0.05)
    assert finding.text.endswith("off by 5 % of its range 0 to 1")
    found[0, 1, 0] = math.nan
    assert judged(wanted, found, mask=mask).excess == math.inf
    nothing = np.zeros_like(mask)
    assert judged(wanted, 0 * wanted, mask=nothing).excess == 0


def test_embeddings_are_judged_feature_by_feature(tmp_path):
    inputs = keras.Input((2,), name="x")
    kernel = np.array([[3, 1, -1, 0], [0, 1, 2, -3]])
    hidden = dense("h", kernel, [1, 0, 0, 1])(inputs)
    model = keras.Model(inputs, layers.UnitNormalization(name="e")(hidden))
    artifact = to_tflite(
        model, tmp_path / "m.tflite", quantization="int8", calibration=X
    )

    assert verify(model, artifact, X).passed
    model.get_layer("h").bias.assign([1, 0, 0.5, 1])
    row = verify(model, artifact, X).rows[0]
    assert not row.passed
    assert "feature 3 of 4" in row.worst


# --- class scores ---------------------------------------------------------


def test_boxes_beside_scores_are_judged_as_what_they_are(files):
    artifact = files(detector)

    row = verify(detector(), artifact, X).rows[0]
    assert row.top1_agreement >= row.minimum_agreement == 0.98

    row = verify(detector(boxes=BOXES[:, [0, 1, 3, 2]]), artifact, X).rows[0]
    assert not row.passed
    assert row.top1_agreement >= 0.98
    assert row.worst.startswith("output 'boxes', feature ")

    agreement = verify(detector(scores=-SCORES), artifact, X)
    row = agreement.rows[0]
    assert not row.passed
    assert row.top1_agreement < 0.5
    assert row.worst.startswith("output 'scores': another class for ")
    assert "FAILED (top-1 not >= 98%)" in str(agreement)


def test_the_worst_classes_of_several_outputs_are_shown(tmp_path):
    model = detector(end=None)
    artifact = to_tflite(
        model, tmp_path / "m.tflite", quantization="int8", calibration=X
    )
    model.get_layer("scores").bias.assign([0, 4, 0])  # more of the second

    for classes in (True, ["scores"], ["scores", "boxes"]):
        agreement = verify(model, artifact, X, classes=classes)
        row = agreement.rows[0]
        assert not agreement.passed
        assert row.top1_agreement < 0.98
        assert row.worst.startswith("output 'scores': another class for ")
        assert "FAILED (top-1 not >= 98%)" in str(agreement)
    assert verify(model, artifact, X).rows[0].top1_agreement is None


def test_every_pixel_of_a_segmentation_is_an_answer():
    wanted = np.eye(3, dtype="float32")[np.arange(100) % 3]
    wanted = wanted.reshape(1, 10, 10, 3)
    found = wanted.copy()
    found[0, 0, :2] = found[0, 0, :2, ::-1]  # the first pixel is wrong
    scores = ClassScores("pixels", wanted, None)

    finding = scores.judged(found, "int8", None)

    assert finding.agreement == 99 / 100
    assert finding.minimum == 0.98
    found[0, 1:3] = found[0, 1:3, :, ::-1]
    assert scores.judged(found, "int8", None).agreement < 0.98


def ending(kind):
    inputs = keras.Input((2,), name="x")
    logits = dense("scores", SCORES, [0, 0, 0])
    if kind == "layer":
        return keras.Model(inputs, layers.Softmax()(logits(inputs)))
    if kind == "operation":
        return keras.Model(inputs, keras.ops.softmax(logits(inputs)))
    if kind == "log":
        return keras.Model(inputs, keras.ops.log_softmax(logits(inputs)))
    if kind == "other axis":
        steps = layers.Reshape((3, 1))(logits(inputs))
        steps = layers.Concatenate()([steps, steps])
        return keras.Model(inputs, layers.Softmax(axis=1)(steps))
    logits.activation = keras.activations.get(kind)
    return keras.Model(inputs, logits(inputs))


def says(model, classes=None, labels=False):
    names = [layer.name for layer in model.layers[1:]][-len(model.outputs) :]
    outputs = [np.asarray(part) for part in keras.tree.flatten(model(X))]
    return are_class_scores(classes, model, names, outputs, has_labels=labels)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("softmax", True),
        ("layer", True),
        ("operation", True),
        ("log", True),
        ("other axis", False),
        ("linear", False),
        ("sigmoid", False),
    ],
)
def test_the_last_activation_says_what_an_output_is(kind, expected):
    assert says(ending(kind)) == [expected]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"loss": "sparse_categorical_crossentropy"}, True),
        ({"loss": keras.losses.CategoricalCrossentropy()}, True),
        ({"loss": "mse"}, False),
        ({"loss": "binary_crossentropy", "metrics": ["accuracy"]}, False),
        ({"loss": "mse", "metrics": ["sparse_categorical_accuracy"]}, True),
        ({"metrics": [keras.metrics.CategoricalAccuracy()]}, True),
        ({"metrics": ["acc", "ce", "mae"]}, False),
        ({}, False),
    ],
)
def test_what_a_model_is_compiled_with_says_it_too(arguments, expected):
    model = ending("linear")
    model.compile("sgd", **arguments)
    assert says(model) == [expected]


CROSSENTROPY = "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    "arguments",
    [
        {"loss": {"scores": CROSSENTROPY, "boxes": "mse"}},
        {"loss": {"scores": CROSSENTROPY}},
        {"loss": ["mse", CROSSENTROPY]},
        {"loss": [None, CROSSENTROPY]},
        {"metrics": {"scores": ["mae", "sparse_categorical_accuracy"]}},
        {"metrics": [["mse"], [keras.metrics.TopKCategoricalAccuracy(k=2)]]},
    ],
)
def test_each_output_has_a_loss_of_its_own(arguments):
    model = detector(end=None)
    model.compile("sgd", **arguments)
    assert says(model) == [False, True]


def test_the_user_decides():
    assert says(ending("linear"), labels=True) == [True]
    assert says(ending("linear"), classes=True) == [True]
    assert says(ending("softmax"), classes=False) == [False]
    assert says(detector(), classes=["boxes"]) == [True, False]
    assert says(detector(), classes=()) == [False, False]
    assert says(detector(), classes=True) == [True, True]
    assert says(station(), classes=False) == [False, False]
    narrow = model_of(dense("n", [[1], [1]], [0]), dense("w", SCORES, [0] * 3))
    assert says(narrow, classes=True) == [False, True]


@pytest.mark.parametrize(
    "classes", ["scores", ["pressure"], ["nothing"], True, 1, 0.5, {"a": 1}]
)
def test_what_names_no_class_scores_is_refused(classes):
    with pytest.raises(ValueError, match="`classes` must be True, False"):
        says(station(), classes=classes)


@pytest.mark.parametrize("classes", [False, []])
def test_labels_of_no_class_scores_are_refused(classes):
    with pytest.raises(ValueError, match="`y` must be None where no output"):
        says(ending("softmax"), classes=classes, labels=True)


def test_targets_that_are_numbers_are_refused_with_a_way_out(files):
    with pytest.raises(ValueError, match="leave `y` out where the targets are"):
        verify(weather(), files(weather), X, np.ones((100, 2)) / 3)


# --- what runtimes do -----------------------------------------------------


def test_infinity_in_a_file_alone_is_a_row(tmp_path):
    path = converted(
        lambda x: {"weather": x / (x[:, ::-1] - x[:, ::-1])},
        [tf.TensorSpec((1, 2), name="x")],
        tmp_path,
        "infinite",
    )

    agreement = verify(weather(), path, X)

    assert not agreement.passed
    assert "FAILED (NaN or infinity)" in str(agreement)
    assert "output 'weather': NaN or infinity in 200 of 200" in str(agreement)


def test_a_crash_is_told_beneath_the_row(files, monkeypatch):
    text = "TFLM must survive 'm.tflite'. Received: it did not end in 60 s. "

    def crash(*_, **__):
        raise CrashError(text + "Give it longer, or replace the layer.")

    monkeypatch.setattr(TFLMRuntime, "execute", crash)

    lines = str(verify(station(), files(station), X)).splitlines()

    (number,) = [n for n, line in enumerate(lines) if "(crash)" in line]
    assert lines[number + 1].startswith("    TFLM must survive")
    assert "it did not end in 60 s" in " ".join(lines[number + 1 :])


def test_bench_says_what_litert_did(monkeypatch):
    def crash(*_, **__):
        raise CrashError("it did not end in 60 s.")

    monkeypatch.setattr(LiteRTRuntime, "execute", crash)

    with pytest.raises(ExportError, match=r"in 60 s\. Compare the file"):
        bench({"one": station()}, X)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y + [0, 0.2], "feature 2 of 2: off by .* % of its range"),
        (lambda y: y * [1, math.nan], "must compute finite numbers"),
    ],
    ids=["other", "nan"],
)
def test_a_small_feature_that_tflm_computes_otherwise_leaves_no_bundle(
    change, message, monkeypatch, tmp_path
):
    real = TFLMRuntime.execute

    def differ(runtime, inputs, **options):
        found = real(runtime, inputs, **options)
        found.outputs.update({k: change(y) for k, y in found.outputs.items()})
        return found

    monkeypatch.setattr(TFLMRuntime, "execute", differ)

    with pytest.raises(ExportError, match=message):
        to_microcontroller(weather(), tmp_path / "b", X, quantization="none")

    assert not (tmp_path / "b").exists()


def test_a_bundle_may_differ_by_a_step_of_its_numbers(tmp_path):
    assert to_microcontroller(weather(), tmp_path, X).arena_bytes > 0
