"""Names in exported files, and the same bytes at every export."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from helpers import randomize

from keras_kddp.atomic_files import MANIFEST
from keras_kddp.export import (
    LiteRTRuntime,
    SavedModelLayer,
    to_microcontroller,
    to_saved_model,
    to_tflite,
    verify,
)
from keras_kddp.export.model.float32 import in_float32
from keras_kddp.export.model.signature import input_signature, output_names
from keras_kddp.export.tflite.calibration import CALIBRATED
from keras_kddp.export.tflite.to_tflite import QUANTIZATIONS

layers = keras.layers

ODD = {
    **{"in": "in_", "None": "None_", "self": "self_", "class": "class_"},
    **{"x-1": "x_1_1", "x_1": "x_1", "1st": "tensor_1st", "_": "tensor__"},
    **{"a b": "a_b", "a.b": "a_b_1", "a:0": "a_0", "ü": "tensor___1"},
    **{"X": "X", "x": "x_2", "training": "training", "int": "int"},
}
"""Name in Keras -> name in the file, of the inputs of one model."""


def rows(count, seed=0):
    return np.random.default_rng(seed).random((count, 3), dtype="float32")


def of_inputs(structure):
    """Returns a model that takes a structure of inputs, all of shape (3,)."""
    read = [
        layers.Dense(2, "relu")(tensor)
        for tensor in keras.tree.flatten(structure)
    ]
    hidden = layers.Concatenate()(read) if len(read) > 1 else read[0]
    outputs = layers.Dense(4, name="logits")(hidden)
    return randomize(keras.Model(structure, outputs, name="model"), 0)


def named(*names):
    inputs = [keras.Input((3,), name=name) for name in names]
    return inputs if len(inputs) > 1 else inputs[0]


def of_outputs(arrange):
    """Returns a model whose outputs, 1, 2, 3 and 4 wide, are arranged."""
    x = keras.Input((3,), name="x")
    parts = [layers.Dense(k, name=f"wide_{k}")(x) for k in (1, 2, 3, 4)]
    return randomize(keras.Model(x, arrange(*parts), name="model"), 0)


# --- which name -----------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("image",), ("image",)),
        (("in", "in_"), ("in__1", "in_")),
        (("x-1", "x_1"), ("x_1_1", "x_1")),
        (("x-1", "x_1", "x_1_1"), ("x_1_2", "x_1", "x_1_1")),
        (("x.1", "x-1"), ("x_1", "x_1_1")),
        (("X", "x"), ("X", "x_1")),
        (("", " "), ("tensor_", "tensor__")),
        (("x" * 300,), ("x" * 300,)),
    ],
    ids=lambda names: "+".join(name[:8] for name in names),
)
def test_an_input_has_its_own_name_or_one_like_it(given, wanted):
    signature = input_signature(of_inputs(named(*given)))

    assert tuple(entry.name for entry in signature) == wanted


def test_inputs_in_a_dict_have_the_names_of_their_keys():
    with pytest.warns(UserWarning, match="must match the names"):
        model = of_inputs({"b": keras.Input((3,)), "a": keras.Input((3,))})

    found = [(part.keras_name, part.name) for part in input_signature(model)]

    assert found == [("a", "a"), ("b", "b")]


def test_an_unnamed_input_has_one_name_in_every_form_of_a_model(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = of_inputs([keras.Input((3,)), keras.Input((3,))])
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    wanted = [layer.name for layer in model.layers[:2]]
    copy = in_float32(model)

    assert copy is not model
    assert [part.name for part in copy.inputs] == [
        part.name for part in model.inputs
    ]
    for form in (model, copy, loaded):
        assert [part.name for part in input_signature(form)] == wanted


@pytest.mark.parametrize(
    ("arrange", "wanted"),
    [
        pytest.param(
            lambda a, b, c, d: {"score": a, "box": b},
            ("box", "score"),
            id="dict",
        ),
        pytest.param(
            lambda a, b, c, d: {"one": a}, ("one",), id="single entry"
        ),
        pytest.param(
            lambda a, b, c, d: {"in": a, "self": b, "x-1": c, "ü": d},
            ("in", "self", "x-1", "ü"),
            id="odd keys",
        ),
        pytest.param(
            lambda a, b, c, d: {"": a, "b": b}, ("wide_1", "b"), id="empty key"
        ),
        pytest.param(
            lambda a, b, c, d: {"h": {"b": a, "a": b}, "g": [c, d]},
            ("g_0", "g_1", "h_a", "h_b"),
            id="dicts and lists in a dict",
        ),
        pytest.param(
            lambda a, b, c, d: [{"y": a}, {"y": b, "z": c}],
            ("y", "y_1", "z"),
            id="dicts in a list",
        ),
        pytest.param(
            lambda a, b, c, d: {"h": {"a": a}, "h_a": b},
            ("h_a_1", "h_a"),
            id="a key goes before a path",
        ),
        pytest.param(
            lambda a, b, c, d: {"one": a, "two": a}, ("one", "two"), id="twice"
        ),
        pytest.param(
            lambda a, b, c, d: [b, a], ("wide_2", "wide_1"), id="list"
        ),
        pytest.param(
            lambda a, b, c, d: [a, (b, c)],
            ("wide_1", "wide_2", "wide_3"),
            id="lists in a list",
        ),
        pytest.param(lambda a, b, c, d: a, ("wide_1",), id="alone"),
    ],
)
def test_outputs_have_the_names_of_keys_or_layers(arrange, wanted):
    model = of_outputs(arrange)

    widths = [part.shape[-1] for part in model.outputs]
    called = keras.tree.flatten(model(rows(2)))

    assert output_names(model) == wanted
    assert [part.shape[-1] for part in called] == widths


def test_a_model_behind_a_model_hands_its_keys_on():
    inner = of_outputs(lambda a, b, c, d: {"score": a, "box": b})
    x = keras.Input((3,))

    assert output_names(keras.Model(x, inner(x))) == ("box", "score")


def test_the_last_layer_names_the_output_of_a_sequential_model():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="a b")])

    assert output_names(model) == ("a_b",)


# --- in the files ---------------------------------------------------------


@pytest.fixture(scope="module")
def odd():
    return of_inputs(dict(zip(ODD, named(*ODD), strict=True)))


@pytest.fixture(scope="module")
def fed():
    return {name: rows(8, seed) for seed, name in enumerate(ODD)}


def test_odd_names_of_inputs_are_in_the_saved_model(odd, fed, tmp_path):
    folder = to_saved_model(odd, tmp_path / "m")

    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures["serving_default"]
    served = serve(**{ODD[name]: tf.constant(x) for name, x in fed.items()})
    wanted = odd(fed)
    assert set(serve.structured_input_signature[1]) == set(ODD.values())
    np.testing.assert_allclose(served["logits"], wanted, atol=1e-5)
    np.testing.assert_allclose(loaded(fed), wanted, atol=1e-5)
    np.testing.assert_allclose(SavedModelLayer(folder)(fed), wanted, atol=1e-5)


@pytest.mark.parametrize("quantization", ["none", "int16x8"])
def test_odd_names_of_inputs_are_in_the_file(odd, fed, quantization, tmp_path):
    backwards = dict(reversed(fed.items()))
    artifact = to_tflite(
        odd,
        tmp_path / "m.tflite",
        quantization=quantization,
        calibration=backwards if quantization in CALIBRATED else None,
    )

    (signature,) = Interpreter(str(artifact.path)).get_signature_list().values()
    assert set(signature["inputs"]) == set(ODD.values())
    assert signature["outputs"] == ["logits"]
    assert verify(odd, artifact.path, backwards, tolerance=0.1).passed


@pytest.mark.parametrize("name", ["in", "self", "None", "_"])
def test_the_only_input_may_have_an_odd_name(name, tmp_path):
    model = of_inputs(named(name))
    x = rows(8)

    folder = to_saved_model(model, tmp_path / "m")
    artifact = to_tflite(
        model, tmp_path / "m.tflite", quantization="int8", calibration=x
    )

    served = tf.saved_model.load(str(folder)).signatures["serving_default"](
        tf.constant(x)
    )
    np.testing.assert_allclose(served["logits"], model(x), atol=1e-5)
    assert LiteRTRuntime(artifact.path).input_names == (
        input_signature(model)[0].name,
    )


def test_a_dict_of_outputs_has_the_names_that_keras_exports(tmp_path):
    model = of_outputs(lambda a, b, c, d: {"score": a, "in": b, "x-1": c})
    model.export(str(tmp_path / "keras"), verbose=False)
    x = rows(4)

    artifact = to_tflite(model, tmp_path / "m.tflite")
    folder = to_saved_model(model, tmp_path / "m")

    exported = tf.saved_model.load(str(tmp_path / "keras"))
    own = tf.saved_model.load(str(folder))
    wanted = {name: part.numpy() for name, part in exported.serve(x).items()}
    served = own.signatures["serving_default"](tf.constant(x))
    from_file = LiteRTRuntime(artifact.path).run({"x": x})
    assert artifact.output_names == ("in", "score", "x-1")
    for found in (served, own(x), SavedModelLayer(folder)(x), from_file):
        assert found.keys() == wanted.keys()
        for name, part in wanted.items():
            np.testing.assert_allclose(found[name], part, atol=1e-5)


def test_outputs_may_be_named_as_inputs_and_be_one_tensor(tmp_path):
    x = keras.Input((3,), name="x")
    first, second = layers.Dense(2)(x), layers.Dense(4)(x)
    outputs = {"x": first, "y": second, "again": first, "given": x}
    model = randomize(keras.Model(x, outputs), 0)

    artifact = to_tflite(model, tmp_path / "m.tflite")

    found = LiteRTRuntime(artifact.path).run({"x": rows(4)})
    for name, wanted in model(rows(4)).items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-5)
    assert verify(model, artifact.path, rows(4)).passed


def test_the_file_has_inputs_and_outputs_in_the_order_of_the_model(tmp_path):
    model = of_outputs(lambda a, b, c, d: [d, a, c, b])
    artifact = to_tflite(model, tmp_path / "m.tflite")

    outputs = Interpreter(str(artifact.path)).get_output_details()
    widths = [part["shape"].tolist() for part in outputs]

    assert widths == [[1, 4], [1, 1], [1, 3], [1, 2]]


@pytest.mark.parametrize("form", ["nested", "flat", "by name"])
def test_nested_inputs_are_given_as_the_model_takes_them(form, tmp_path):
    b, a, c = named("b", "a", "c")
    model = of_inputs({"p": {"b": b, "a": a}, "q": [c]})
    x = [rows(8, seed) for seed in range(3)]  # of a, b and c
    given = {
        "nested": {"q": [x[2]], "p": {"b": x[1], "a": x[0]}},
        "flat": x,
        "by name": dict(zip("abc", x, strict=True)),
    }[form]

    artifact = to_tflite(model, tmp_path / "m.tflite")

    assert verify(model, artifact, given).passed


def test_the_only_input_may_be_in_a_list(tmp_path):
    model = of_inputs([keras.Input((3,))])
    artifact = to_tflite(model, tmp_path / "m.tflite")

    assert verify(model, artifact, [rows(8)]).samples == 8
    assert verify(model, artifact, [rows(8)[0]]).samples == 1


# --- the same bytes -------------------------------------------------------


def branching(first_number=0):
    """Returns a model of which the inputs and outputs have names of their own.

    Args:
        first_number: How many layers of each kind Keras has counted before.
    """
    keras.backend.clear_session()
    for _ in range(first_number):
        layers.Dense(1)
        keras.Sequential()
    first, second = keras.Input((3,), name="first"), keras.Input((3,), name="b")
    shared = layers.Dense(2, "relu")
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    parts = [shared(first), shared(second), inner(first) * 2.0]
    parts += [layers.Dense(2)(first), layers.Dense(1, name="lone_1")(second)]
    x = layers.Concatenate()(parts)
    outputs = {"z": layers.Dense(2)(x), "y": layers.Dense(3)(x)}
    return randomize(keras.Model([first, second], outputs, name="model"), 0)


def content(model, path, quantization="none"):
    artifact = to_tflite(
        model,
        path,
        quantization=quantization,
        calibration=[rows(8), rows(8, 1)]
        if quantization in CALIBRATED
        else None,
    )
    return artifact.path.read_bytes()


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_model_and_its_keras_file_become_the_same_bytes(
    quantization, tmp_path
):
    model = of_inputs([keras.Input((3,)), keras.Input((3,))])
    model.save(tmp_path / "model.keras")
    wanted = content(model, tmp_path / "1.tflite", quantization)
    for _ in range(2):  # numbers of tensors and layers count on
        loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert content(loaded, tmp_path / "2.tflite", quantization) == wanted


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_a_second_export_has_the_same_bytes(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        model = branching()
    finally:
        keras.config.set_dtype_policy("float32")

    first, second = (content(model, tmp_path / "m.tflite") for _ in range(2))

    assert first == second


def test_numbers_of_keras_do_not_change_the_file(tmp_path):
    # Between them dense_9 becomes dense_10, which comes before it in a list.
    first, *others = (
        content(branching(number), tmp_path / "m.tflite")
        for number in (0, 6, 8)
    )

    assert others == [first, first]
    parsed = schema.ModelT.InitFromObj(
        schema.Model.GetRootAsModel(others[0], 0)
    )
    names = {part.name.decode() for part in parsed.subgraphs[0].tensors}
    assert "lone_1/MatMul" in names  # a user gave it
    assert {"dense/MatMul", "dense_1/MatMul"} < names
    assert not any("dense_6" in name for name in names)


def test_a_second_saved_model_has_the_same_fingerprint(tmp_path):
    model = of_inputs([keras.Input((3,)), keras.Input((3,))])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    first, *others = (
        to_saved_model(form, tmp_path / folder)
        for folder, form in (("1", model), ("2", model), ("3", loaded))
    )

    # Names of functions in the .pb count on in a process of TensorFlow; the
    # list of files has its sum.
    prints = {
        tf.saved_model.experimental.read_fingerprint(str(folder)).singleprint()
        for folder in (first, *others)
    }
    assert len(prints) == 1
    for other in others:
        for file in first.rglob("*"):
            is_same = file.suffix != ".pb" and file.name != MANIFEST
            if file.is_file() and is_same:
                path = other / file.relative_to(first)
                assert path.read_bytes() == file.read_bytes()


def test_a_bundle_has_the_same_bytes_and_comments_that_end(tmp_path):
    model = of_outputs(lambda a, b, c, d: {"*/ int x;": b, "ü": c})

    first, second = (
        to_microcontroller(model, tmp_path / folder, rows(8)).directory
        for folder in ("first", "second")
    )

    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()
    header = (first / "model.h").read_text("ascii")
    assert "/* output 0: * / int x;, 1 x 2 */" in header
    assert "/* output 1: \\u00fc, 1 x 3 */" in header
