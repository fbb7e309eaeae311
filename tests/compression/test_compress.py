"""The whole walk in one call, and the comparisons it makes."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from compiled_runs import compiled_with
from helpers import SUMMARY_FIELDS, to_numpy, variable_values

import keras_kddp as kddp
from keras_kddp.compression import training
from keras_kddp.compression.choices import CONTROLS
from keras_kddp.compression.controls import reinitialized, train_control
from keras_kddp.compression.training import (
    Recipe,
    Setting,
    accuracy,
    default_loss,
    fresh,
)
from keras_kddp.data.packing import unpacked
from keras_kddp.data.splits import Split

CLASSES = 3


def examples(count, seed=0, shape=(6,)):
    """Returns inputs whose largest number says the class."""
    x = np.random.default_rng(seed).normal(size=(count, *shape))
    y = x.reshape(count, -1)[:, :CLASSES].argmax(axis=-1)
    return x.astype("float32"), y


TRAIN, VALIDATION, TEST = examples(96), examples(24, 1), examples(48, 2)


def dense(units, activation=None, shape=(6,)):
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(units, "relu", name="hidden"),
            keras.layers.Dense(CLASSES, activation, name="logits"),
        ]
    )


def convolutional():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(8, 3, name="conv", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(32, "relu", name="hidden"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(CLASSES, name="logits"),
        ]
    )


def knowing(model, output="logits"):
    """Gives a model the weights that name the largest of the first numbers."""
    kernel = np.zeros(model.get_layer("hidden").kernel.shape)
    reader = np.zeros((len(kernel[0]), CLASSES))
    for place in range(CLASSES):  # x = relu(x) - relu(-x)
        kernel[place, [place, CLASSES + place]] = [3.0, -3.0]
        reader[[place, CLASSES + place], place] = [1.0, -1.0]
    model.get_layer("hidden").kernel.assign(kernel)
    model.get_layer(output).kernel.assign(reader)
    return model


def teacher(activation=None, shape=(6,)):
    return knowing(fresh(lambda: dense(32, activation, shape), 7))


def student():
    return fresh(lambda: dense(24), 8)


def compressed(**options):
    """Returns a short compression that removes something."""
    settings = {
        "test": TEST,
        "epochs": 8,
        "batch_size": 32,
        "l1": 1.0,
        "pruning": kddp.DynamicPruning(threshold=0.3),
        **options,
    }
    start = settings.pop("student", None) or student()
    return kddp.compress(
        settings.pop("teacher", None) or teacher(),
        start,
        settings.pop("train", TRAIN),
        settings.pop("validation", VALIDATION),
        **settings,
    )


@pytest.fixture(scope="module", autouse=True)
def traced():
    """Has models train without traces, which take longer than a short run.

    Yields what has them traced again.
    """
    with compiled_with(run_eagerly=True) as real:
        yield lambda given: given.setattr(training, "_compile", real)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Returns a compression with every control, and its directory."""
    folder = tmp_path_factory.mktemp("run") / "new" / "run"
    return compressed(controls=list(CONTROLS), run_dir=folder), folder


def test_the_student_shrinks_and_is_plain_keras(complete):
    found, _ = complete
    units = found.student.get_layer("hidden").units
    assert units == found.result.units < found.units_before == 24
    assert found.after.parameters == found.student.count_params()
    assert found.before.parameters == 6 * 24 + 24 + 24 * 3 + 3
    assert found.history["units"][-1] == units
    assert found.removals[-1].units_after == {"hidden": units}
    assert all(
        type(x).__module__.startswith("keras.") for x in found.student.layers
    )


def test_accuracies_are_on_the_test_split(complete):
    found, _ = complete
    assert found.result.accuracy == accuracy(found.student, Split(*TEST))
    assert found.split_sizes == {"train": 96, "validation": 24, "test": 48}


