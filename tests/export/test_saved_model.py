"""SavedModels that are called, fine-tuned and built upon."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import randomize
from interrupted import without_exchange

import keras_kddp.export.saved_model.to_saved_model as module
from keras_kddp import prepare, remove_units
from keras_kddp.compression.model_sources import model_file
from keras_kddp.export import ExportError, SavedModelLayer, to_saved_model
from keras_kddp.models import fashion_cnn_student

X = np.random.default_rng(0).random((24, 8, 8, 1), dtype="float32")
Y = np.arange(24) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_student():
    """Returns a student with everything that has a state of its own."""
    x = inputs = keras.Input((8, 8, 1), name="image")
    # Without a bias: behind it BatchNormalization leaves no gradient.
    x = keras.layers.Conv2D(4, 3, use_bias=False, kernel_regularizer="l2")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Dense(16, "relu", name="hidden")(x)
    outputs = keras.layers.Dense(3, name="logits")(x)
    return randomize(keras.Model(inputs, outputs, name="student"), 0)


@pytest.fixture(scope="module")
def student():
    return make_student()


@pytest.fixture(scope="module")
def saved(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "student"
    return to_saved_model(
        student,
        folder,
        card={"license": "apache-2.0", "accuracy": {"test": "90.00%"}},
    )


@pytest.fixture(scope="module")
def body(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "body"
    return to_saved_model(student, folder, features="hidden")


def test_what_is_loaded_computes_the_same_for_any_batch(student, saved):
    loaded = tf.saved_model.load(str(saved))

    for rows in (X, X[:1]):
        found = loaded(rows, training=False).numpy()
        wanted = student(rows, training=False).numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        np.testing.assert_allclose(loaded(rows).numpy(), wanted, atol=1e-6)
    served = loaded.signatures["serving_default"](image=tf.constant(X))
    np.testing.assert_allclose(served["logits"], student(X), atol=1e-6)


def test_training_drops_and_moves_statistics(saved):
    loaded = tf.saved_model.load(str(saved))
    before = [variable.numpy() for variable in loaded.variables]

    first, second = (loaded(X, training=True).numpy() for _ in range(2))

    moved = [
        not np.array_equal(old, new.numpy())
        for old, new in zip(before, loaded.variables, strict=True)
    ]
    assert not np.allclose(first, second)  # Dropout draws anew
    assert sum(moved) == 3  # two statistics and the state of the seed
    assert len(loaded.trainable_variables) == 7
    (loss,) = [term() for term in loaded.regularization_losses]
    kernel = loaded.trainable_variables[0]
    assert float(loss) == pytest.approx(
        0.01 * float(tf.reduce_sum(kernel**2)), rel=1e-5
    )


def test_what_is_loaded_is_fine_tuned_on_a_second_task(body):
    loaded = tf.saved_model.load(str(body))
    head = tf.Variable(tf.zeros((16, 3)))
    variables = [*loaded.trainable_variables, head]
    before = [variable.numpy() for variable in variables]
    losses = []
    for _ in range(30):
        with tf.GradientTape() as tape:
            logits = loaded(X, training=True) @ head
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(Y, logits)
            )
        gradients = tape.gradient(loss, variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(1e-2 * gradient)
        losses.append(float(loss))

    assert losses[-1] < losses[0]
    assert all(
        not np.array_equal(old, new.numpy())
        for old, new in zip(before, variables, strict=True)
    )


def with_head(directory, **options):
    inputs = keras.Input((8, 8, 1))
    layer = SavedModelLayer(directory, **options)
    model = keras.Model(inputs, keras.layers.Dense(3)(layer(inputs)))
    model.compile(keras.optimizers.Adam(1e-2), LOSS)
    return model, layer


def test_keras_3_fine_tunes_the_layer(body):
    model, layer = with_head(body)
    before = model.get_weights()

    history = model.fit(X, Y, epochs=10, verbose=0).history

    assert history["loss"][-1] < history["loss"][0]
    assert all(
        not np.array_equal(old, new)
        for old, new in zip(before, model.get_weights(), strict=True)
    )
    assert len(layer.trainable_weights) == 5  # those of the head stayed away
    assert layer.count_params() == 4 * 9 + 4 * 4 + (144 * 16 + 16) + 2


def test_a_frozen_layer_stays_as_it_is(body):
    model, layer = with_head(body, trainable=False)
    before = [np.array(weight) for weight in layer.weights]

    model.fit(X, Y, epochs=1, verbose=0)

    assert layer.trainable_weights == []
    layer.trainable = True
    assert len(layer.trainable_weights) == 5
    for old, new in zip(before[:7], layer.weights[:7], strict=True):
        assert np.array_equal(old, np.array(new))


def test_the_layer_counts_regularizers_as_keras_does(body):
    model, layer = with_head(body)
    kernel = np.asarray(layer.trainable_weights[0].value)

    found = model.evaluate(X, Y, verbose=0)
    hard = float(LOSS(Y, model.predict(X, verbose=0)))

    assert found - hard == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-3)
    frozen = SavedModelLayer(body, trainable=False)
    frozen(X, training=True)
    assert frozen.losses == []


def test_a_model_with_the_layer_is_saved_and_loaded(body, tmp_path):
    model, _ = with_head(body)
    model.fit(X, Y, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")

    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)

    np.testing.assert_allclose(again(X), model(X), atol=1e-6)


def test_a_file_with_the_layer_runs_nothing_in_safe_mode(body, tmp_path):
    model, _ = with_head(body)
    wrapped = keras.Sequential([keras.Input((*X.shape[1:],)), model])
    for number, each in enumerate((model, wrapped)):
        path = tmp_path / f"{number}.keras"
        each.save(path)
        with pytest.raises(ValueError, match="a source that you trust"):
            keras.saving.load_model(path)
        with pytest.raises(ValueError, match="a source that you trust"):
            model_file(path)
    config = SavedModelLayer(body).get_config()
    with pytest.raises(ValueError, match="a source that you trust"):
        SavedModelLayer.from_config(config, safe_mode=True)


def test_a_model_with_the_layer_is_cloned_and_cut(body):
    layer = SavedModelLayer(body)
    inputs = keras.Input((*X.shape[1:],))
    hidden = keras.layers.Dense(4, "relu", name="hidden")(layer(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))

    assert keras.models.clone_model(model).count_params() > 0
    smaller = remove_units(prepare(model), {"hidden": [0]})

    assert smaller.get_layer("hidden").units == 3
    np.testing.assert_allclose(
        smaller.get_layer(layer.name)(X), layer(X), atol=1e-6
    )


def test_two_layers_of_one_folder_have_weights_of_their_own(body):
    first, second = SavedModelLayer(body), SavedModelLayer(body)

    first.trainable_weights[0].assign(first.trainable_weights[0] + 1.0)

    assert not np.allclose(first(X), second(X))


SCRIPT = """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import sys
import numpy as np
import tensorflow_hub as hub
import tf_keras

