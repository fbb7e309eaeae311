"""The package's layers: who may import whom, and who may touch Keras."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")

# From the bottom to the top: a module imports only what stands before it.
# Modules in a folder may import each other, as long as there is no cycle.
ORDER = re.findall(r"^\d+\. `(\w+)`: ", ARCHITECTURE, flags=re.MULTILINE)

# They run in processes of their own, which may not have the package.
PROGRAMS = (
    *("*_program.py", "worker_main.py", "guard_main.py"),
    *("calibrated_ranges.py", "portable_models.py", "unused_parts.py"),
)


def modules(root):
    """Returns the syntax trees of the package by dotted name."""
    trees = {}
    for path in sorted((root / "keras_kddp").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def imported(trees, name):
    """Returns the package's modules that one imports, and how it may not."""
    targets, problems = set(), []
    for node in ast.walk(trees[name]):
        if isinstance(node, ast.Import):
            problems += [
                f"{name}: write `from {alias.name} import ...`"
                for alias in node.names
                if alias.name.split(".")[0] == "keras_kddp"
            ]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                problems.append(f"{name}: write relative imports in full")
            elif module.split(".")[0] == "keras_kddp":
                for alias in node.names:
                    submodule = f"{module}.{alias.name}"
                    targets.add(submodule if submodule in trees else module)
    return targets, problems


def layer(name):
    """Returns the first name below the package: folder or module."""
    return name.split(".")[1] if "." in name else ""


def order_problems(trees):
    """Returns what breaks the order, one sentence each."""
    problems = []
    graph = {}
    for name in trees:
        graph[name], found = imported(trees, name)
        problems += found
        if name == "keras_kddp":
            continue
        if layer(name) not in ORDER:
            problems.append(
                f"{name} has no place in the order: add it to the list in "
                "docs/architecture.md"
            )
            continue
        for target in sorted(graph[name]):
            if target == "keras_kddp":
                problems.append(f"{name} imports the top of the package")
            elif layer(target) not in ORDER[: ORDER.index(layer(name)) + 1]:
                problems.append(f"{name} imports {target}, which is above it")
    return problems + cycles(graph)


def cycles(graph):
    """Returns one sentence per module that imports itself in the end."""
    problems = []
    for start in graph:
        reached, waiting = set(), list(graph[start])
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting += graph.get(name, ())
        if start in reached:
            problems.append(f"{start} is part of an import cycle")
    return problems


def private_problems(trees):
    """Returns who but _compat reaches into Keras, and who uses tf.keras."""
    problems = []
    for name, tree in trees.items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{each.name}" for each in node.names]
            elif isinstance(node, ast.Attribute):
                names = [ast.unparse(node)]
            for used in names:
                private = f"{used}.".startswith("keras.src.")
                if private and name != "keras_kddp._compat":
                    problems.append(f"{name} uses {used}: move it to _compat")
                if f"{used}.".startswith(("tensorflow.keras.", "tf.keras.")):
                    problems.append(f"{name} uses {used}: use keras")
    return sorted(set(problems))


def test_modules_import_only_downwards():
    trees = modules(ROOT)
    assert "keras_kddp.export.tflite.to_tflite" in trees
    assert order_problems(trees) == []


def body_lines(node, source):
    """Returns the lines of a function that are neither words nor blank."""
    skipped = {
        number
        for each in ast.walk(node)
        if isinstance(each, (ast.FunctionDef, ast.ClassDef))
        and ast.get_docstring(each) is not None
        for number in range(each.body[0].lineno, each.body[0].end_lineno + 1)
    }
    numbers = range(node.body[0].lineno, node.end_lineno + 1)
    return sum(
        bool(source[number - 1].strip(" #")) and number not in skipped
        for number in numbers
        if not source[number - 1].lstrip().startswith("#")
    )


def public_definitions(body):
    """Yields the public functions and classes, and their public methods."""
    for node in body:
        is_definition = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        if is_definition and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body)


def test_modules_are_short():
    lengths = {
        path.relative_to(ROOT): len(path.read_text("utf-8").splitlines())
        for path in (ROOT / "keras_kddp").rglob("*.py")
    }
    assert {path: n for path, n in lengths.items() if n > 300} == {}


