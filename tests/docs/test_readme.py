"""What the README shows is what the examples hold, and it runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_readme_shows_the_example_to_the_letter():
    example = (ROOT / "examples" / "digits_dense.py").read_text("utf-8")
    assert BLOCKS[0] == example


@pytest.mark.parametrize("block", BLOCKS)
def test_every_python_block_compiles(block):
    compile(block, "README.md", "exec")


def test_the_files_that_the_readme_links_to_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_example_runs_and_leaves_a_verified_file(tmp_path):
    example = ROOT / "examples" / "digits_dense.py"
    done = subprocess.run(
        [sys.executable, example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "removed units" in done.stdout
    assert "passed" in done.stdout
    assert (tmp_path / "student_float32.tflite").stat().st_size > 0


def test_surgery_on_its_own_does_what_the_readme_says():
    import keras

    import keras_kddp as kddp

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(20, activation="relu", name="fc"),
            keras.layers.Dense(2, name="out"),
        ]
    )
    block = next(b for b in BLOCKS if "plan_removal" in b)
    names = {"kddp": kddp, "model": model}
    exec(block, names)
    assert names["smaller"].get_layer("fc").units == 20 - 2
    assert model.get_layer("fc").units == 20
