"""The examples run, on small data."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_datasets import write_idx

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(folder, name, *words, **environment):
    """Returns what an example prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def images(tmp_path):
    """Returns a folder of images of the size of Fashion-MNIST's."""
    generator = np.random.default_rng(0)
    labels = (np.arange(400) % 10).astype("uint8")
    pixels = generator.integers(0, 60, (400, 28, 28), dtype="uint8")
    for row, label in enumerate(labels):
        pixels[row, 2 * label : 2 * label + 8] = 200  # a bar says the class
    parts = {"x_train": pixels, "y_train": labels}
    parts |= {"x_test": pixels[:100], "y_test": labels[:100]}
    write_idx(tmp_path, parts)
    return tmp_path


def test_the_fashion_mnist_example_runs(images):
    shown = run(images, "fashion_mnist_cnn.py", images, 2, 6)
    assert "hidden units       512 -> " in shown
    assert len(re.findall("LiteRT .* passed", shown)) == 2
    assert "FAILED" not in shown
    assert (images / "runs/fashion_example/student_int8.tflite").is_file()


def test_the_tfds_example_runs(prepared_tfds, tmp_path):
    words = ("tiny_images", 6)
    shown = run(
        tmp_path, "tfds_dataset.py", *words, TFDS_DATA_DIR=str(prepared_tfds)
    )
    assert "test accuracy" in shown


def test_the_rule_example_runs_and_is_exact(tmp_path):
    lines = run(tmp_path, "own_layer_rule.py").splitlines()
    assert "units 30" in lines
    assert float(lines[-1].split()[-1]) < 1e-6


@pytest.mark.slow
def test_the_mobilenet_example_shrinks_inside_fit(images):
    shown = run(images, "mobilenet_student.py", images, 400)
    before, after = (
        int(number.replace(",", ""))
        for number in re.search(r"parameters  (.*) -> (.*)", shown).groups()
    )
    assert after < before
    assert "Epoch 2: removed units" in shown
    assert "mobilenet_int8.tflite" in shown
    assert "FAILED" not in shown


def test_every_example_has_a_test():
    text = Path(__file__).read_text() + Path(__file__).with_name(
        "test_readme.py"
    ).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text


@pytest.mark.slow
def test_the_reuse_example_learns_a_second_task_everywhere(tmp_path):
    shown = run(tmp_path, "reuse_student.py")

    for name in ("Keras 3", "TensorFlow", "tf_keras, TF Hub"):
        (line,) = re.findall(
            rf"^{name} +loss (.*) -> (.*), accuracy (.*)%$", shown, re.MULTILINE
        )
        first, last, accuracy = map(float, line)
        assert last < first
        assert accuracy > 85


@pytest.mark.slow
def test_the_quantization_example_passes_on_every_runtime(tmp_path):
    shown = run(tmp_path, "quantization_aware.py")

    assert len(re.findall(r"(LiteRT|TFLM) .* passed", shown)) == 6
    assert "FAILED" not in shown
    assert len(re.findall("5[0-9]% 0", shown)) + shown.count("50% 0") >= 2