def test_every_control_has_the_declared_size_it_should(complete):
    found, _ = complete
    assert list(found.controls) == list(CONTROLS)
    widths = {name: control.units for name, control in found.controls.items()}
    assert widths.pop("kd") == 24
    assert set(widths.values()) == {found.result.units}
    for control in found.controls.values():
        assert control.live_units <= control.units
        assert control.profile.parameters == control.model.count_params()


def test_the_run_directory_is_complete(complete):
    found, folder = complete
    assert {path.name for path in folder.iterdir()} == {
        "before.keras",
        "removals.json",
        "student.keras",
        "student_float32.tflite",
        "student_int8.tflite",
        "student_float32.json",
        "student_int8.json",
        "micro",
        "summary.json",
        ".keras_kddp.json",
    }
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) >= SUMMARY_FIELDS
    before = keras.models.load_model(folder / "before.keras")
    assert before.count_params() == summary["parameters_before"]
    loaded = keras.models.load_model(folder / "student.keras")
    assert accuracy(loaded, Split(*TEST)) == summary["kddp_accuracy"]
    int8 = folder / "student_int8.tflite"
    assert int8.stat().st_size == summary["tflite_int8_bytes"]
    assert found.files.agreement.passed
    assert found.files.agreement.samples == 48


def test_every_control_gets_a_verdict(complete):
    found, folder = complete
    told = "\n".join(found.verdicts)
    for name in CONTROLS.values():
        assert f'Pruned student against "{name}": ' in told
    assert "test examples only it gets right" in told
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["verdicts"] == [*found.verdicts]
    assert found.summary()["verdicts"] == found.verdicts


def test_answers_are_those_that_the_accuracy_counts(complete):
    found, _ = complete
    hits = found.student.predict(TEST[0], verbose=0).argmax(-1) == TEST[1]
    np.testing.assert_array_equal(found.result.answers.right, [hits])
    assert found.result.answers.accuracy == found.result.accuracy
    assert found.teacher_accuracy == 1.0
    frequent = np.bincount(TEST[1]).max() / 48
    assert found.teacher_answers.chances == (frequent,)


def test_a_teacher_near_chance_is_told_before_the_student_trains(monkeypatch):
    monkeypatch.setattr(kddp.Distiller, "fit", None)
    untrained = fresh(lambda: dense(32), 7)
    with pytest.raises(TypeError, match="not callable"):  # by `fit`, later
        with pytest.warns(UserWarning, match="The teacher is near chance: "):
            compressed(teacher=untrained)


def test_neither_model_is_changed():
    models = [teacher(), student()]
    before = [variable_values(model) for model in models]
    controls = ["kd", "random"]
    compressed(
        teacher=models[0], student=models[1], controls=controls, epochs=4
    )
    for model, values in zip(models, before, strict=True):
        for old, new in zip(values, variable_values(model), strict=True):
            np.testing.assert_array_equal(old, new)
        assert not model.compiled


def test_the_same_seed_gives_the_same_student_to_the_bit(traced, monkeypatch):
    traced(monkeypatch)
    train = examples(64, shape=(6, 6, 1))
    found = [
        compressed(
            teacher=teacher(shape=(6, 6, 1)),
            student=fresh(convolutional, 8),
            train=train,
            validation=train,
            test=train,
            seed=3,
        )
        for _ in range(2)
    ]
    assert found[0].after.parameters < found[0].before.parameters
    first, second = (each.student for each in found)
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    assert found[0].history == found[1].history


def test_another_seed_gives_another_student():
    first, second = (compressed(seed=seed, epochs=4) for seed in (0, 1))
    assert first.history["loss"] != second.history["loss"]


def test_named_layers_alone_are_pruned_and_counted():
    x, y = examples(64, shape=(6, 6, 1))
    found = compressed(
        teacher=teacher(shape=(6, 6, 1)),
        student=kddp.prepare(convolutional(), layers=["hidden"]),
        train=(x, y),
        validation=(x, y),
        test=None,
        controls=["kd", "magnitude"],
    )
    assert found.units_before == 32
    assert found.result.units == found.student.get_layer("hidden").units < 32
    assert found.student.get_layer("conv").filters == 8
    assert found.controls["kd"].units == 32
    assert "test" not in found.split_sizes
    names = [layer.name for layer in found.controls["kd"].model.layers]
    assert not any("penalty" in name for name in names)