x = np.random.default_rng(0).random((24, 8, 8, 1), dtype="float32")
y = np.arange(24) % 3
assert hub.load(sys.argv[1])(x).shape == (24, 16)
model = tf_keras.Sequential([
    tf_keras.Input((8, 8, 1)),
    hub.KerasLayer(sys.argv[1], trainable=True),
    tf_keras.layers.Dense(3),
])
loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(tf_keras.optimizers.Adam(1e-2), loss)
before = model.get_weights()
history = model.fit(x, y, epochs=10, verbose=0).history["loss"]
moved = [not np.array_equal(a, b)
         for a, b in zip(before, model.get_weights(), strict=True)]
assert history[-1] < history[0], history
assert len(model.trainable_variables) == 7
assert all(moved), moved
assert len(model.losses) == 1  # the regularizer
print("tuned")
"""


@pytest.mark.slow
def test_tf_hub_and_tf_keras_fine_tune_it(body, tmp_path):
    script = tmp_path / "tune.py"
    script.write_text(textwrap.dedent(SCRIPT))

    done = subprocess.run(
        [sys.executable, str(script), str(body)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.strip() == "tuned", done.stderr


def test_the_body_of_a_pruned_sequential_model_is_saved(tmp_path):
    student = remove_units(fashion_cnn_student(16), {"hidden": range(9)})

    folder = to_saved_model(student, tmp_path / "body", features="hidden")

    rows = np.zeros((2, 28, 28, 1), "float32")
    assert tf.saved_model.load(str(folder))(rows).shape == (2, 7)


def test_the_card_says_what_it_is(saved):
    text = (saved / "README.md").read_text()
    card = json.loads((saved / "card.json").read_text())

    assert text.startswith('---\nlicense: "apache-2.0"\n')
    assert "# student" in text
    assert "| test | 90.00% |" in text
    assert card["parameters"] == 2_423
    assert card["inputs"]["image"]["shape"] == [None, 8, 8, 1]
    assert card["outputs"]["logits"] == {"shape": [None, 3], "dtype": "float32"}


def test_dicts_of_inputs_and_outputs_stay_dicts(tmp_path):
    inputs = {name: keras.Input((3,), name=name) for name in ("b", "a")}
    x = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
    model = keras.Model(inputs, {"y": keras.layers.Dense(2)(x), "x": x})

    loaded = tf.saved_model.load(str(to_saved_model(model, tmp_path / "m")))

    rows = {name: np.eye(3, dtype="float32") * i for i, name in enumerate("ab")}
    found, wanted = loaded(rows), model(rows)
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-6)


def test_penalties_and_half_precision_stay_behind(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = prepare(fashion_cnn_student(8))
    finally:
        keras.config.set_dtype_policy("float32")

    loaded = tf.saved_model.load(str(to_saved_model(student, tmp_path / "m")))

    assert {v.dtype.name for v in loaded.variables} == {"float32"}
    assert loaded.regularization_losses == []
    assert len(loaded.variables) == 8


def test_a_saved_model_is_replaced_and_nothing_else(tmp_path, student):
    target = to_saved_model(student, tmp_path / "m")
    to_saved_model(student, target, features="hidden")
    assert tf.saved_model.load(str(target))(X).shape == (24, 16)

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    for place in ("other", "other/thesis.txt"):
        with pytest.raises(ValueError, match="which holds something else"):
            to_saved_model(student, tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "other"]


def test_a_card_that_was_edited_is_not_replaced(tmp_path, student):
    target = to_saved_model(student, tmp_path / "m")
    (target / "README.md").write_text("my own words")

    with pytest.raises(ValueError, match="or changed files: README.md. Move"):
        to_saved_model(student, target)

    assert (target / "README.md").read_text() == "my own words"


def test_what_a_link_points_at_is_replaced_and_the_link_stays(
    tmp_path, student
):
    target = to_saved_model(student, tmp_path / "m")
    (tmp_path / "link").symlink_to(target)

    to_saved_model(student, tmp_path / "link", features="hidden")

    assert (tmp_path / "link").is_symlink()
    assert tf.saved_model.load(str(target))(X).shape == (24, 16)


def test_the_former_one_comes_back_where_the_new_cannot_be_put(
    student, tmp_path, monkeypatch
):
    target = to_saved_model(student, tmp_path / "m")
    real = os.rename

    def failing(source, destination):
        if source.name == "new":
            raise KeyboardInterrupt
        real(source, destination)

    without_exchange(monkeypatch)
    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        to_saved_model(student, target, features="hidden")

    assert tf.saved_model.load(str(target))(X).shape == (24, 3)


def test_a_layer_that_is_called_twice_is_no_feature(tmp_path):
    inputs = keras.Input((4,))
    layer = keras.layers.Dense(4, name="twice")
    model = keras.Model(inputs, layer(layer(inputs)))

    with pytest.raises(ValueError, match="called once, one of"):
        to_saved_model(model, tmp_path / "m", features="twice")


def test_other_outputs_are_an_error_and_leave_nothing(tmp_path, monkeypatch):
    outputs_of = module.outputs_of
    monkeypatch.setattr(
        module,
        "outputs_of",
        lambda *given: [part + 1 for part in outputs_of(*given)],
    )

    with pytest.raises(ExportError, match="SavedModel must compute the same"):
        to_saved_model(fashion_cnn_student(4), tmp_path / "m")

    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "nothing"}, "`features` must name a layer"),
        ({"card": {"x": object()}}, "`card` must be a dict that JSON"),
        ({"card": {"macs": 3}}, "`card` must leave"),
        ({"card": 3}, "`card` must be a dict"),
        ({"card": {1: 2}}, "`card` must have texts"),
    ],
)
def test_bad_options_are_refused(options, message, student, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_saved_model(student, tmp_path / "m", **options)

    assert not any(tmp_path.iterdir())


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(TypeError, match="`model` must be"):
        to_saved_model("student.keras", tmp_path / "m")


def test_a_layer_needs_a_reusable_saved_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved_model.pb"):
        SavedModelLayer(tmp_path)

    plain = tf.Module()
    plain.serve = tf.function(
        lambda x: x, input_signature=[tf.TensorSpec((None,))]
    )
    tf.saved_model.save(plain, str(tmp_path / "plain"))
    with pytest.raises(ValueError, match="must be reusable"):
        SavedModelLayer(tmp_path / "plain")


def test_the_process_stays_as_it_was(student, tmp_path):
    environment, weights = dict(os.environ), student.get_weights()

    to_saved_model(student, tmp_path / "m")

    assert dict(os.environ) == environment
    for before, after in zip(weights, student.get_weights(), strict=True):
        assert np.array_equal(before, after)
