"""What a firmware engineer gets."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_kddp.export import (
    ExportError,
    LiteRTRuntime,
    TFLMRuntime,
    read_metadata,
    to_microcontroller,
)
from keras_kddp.export.micro.sources import resolver_method

X = np.random.default_rng(0).uniform(size=(80, 8, 8, 1)).astype("float32")
STUB = Path(__file__).parent / "tflm_stub"
FILES = {
    *("README.md", "golden.cc", "golden.h", "main.cc", "model.cc", "model.h"),
    *("model.json", "model.tflite", "op_resolver.h"),
    ".keras_kddp.json",
}


def make_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="logits"),
        ]
    )


@pytest.fixture(scope="module", params=["int8", "none", "int16x8"])
def bundle(request, tmp_path_factory):
    return to_microcontroller(
        make_model(),
        tmp_path_factory.mktemp("bundles") / request.param,
        X,
        quantization=request.param,
        metadata={"labels": ["a", "b", "c"]},
    )


def numbers_of(text, name):
    """Returns the numbers of a C array."""
    body = re.search(rf" {name}\[.*?= \{{(.*?)\n\}};", text, re.S).group(1)
    numbers = re.findall(r"-?[\d.]+(?:e-?\d+)?(?=f?[,\s}])", body)
    return [float(number) for number in numbers]


def test_a_bundle_is_complete(bundle):
    assert {file.name for file in bundle.directory.iterdir()} == FILES
    assert bundle.operations == (
        *("CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED"),
    )
    assert bundle.tflite.path == bundle.directory / "model.tflite"
    assert read_metadata(bundle.tflite.path)["labels"] == ["a", "b", "c"]


def test_the_array_is_the_file(bundle):
    text = (bundle.directory / "model.cc").read_text()
    content = bytes(
        int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", text)
    )

    assert content == bundle.tflite.path.read_bytes()
    assert f"student_model_size = {len(content)};" in text
    assert "alignas(16)" in text


def test_the_golden_outputs_are_those_of_tflm(bundle):
    chip = TFLMRuntime(bundle.tflite.path)
    (given,), (found,) = chip.inputs.values(), chip.outputs.values()
    text = (bundle.directory / "golden.cc").read_text()

    inputs = np.array(numbers_of(text, "student_golden_input_0"))
    wanted = np.array(numbers_of(text, "student_golden_output_0"))

    inputs = given.real(inputs.reshape(-1, 8, 8, 1))
    outputs = found.stored(chip.run({given.name: inputs})["logits"])
    assert len(inputs) == 4
    np.testing.assert_allclose(outputs.ravel(), wanted, rtol=1e-6)


def test_the_header_says_what_numbers_mean(bundle):
    (given,) = LiteRTRuntime(bundle.tflite.path).inputs.values()
    text = (bundle.directory / "model.h").read_text()

    assert "#define STUDENT_INPUT_0_SIZE 64" in text
    assert f"#define STUDENT_ARENA_BYTES {bundle.arena_bytes}" in text
    has_scale = "STUDENT_INPUT_0_SCALE" in text
    assert has_scale is (given.scale is not None)
    if has_scale:
        assert f"_0_SCALE {given.scale!r}f" in text
        assert f"_0_ZERO_POINT ({given.zero_point})" in text


def runs_in(content, arena):
    """Says whether TFLM loads and runs a file in an arena."""
    program = (
        "import sys, numpy\n"
        "from tflite_micro.python.tflite_micro import runtime\n"
        "model = runtime.Interpreter.from_bytes(\n"
        "    sys.stdin.buffer.read(), arena_size=int(sys.argv[1]))\n"
        "details = model.get_input_details(0)\n"
        "zeros = numpy.zeros(details['shape'], details['dtype'])\n"
        "model.set_input(zeros, 0)\n"
        "model.invoke()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(arena)],
        input=content,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_the_arena_is_what_tflm_needs_and_a_tenth(bundle):
    measured = bundle.measured_arena_bytes
    content = bundle.tflite.path.read_bytes()

    for arena, fits in ((measured, True), (measured - 64, False)):
        assert runs_in(content, arena) is fits
    assert 0 < measured * 1.1 <= bundle.arena_bytes < measured * 1.1 + 16
    assert bundle.arena_bytes % 16 == 0
    readme = (bundle.directory / "README.md").read_text()
    assert f"{bundle.arena_bytes:,} bytes (`STUDENT_ARENA_BYTES`)" in readme


def test_the_resolver_registers_just_the_operations(bundle):
    text = (bundle.directory / "op_resolver.h").read_text()

    assert re.findall(r"resolver\.(\w+)\(", text) == [
        *("AddConv2D", "AddMaxPool2D", "AddReshape", "AddFullyConnected"),
    ]
    assert "MicroMutableOpResolver<4>" in text


@pytest.mark.parametrize(
    ("operation", "method"),
    [
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("TRANSPOSE_CONV", "AddTransposeConv"),
        ("RELU6", "AddRelu6"),
        ("PADV2", "AddPadV2"),
        ("L2_NORMALIZATION", "AddL2Normalization"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
        ("LEAKY_RELU", "AddLeakyRelu"),
        ("CUMSUM", "AddCumSum"),
        ("SPLIT_V", "AddSplitV"),
        ("SVDF", "AddSvdf"),
        ("BATCH_TO_SPACE_ND", "AddBatchToSpaceNd"),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "AddUnidirectionalSequenceLSTM"),
    ],
)
def test_methods_are_named_as_tflm_names_them(operation, method):
    assert resolver_method(operation) == method


def test_names_of_symbols_can_be_chosen(tmp_path):
    bundle = to_microcontroller(
        make_model(), tmp_path, X, name="wake_word", uint8_input=True
    )

    text = (tmp_path / "model.h").read_text()
    assert "extern const unsigned char wake_word_model[];" in text
    assert "WakeWordOpResolver" in (tmp_path / "op_resolver.h").read_text()
    assert "uint8_t wake_word_golden" in (tmp_path / "golden.h").read_text()
    assert bundle.operations[0] == "QUANTIZE"


def compile_bundle(compiler, directory, *options):
    """Compiles every source of a bundle; raises what the compiler says."""
    assert shutil.which(compiler[0]), f"install {compiler[0]}"
    for source in sorted(directory.glob("*.cc")):
        done = subprocess.run(
            [
                *compiler,
                *("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"),
                *(f"-I{STUB}", "-c", str(source), "-o", "/dev/null", *options),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "compiler",
    [
        ["gcc"],
        ["g++"],
        ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-fno-exceptions"],
    ],
    ids=lambda words: words[0],
)
def test_the_sources_compile_without_a_warning(compiler, bundle):
    compile_bundle(compiler, bundle.directory)


def refused_by_tflm():
    inputs = keras.Input((4,))
    return keras.Model(
        inputs, keras.layers.Dense(3, "gelu", name="gelu")(inputs)
    )


def test_what_tflm_cannot_run_leaves_no_bundle(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 4))

    with pytest.raises(
        ExportError,
        match=r"Received from one: GELU of layer 'gelu' \(Dense\): use silu or",
    ):
        to_microcontroller(refused_by_tflm(), tmp_path / "b", x)

    assert not (tmp_path / "b").exists()


def test_what_tflm_computes_otherwise_leaves_no_bundle(tmp_path):
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.ReLU(6.0)(inputs)  # nothing before it to fuse into
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(x))
    x = np.random.default_rng(0).normal(size=(50, 4, 4, 2)) * 9

    with pytest.raises(ExportError, match="must compute what LiteRT computes"):
        to_microcontroller(model, tmp_path / "b", x)

    assert not (tmp_path / "b").exists()


def test_a_failed_export_leaves_the_former_bundle(tmp_path):
    to_microcontroller(make_model(), tmp_path, X)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    x = np.random.default_rng(0).normal(size=(50, 4))

    with pytest.raises(ExportError):
        to_microcontroller(refused_by_tflm(), tmp_path, x)

    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "float16"}, "`quantization` must be one of"),
        ({"calibration": None}, "`calibration` must be given"),
        ({"calibration": X[:, :4]}, "`calibration` must hold float32"),
        ({"calibration": X * np.inf}, "`calibration` must be finite"),
        ({"metadata": {"a": object()}}, "JSON can hold"),
        ({"metadata": {"model": "mine"}}, "must leave .* to the export"),
        ({"samples": 0}, "`samples` must be an integer"),
        ({"name": "My-Model"}, "must be a C identifier"),
        ({"name": 3}, "must be a C identifier"),
    ],
)
def test_a_bad_argument_leaves_nothing(options, message, tmp_path):
    given = {"calibration": X, **options}

    with pytest.raises(ValueError, match=message):
        to_microcontroller(make_model(), tmp_path / "b", **given)

    assert not (tmp_path / "b").exists()


def test_without_tflm_the_way_to_get_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(
        TFLMRuntime, "absence", classmethod(lambda _: "pip install it")
    )

    with pytest.raises(ImportError, match="which is not here: pip install it"):
        to_microcontroller(make_model(), tmp_path / "b", X)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_place_that_no_bundle_can_be_at_is_refused(is_file, tmp_path):
    path = tmp_path / "b"
    path.write_text("mine") if is_file else (path / "main.cc").mkdir(
        parents=True
    )

    with pytest.raises(ValueError, match="b' must be a folder(, or| that is)"):
        to_microcontroller(make_model(), path, X)

    assert (
        path.read_text() == "mine"
        if is_file
        else not any((path / "main.cc").iterdir())
    )


def test_a_bundle_that_was_edited_is_not_replaced(tmp_path):
    path = tmp_path / "b"
    to_microcontroller(make_model(), path, X)
    to_microcontroller(make_model(), path, X, name="again")
    assert "again" in (path / "model.h").read_text()
    (path / "main.cc").write_text("my own firmware")

    with pytest.raises(ValueError, match="or changed files: main.cc. Move"):
        to_microcontroller(make_model(), path, X)

    assert (path / "main.cc").read_text() == "my own firmware"


def test_an_output_with_two_names_is_numbered_as_in_the_file(tmp_path):
    inputs = keras.Input((4,))
    first = keras.layers.Dense(3, name="a")(inputs)
    second = keras.layers.Dense(2, name="b")(inputs)
    model = keras.Model(inputs, [first, second, first])
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")

    to_microcontroller(model, tmp_path, x)

    header = (tmp_path / "model.h").read_text()
    sizes = re.findall(r"OUTPUT_(\d)_SIZE (\d)", header)
    assert sorted(sizes) in (
        [("0", "2"), ("1", "3")],
        [("0", "3"), ("1", "2")],
    )


class Doubled(keras.layers.Layer):
    """Its input, doubled in a loop."""

    def call(self, inputs):
        return keras.ops.while_loop(
            lambda step, _: step < 3,
            lambda step, value: (step + 1, keras.ops.tanh(2 * value)),
            (0, inputs),
        )[1]


def test_operations_inside_loops_are_registered(tmp_path):
    inputs = keras.Input((5, 3))
    outputs = Doubled()(inputs)
    x = np.random.default_rng(0).normal(size=(50, 5, 3)).astype("float32")
    model = keras.Model(inputs, outputs)

    bundle = to_microcontroller(model, tmp_path, x, quantization="none")

    assert {"WHILE", "LESS", "TANH"} <= set(bundle.operations)


def test_integers_are_golden_to_the_last_digit(tmp_path):
    inputs = keras.Input((2,), dtype="int32")
    model = keras.Model(inputs, inputs * 3)
    x = np.array([[100_000_001, 3], [7, 99_999_999]] * 20, "int32")

    to_microcontroller(model, tmp_path, x, quantization="none")

    text = (tmp_path / "golden.cc").read_text()
    assert "300000003" in text
    assert "299999997" in text
    main = (tmp_path / "main.cc").read_text()
    assert "0.0, 0.0);" in main


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "wanted", "dtype", "passes"),
    [
        ("0.0f / 0.0f", "1.0f", "float", False),
        ("1.0f", "1.00005f", "float", True),
        ("20000.0f", "20003.0f", "float", False),
        ("5", "6", "int8_t", True),
        ("5", "7", "int8_t", False),
    ],
)
def test_the_self_test_tells_right_from_wrong(
    found, wanted, dtype, passes, bundle, tmp_path
):
    text = (bundle.directory / "main.cc").read_text()
    body = text[text.index("template <typename T>") : text.index("}  // names")]
    bounds = "1e-4, 1e-4" if dtype == "float" else "1.0, 0.0"
    (tmp_path / "t.cc").write_text(
        f"#include <stdint.h>\n{body}\nint main() {{\n"
        f"  const {dtype} found[] = {{{found}}}, wanted[] = {{{wanted}}};\n"
        f"  return differs(found, wanted, 1, {bounds});\n}}\n"
    )
    program = tmp_path / "t"
    subprocess.run(["g++", str(tmp_path / "t.cc"), "-o", program], check=True)

    assert (subprocess.run([program], check=False).returncode == 0) is passes