def test_datasets_are_read_into_memory():
    dataset = tf.data.Dataset.from_tensor_slices(TRAIN).batch(10)
    found = compressed(train=dataset, seed=1, epochs=4)
    expected = compressed(seed=1, epochs=4)
    assert found.split_sizes["train"] == 96
    for one, other in zip(
        found.student.weights, expected.student.weights, strict=True
    ):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


def test_sample_weights_are_honoured():
    weights = np.full(96, 1e-30, dtype="float32")
    found = compressed(train=(*TRAIN, weights), l1=0.0, epochs=4)
    assert max(found.history["student_loss"]) < 1e-28
    assert max(found.history["distillation_loss"]) < 1e-28


@pytest.mark.parametrize("softmax", [True, False])
def test_softmax_models_are_compressed_too(softmax):
    activation = "softmax" if softmax else None
    found = compressed(
        teacher=teacher(activation),
        student=dense(24, activation),
        controls=["same_size_labels"],
        epochs=4,
    )
    assert np.isfinite(found.history["loss"]).all()
    assert output_sums(found) == softmax


def output_sums(found):
    """Says whether outputs sum to 1."""
    return np.allclose(found.student.predict(TEST[0], verbose=0).sum(-1), 1)


def test_a_student_of_two_outputs_is_compressed(tmp_path):
    def two_heads(units):
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(units, "relu", name="hidden")(inputs)
        heads = {"a": keras.layers.Dense(3, name="a")(hidden)}
        heads["b"] = keras.layers.Dense(2, "softmax", name="b")(hidden)
        return keras.Model(inputs, heads)

    def both(split):
        x, y = split
        return x, {"a": y, "b": (x[:, 5] > 0).astype("int64")}

    with pytest.warns(UserWarning, match="near chance: .* in output 2 of 2 to"):
        found = compressed(
            teacher=knowing(fresh(lambda: two_heads(32), 7), "a"),
            student=fresh(lambda: two_heads(24), 8),
            pruning=kddp.DynamicPruning(threshold=0.4),
            train=both(TRAIN),
            validation=both(VALIDATION),
            test=both(TEST),
            controls=["kd", "random", "same_size_labels"],
            run_dir=tmp_path,
        )

    outputs = found.student.predict(TEST[0], verbose=0)
    shares = [
        (outputs["a"].argmax(-1) == TEST[1]).mean(),
        (outputs["b"].argmax(-1) == (TEST[0][:, 5] > 0)).mean(),
    ]
    assert found.result.accuracy == pytest.approx(np.mean(shares))
    assert found.files.agreement.rows[0].passed
    assert found.summary()["int8_agreement"] >= 0.98  # both name classes


# The removal half-way of the controls.


def common(start, epochs=2):
    """Returns a comparison whose training moves nothing."""
    recipe = Recipe(
        epochs=epochs,
        batch_size=96,
        optimizer=keras.optimizers.SGD(0.0),
        loss=default_loss(start),
    )
    packed = kddp.TeacherCache(teacher(), TRAIN[0]).pack(TRAIN[0])
    return Setting(start, Split(packed, TRAIN[1]), Split(*TRAIN), recipe)


@pytest.fixture
def with_weights():
    """Returns a student of four units, and one of two units."""
    start, pruned = dense(4), dense(2)
    kernel = np.zeros((6, 4))
    kernel[0] = [3, 2, 1, 4]
    start.get_layer("hidden").kernel.assign(kernel)
    readers = np.array([[1.0] * 3, [9.0] * 3, [9.0] * 3, [0.1] * 3])
    start.get_layer("logits").kernel.assign(readers)
    return start, pruned


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("magnitude", [3, 4]),  # the largest of 3, 2, 1, 4
        ("contribution", [2, 1]),  # 3 * 1, 2 * 9, 1 * 9, 4 * 0.1
    ],
)
def test_the_lowest_units_go_half_way(name, kept, with_weights):
    start, pruned = with_weights
    control = train_control(name, packed_common(start), pruned, ["hidden"])
    kernel = to_numpy(control.get_layer("hidden").kernel)
    assert kernel[0].tolist() == kept


