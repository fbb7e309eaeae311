"""The top of the package: its names, and what Keras knows after its import."""

import ast
import json
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_kddp

HOOK = """
import importlib.machinery
import sys

class Hook:
    seen = []

    def find_spec(self, name, path=None, target=None):
        if name in ("keras", "keras_kddp.pruning.criteria"):
            self.seen.append(name)
            return importlib.machinery.PathFinder.find_spec(name, path, target)

sys.meta_path.insert(0, Hook())
"""


def run(code):
    """Runs code in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_alone_brings_no_keras():
    shown = run(
        "import sys, keras_kddp\n"
        "assert not {'keras', 'tensorflow', 'numpy'} & set(sys.modules)\n"
        "print(*dir(keras_kddp), keras_kddp.__version__)"
    )
    *names, number = shown.split()
    public = [name for name in names if not name.startswith("__")]
    assert public == sorted([*keras_kddp.__all__, "models"])
    assert {"__version__", "__doc__", "__file__"} < set(names)
    assert number == keras_kddp.__version__


LOADS = """
import sys
for path in PATHS:
    print(type(keras.saving.load_model(path)).__name__)
print(keras.saving.get_registered_object('keras_kddp>SoftTargets').__name__)
from keras_kddp.layers import ActivityPenalty
name = 'keras_kddp>ActivityPenalty'
assert keras.saving.get_registered_object(name) is ActivityPenalty
assert '_Registration' not in [type(x).__name__ for x in sys.meta_path]
"""
LOADED = ["Sequential", "Distiller", "SoftTargets"]
UNREGISTERED = """
import sys, warnings, keras_kddp
sys.modules['keras_kddp.pruning.criteria'] = None
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter('always')
    import keras
print(keras.__name__)
print(*(str(x.message) for x in found))
"""
FIRST_IMPORTS = {
    "keras first": "import keras\nimport keras_kddp" + LOADS,
    "a folder alone": "import keras_kddp.layers\nimport keras" + LOADS,
    "one name": "from keras_kddp import prepare\nimport keras" + LOADS,
    "unregistered": UNREGISTERED,
}
# TensorFlow takes most of the time of an import of Keras, which it imports
# itself where it can: once without, for copies that all begin before Keras.
COPIES = """
import json, os, sys, traceback

sys.modules["keras"] = None
import tensorflow
for name in [x for x in sys.modules if x.split(".")[0] == "keras"]:
    del sys.modules[name]
codes, paths = json.load(sys.stdin)
for name, code in codes.items():
    if not os.fork():
        for number in (1, 2):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
        status = 1
        try:
            exec(code, {"PATHS": paths})
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0, open(name).read()
"""


@pytest.fixture(scope="module")
def shown(saved, tmp_path_factory):
    """Returns what processes show that begin with an import, by its name."""
    folder = tmp_path_factory.mktemp("shown")
    done = subprocess.run(
        [sys.executable, "-c", COPIES],
        input=json.dumps([FIRST_IMPORTS, saved]),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_hooks_that_were_there_before_see_what_is_imported(saved):
    code = f"{HOOK}\nimport keras_kddp\nimport keras\nprint(*Hook.seen)\n"
    shown = run(f"PATHS = {saved}\n{code}{LOADS}")
    assert shown.split() == ["keras", "keras_kddp.pruning.criteria", *LOADED]


def test_a_package_that_does_not_register_leaves_keras_alone(shown):
    assert shown["unregistered"].startswith("keras\n")
    assert "layers of keras_kddp cannot be loaded" in shown["unregistered"]


def test_a_star_import_brings_every_public_name():
    names = {}
    exec("from keras_kddp import *", names)
    assert set(keras_kddp.__all__) <= set(names)
    assert names["compress"] is keras_kddp.compress


def test_type_checkers_see_what_is_there():
    tree = ast.parse(Path(keras_kddp.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    homes = {
        alias.name: node.module.removeprefix("keras_kddp").lstrip(".")
        for node in block.body
        for alias in node.names
    }
    assert set(homes) == set(keras_kddp.__all__)
    modules = {name for name, home in homes.items() if not home}
    assert modules == {"export", "layers", "surgery"} & modules
    assert {n: x for n, x in homes.items() if x} == keras_kddp._HOMES
    for name in keras_kddp.__all__:
        assert getattr(keras_kddp, name) is not None


def test_a_misspelt_name_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'prepair'"):
        keras_kddp.prepair  # noqa: B018


def test_public_objects_are_pickled_by_their_module():
    for name in ("Budget", "compress", "DynamicPruning"):
        public = getattr(keras_kddp, name)
        assert pickle.loads(pickle.dumps(public)) is public


def test_all_that_registers_is_registered():
    package = Path(keras_kddp.__file__).parent
    registering = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if "\n@keras.saving.register_keras_serializable" in path.read_text()
    }
    assert registering == set(keras_kddp._REGISTERED)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns the files of a prepared student and a compiled Distiller."""
    folder = tmp_path_factory.mktemp("saved")

    def model(units):
        return keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(units, "relu", name="hidden"),
                keras.layers.Dense(3, name="logits"),
            ]
        )

    student = keras_kddp.prepare(model(4))
    distiller = keras_kddp.Distiller(
        model(8),
        student,
        [
            keras_kddp.SoftTargets(2.0),
            keras_kddp.FeatureHints("hidden", "hidden"),
        ],
    )
    distiller.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    distiller.fit(np.zeros((2, 4)), np.zeros(2), verbose=0)
    paths = [str(folder / f"{x}.keras") for x in ("prepared", "distiller")]
    student.save(paths[0])
    distiller.save(paths[1])
    return paths


@pytest.mark.parametrize("order", ["keras first", "a folder alone", "one name"])
def test_saved_models_load_after_the_import_alone(order, shown):
    assert shown[order].split()[-3:] == LOADED