def test_functions_are_short():
    lengths = {}
    for path in (ROOT / "keras_kddp").rglob("*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                lengths[place] = body_lines(node, text.splitlines())
    assert {name: n for name, n in lengths.items() if n > 60} == {}
    over = [name for name, n in lengths.items() if n > 25]
    assert len(over) <= 0.05 * len(lengths), over


def test_public_definitions_are_documented():
    missing = [
        f"{name}.{node.name}"
        for name, tree in modules(ROOT).items()
        for node in public_definitions(tree.body)
        if not ast.get_docstring(node)
    ]
    assert missing == []


def test_only_compat_touches_what_keras_keeps_private():
    assert private_problems(modules(ROOT)) == []


def test_the_map_names_what_is_there():
    package = ROOT / "keras_kddp"
    there = {
        path.stem
        for path in package.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert len(ORDER) == 17
    assert set(ORDER) == there - {"__init__"}


def test_every_folder_is_a_package_that_says_what_it_is_for():
    for path in (ROOT / "keras_kddp").rglob("*.py"):
        text = (path.parent / "__init__.py").read_text("utf-8")
        assert ast.get_docstring(ast.parse(text)), path.parent


def test_no_function_hides_a_module_of_its_name():
    for path in sorted((ROOT / "keras_kddp").rglob("*.py")):
        if path.stem in ("__init__", "__main__") or any(
            map(path.match, PROGRAMS)
        ):
            continue
        *above, name = path.relative_to(ROOT).with_suffix("").parts
        module = importlib.import_module(".".join([*above, name]))
        package = importlib.import_module(".".join(above))
        assert getattr(package, name) is module


def test_programs_of_other_processes_need_nothing_of_the_package():
    workers = ROOT / "keras_kddp" / "export" / "workers"
    programs = [path for name in PROGRAMS for path in workers.glob(name)]
    assert len(programs) == 11
    for path in programs:
        assert "keras_kddp" not in {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
        }, path


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("data.py", "import keras_kddp", "write `from keras_kddp import"),
        ("data.py", "import keras_kddp.layers", "write `from keras_kddp.lay"),
        ("data.py", "from . import layers", "relative imports in full"),
        ("data.py", "from keras_kddp import prepare", "imports the top of"),
        ("data.py", "from keras_kddp.layers import x", "which is above it"),
        ("data.py", "from keras_kddp import layers", "which is above it"),
        ("data.py", "def f():\n from keras_kddp.cli import x", "is above it"),
        ("news.py", "", "keras_kddp.news has no place in the order"),
        ("export/one.py", "from keras_kddp.export.two import x", "cycle"),
        ("export/two.py", "from keras_kddp.export import one", "cycle"),
    ],
)
def test_a_wrong_import_is_found(path, code, message, tmp_path):
    package = tmp_path / "keras_kddp"
    (package / "export").mkdir(parents=True)
    sources = {
        "__init__.py": "from keras_kddp.data import x",
        "profiling.py": "",
        "data.py": "",
        "layers.py": "",
        "cli.py": "from keras_kddp.data import x",
        "export/one.py": "from keras_kddp.export import two",
        "export/two.py": "from keras_kddp import profiling",
    }
    for name, text in sources.items():
        (package / name).write_text(text)
    assert order_problems(modules(tmp_path)) == []
    (package / path).write_text(code)
    if path == "export/one.py":
        (package / "export/two.py").write_text(
            "from keras_kddp.export.one import y"
        )
    assert any(message in each for each in order_problems(modules(tmp_path)))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from keras.src import ops", "uses keras.src.ops: move it"),
        ("from keras.src.ops import add", "move it to _compat"),
        ("from keras import src", "uses keras.src: move it"),
        ("import keras.src.models", "move it to _compat"),
        ("import keras\nkeras.src.ops.add", "uses keras.src.ops.add"),
        ("import tensorflow as tf\ntf.keras.Model", "uses tf.keras.Model"),
        ("from tensorflow import keras", "use keras"),
    ],
)
def test_a_private_use_is_found(code, message):
    problems = private_problems({"keras_kddp.layers": ast.parse(code)})
    assert any(message in each for each in problems)


def test_compat_may_use_what_is_private():
    tree = ast.parse("from keras.src import ops")
    assert private_problems({"keras_kddp._compat": tree}) == []