def packed_common(start):
    data = common(start)
    x = kddp.TeacherCache(teacher(), TRAIN[0]).pack(TRAIN[0])
    return Setting(start, data.train, Split(x, TRAIN[1]), data.recipe)


def test_random_units_go_by_the_seed(with_weights):
    start, pruned = with_weights
    kept = [
        to_numpy(
            train_control("random", packed_common(start), pruned, ["hidden"])
            .get_layer("hidden")
            .kernel
        )[0].tolist()
        for _ in range(2)
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2


def test_a_reinitialized_model_has_new_weights_of_the_same_shapes():
    model = student()
    first, again, other = (reinitialized(model, seed) for seed in (0, 0, 1))
    kernels = [
        to_numpy(each.get_layer("hidden").kernel)
        for each in (model, first, again, other)
    ]
    assert len({kernel.shape for kernel in kernels}) == 1
    np.testing.assert_array_equal(kernels[1], kernels[2])
    for index in (0, 3):
        assert np.abs(kernels[1] - kernels[index]).max() > 0.01


def test_labels_alone_means_without_the_teacher(with_weights):
    _, pruned = with_weights
    data = packed_common(dense(4))
    control = train_control("same_size_labels", data, pruned, ["hidden"])
    assert unpacked(data.train.x)[1]
    assert control.get_layer("hidden").units == 2


# What is refused, before anything is trained.

X, Y = TRAIN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "Train with a keras_kddp.Distiller of your own and"),
        ({"train": (X, Y + 1)}, "of `train` must lie in 0 to 2, since the stu"),
        ({"test": (X, Y - 1)}, r"of `test` must lie in 0 to 2.*-1 to 1"),
        ({"train": (X[Y != 2], Y[Y != 2])}, r"of the 3 classes. .*of \[2\]"),
        ({"train": (X[:0], Y[:0])}, "`train` must hold examples"),
        ({"validation": (X, Y[:-1])}, "a label for each input"),
        ({"train": (X[:, :4], Y)}, r"takes, \[\(None, 6\)\]. Received: \[\(96"),
        ({"train": (X, np.eye(3)[Y])}, "argmax of one-hot labels"),
        ({"train": (X, Y.astype(float))}, "must be integers. Received: float"),
        ({"train": (X * np.nan, Y)}, "finite numbers. Received: float32 with"),
        ({"train": (X.astype(str), Y)}, "must be finite numbers. Received: <U"),
        ({"train": X}, r"must give batches \(x, y\)"),
        ({"train": 3}, r"must be \(x, y\), \(x, y, sample_weight\) or an iter"),
        ({"train": []}, "`train` must hold examples. Received an empty list"),
        ({"train": (X, {"a": Y, "b": Y})}, r"one array per output \(1\)"),
        ({"train": (X, Y, np.ones(3))}, r"sample weights .*shape \(3,\)"),
        ({"train": (X, Y, np.full(96, np.nan))}, "sample weights .* or NaN"),
        ({"train": (X, Y[:, None])}, r"y\[:, 0\] of a column"),
        ({"pruning": "contribution"}, "`pruning` must be a DynamicPruning"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"epochs": 2.5}, "`epochs` must be an integer >= 1"),
        ({"controls": ["kd", "kd"]}, "list of different names"),
        ({"student": keras.Sequential()}, "must be a built Sequential"),
        ({"controls": "kd"}, "`controls` must be a list of different names"),
        ({"controls": ["kd", "none"]}, r"Received: \['kd', 'none'\]"),
        ({"optimizer": "no such"}, "no such"),
        ({"l1": -1}, "`l1` must be a finite number"),
        ({"epochs": 1}, "The schedule must leave at least one epoch"),
        (
            {"teacher": dense(8, shape=(5,))},
            "The inputs of teacher and student",
        ),
    ],
)
def test_bad_input_is_refused_before_training(options, message, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=message):
        compressed(**{"run_dir": folder, **options})
    assert not (folder / "student.keras").exists()


def test_what_cannot_be_exported_is_refused_before_training(tmp_path):
    def model(units):
        inputs = keras.Input((None, 6))
        x = keras.layers.GlobalMaxPooling1D()(inputs)
        x = keras.layers.Dense(units, "relu", name="hidden")(x)
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    x = X[:, None]
    arguments = {"train": (x, Y), "validation": (x, Y), "test": (x, Y)}
    models = {"teacher": model(16), "student": model(8)}
    with pytest.raises(ValueError, match="but the batch must be fixed"):
        compressed(**arguments, **models, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_nan_is_refused():
    model = teacher()
    model.get_layer("logits").bias.assign([np.nan, 0, 0])
    with pytest.raises(ValueError, match="`teacher` must have finite weights"):
        compressed(teacher=model)


def test_every_student_that_loses_its_loss_is_named():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = compressed(
            optimizer=keras.optimizers.SGD(1e30),
            controls=["kd", "same_size_labels"],
            batch_size=32,
        )

    lost = [m for each in caught if "NaN or inf" in (m := str(each.message))]
    assert "training stops, and the student is as it was" in lost[0]
    assert "of 'student, no penalty': training stops" in lost[1]
    assert "training stops, and the model is as it was" in lost[2]
    assert len(lost) == 3
    assert set(found.controls) == {"kd", "same_size_labels"}
    for each in (found.student, *(x.model for x in found.controls.values())):
        assert all(np.isfinite(w).all() for w in each.get_weights())


def test_one_input_and_one_output_may_stand_in_lists(tmp_path):
    def wrapped(split):
        return [split[0]], [split[1]]

    found = compressed(
        train=wrapped(TRAIN),
        validation=wrapped(VALIDATION),
        test=wrapped(TEST),
        epochs=4,
        run_dir=tmp_path,
    )
    assert found.files.agreement.passed


def test_an_unwritable_directory_is_refused_before_training(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    pruning = kddp.DynamicPruning()
    with pytest.raises(OSError, match="file"):
        compressed(run_dir=file / "run", pruning=pruning)
    assert pruning.removals == []


def test_images_of_another_range_are_warned_about():
    with pytest.warns(UserWarning, match="`test` must be scaled like the trai"):
        compressed(test=(TEST[0] * 255, TEST[1]), epochs=4)


# Budgets.


def test_a_budget_is_met_and_the_given_callback_left_alone():
    pruning = kddp.DynamicPruning()

    found = compressed(pruning=pruning, budget=kddp.Budget(max_parameters=100))

    # Of u units: 7 u weights in, 3 u + 3 out; 9 units are 93.
    assert found.result.units == 9
    assert found.after.parameters == 93
    assert pruning.budget is None


def test_a_drop_is_counted_from_the_distilled_student():
    found = compressed(
        epochs=12,
        l1=0.0,
        pruning=None,
        budget=kddp.Budget(max_accuracy_drop=0.1),
        controls=["kd"],
        test=None,  # judged on validation
    )

    assert found.result.accuracy >= found.controls["kd"].accuracy - 0.1
    assert found.result.units < 24


def test_a_budget_below_the_floor_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(kddp.Distiller, "fit", None)

    with pytest.raises(ValueError, match="`max_parameters` must be at least 1"):
        compressed(pruning=None, budget=kddp.Budget(max_parameters=12))


def test_a_budget_given_twice_is_refused():
    budget = kddp.Budget(max_parameters=100)
    pruning = kddp.DynamicPruning(budget=budget)

    with pytest.raises(ValueError, match="`budget` must be given once"):
        compressed(pruning=pruning, budget=budget)


def test_what_is_no_budget_is_refused():
    with pytest.raises(
        ValueError, match="must be a keras_kddp.Budget, or None"
    ):
        compressed(budget=100)
