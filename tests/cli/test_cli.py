"""The command line: its commands, its exit codes, its one line of error."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kddp.atomic_files.lock import holding
from keras_kddp.cli import commands as cli
from keras_kddp.cli.config_options import config_of
from keras_kddp.cli.interruption import INTERRUPTED
from keras_kddp.compression import run_exports, stages
from keras_kddp.compression.choices import CONTROLS
from keras_kddp.compression.run_directory import RunDirectory
from keras_kddp.export import read_metadata

MODELS = """
import keras

def dense(units):
    return keras.Sequential([
        keras.Input((6,)),
        keras.layers.Dense(units, "relu", name="hidden"),
        keras.layers.Dense(3, name="logits"),
    ])

def teacher():
    return dense(32)

def student():
    return dense(24)

def nothing():
    return 3

def unbuilt():
    return keras.Sequential([keras.layers.Dense(3)])
"""

UNNAMED = """
import keras

def student():
    return keras.Sequential([
        keras.Input((6,)),
        keras.layers.Dense(8, "relu"),
        keras.layers.Dense(8, "relu"),
        keras.layers.Dense(3),
    ])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a module of models and data."""
    path = tmp_path_factory.mktemp("cli")
    (path / "own_models.py").write_text(MODELS)
    (path / "broken.keras").write_bytes(b"PK no model")
    x = np.random.default_rng(0).normal(size=(140, 6)).astype("float32")
    y = x[:, :3].argmax(axis=-1)
    np.savez(
        path / "data.npz",
        x_train=x[:96],
        y_train=y[:96],
        x_test=x[96:],
        y_test=y[96:],
    )
    return path


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    yield folder
    sys.modules.pop("own_models", None)


@pytest.mark.parametrize("layers", ["dense", "dense_1"])
def test_the_names_that_explain_shows_are_the_names_to_give(
    layers, inside, capsys
):
    keras.backend.clear_session()  # as in a new process
    (inside / "unnamed.py").write_text(UNNAMED)
    assert cli.main(["explain", "unnamed:student"]) == 0
    assert f"{layers} " in capsys.readouterr().out
    keras.backend.clear_session()
    options = words(
        student="unnamed:student", layers=layers, out=f"runs/{layers}", epochs=4
    )
    # 1: so short a training may leave classes that int8 tells apart no more.
    assert cli.main([*options, "--controls", "--seed", "0", "1"]) in (0, 1)
    assert (inside / f"runs/{layers}/seed-1/summary.json").is_file()
    sys.modules.pop("unnamed", None)


def words(**options):
    """Returns the words of a short compression."""
    given = {
        "teacher": "own_models:teacher",
        "student": "own_models:student",
        "data": "npz:data.npz",
        "epochs": 6,
        "l1": 1.0,
        "learning_rate": 0.02,
        "out": "runs/one",
        **options,
    }
    return [
        "compress",
        *(
            word
            for name, value in given.items()
            if value is not None
            for word in (f"--{name.replace('_', '-')}", *str(value).split())
        ),
    ]


@pytest.fixture(scope="module")
def run(folder):
    """Returns the directory and the output of `kddp compress`."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "keras_kddp.cli",
            *words(layers="hidden"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "one", done


def test_compress_leaves_every_file_and_prints_the_table(run):
    directory, done = run
    assert {path.name for path in directory.iterdir()} == {
        "before.keras",
        "teacher.keras",
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
    for row in ("teacher", "student, no penalty", "student, dynamic pruning"):
        assert row in done.stdout
    assert "student_int8.tflite" in done.stdout
    assert "student, dynamic pruning: " in done.stderr  # progress
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["job"]["data"] == "npz:data.npz"
    assert summary["split_sizes"] == {"train": 88, "validation": 8, "test": 44}
    note = "validation: 8 of 96 training examples, stratified by class, seed 0"
    assert summary["data_notes"] == [note]
    assert done.stderr.count(f"kddp: npz:data.npz: {note}\n") == 1


def test_a_budget_is_met_from_the_command_line(inside, capsys):
    options = words(layers="hidden", out="runs/budget", max_parameters=200)

    assert cli.main([*options, "--controls"]) in (0, 1)

    summary = json.loads((inside / "runs/budget/summary.json").read_text())
    assert 150 < summary["parameters_after"] <= 200
    assert summary["job"]["max_parameters"] == 200


def test_an_arena_and_a_multiple_are_asked_for_on_the_command_line(inside):
    options = words(layers="hidden", out="runs/arena", max_arena_bytes=2_600)

    code = cli.main([*options, "--controls", "--unit-multiple", "2"])

    assert code in (0, 1)
    summary = json.loads((inside / "runs/arena/summary.json").read_text())
    assert summary["job"]["max_arena_bytes"] == 2_600
    assert summary["job"]["unit_multiple"] == 2
    assert summary["arena_bytes"] <= 1.1 * 2_600 + 16  # with its margin


def test_verify_runs_the_files_on_the_data_of_the_run(run, inside, capsys):
    assert cli.main(["verify", "runs/one"]) == 0
    shown = capsys.readouterr().out
    assert "on 44 samples" in shown
    assert len(re.findall("LiteRT .* passed", shown)) == 2
    assert len(re.findall("TFLM .* passed", shown)) == 2


def test_verify_fails_for_another_student(run, inside, capsys, tmp_path):
    shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
    student = keras.models.load_model(tmp_path / "student.keras")
    student.set_weights([2 * weight for weight in student.get_weights()])
    student.save(tmp_path / "student.keras")
    assert cli.main(["verify", str(tmp_path)]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_verify_warns_of_data_of_another_range(run, inside, capsys):
    with np.load("data.npz") as file:
        parts = dict(file)
    np.savez("large.npz", **{**parts, "x_test": parts["x_test"] * 255})
    cli.main(["verify", "runs/one", "--data", "npz:large.npz"])
    assert "kddp: warning: `test` must be scaled" in capsys.readouterr().err


def test_several_seeds_share_a_teacher_and_a_table(inside, capsys, run):
    teacher = str(run[0] / "teacher.keras")
    options = words(teacher=teacher, seed="3 4", out="runs/two", epochs=4)
    assert cli.main([*options, "--controls", "kd"]) == 0
    table = capsys.readouterr().out
    files = [f"runs/two/seed-{seed}/student.keras" for seed in (3, 4)]
    assert all((inside / file).is_file() for file in files)
    assert not (inside / "runs/two/teacher.keras").exists()
    summaries = [
        json.loads((inside / f"runs/two/seed-{seed}/summary.json").read_text())
        for seed in (3, 4)
    ]
    shown = " ".join(f"{100 * s['kddp_accuracy']:.2f}" for s in summaries)
    assert shown in table
    comparison, _, _ = table.partition("Agreement")
    assert max(map(len, comparison.splitlines())) <= 80
    sentence = " ".join(comparison.split())
    assert '- Pruned student against "student, no penalty": ' in sentence
    assert "points over 2 seeds" in sentence
    assert [summary["seed"] for summary in summaries] == [3, 4]


@pytest.mark.parametrize(
    "model", ["own_models:student", "digits_student", "runs/one/student.keras"]
)
def test_explain_shows_what_can_go(model, inside, run, capsys):
    assert cli.main(["explain", model]) == 0
    assert "hidden" in capsys.readouterr().out


def test_a_teacher_that_comes_trained_is_not_trained(inside, capsys):
    options = words(out="runs/three", teacher_epochs=0, epochs=4)
    assert cli.main([*options, "--controls"]) == 0
    shown = capsys.readouterr()
    assert "teacher:" not in shown.err
    assert "student, no penalty" not in shown.out


def test_a_teacher_near_chance_is_told_once_for_all_seeds(inside, capsys):
    with np.load("data.npz") as file:
        parts = dict(file)
    parts["y_train"] = np.arange(96) % 3  # nothing that inputs could tell
    np.savez("r[and]om.npz", **parts)
    options = words(out="runs/po[o]r", teacher_epochs=0, epochs=4, seed="0 1")
    options[options.index("npz:data.npz")] = "npz:r[and]om.npz"
    assert cli.main([*options, "--controls"]) in (0, 1)
    shown = capsys.readouterr()
    assert shown.err.count("kddp: warning: The teacher is near chance: ") == 1
    # What looks like rich's markup is part of a name.
    assert "npz:r[and]om.npz: accuracy on" in " ".join(shown.out.split())
    assert "The run is in runs/po[o]r/seed-1." in shown.out


@pytest.fixture
def qat(monkeypatch):
    """Keeps what a fine-tuning is given instead of doing it."""
    kept = []

    def tune(student, train, path, **given):
        kept.append(given)
        raise ValueError("not now")

    monkeypatch.setattr(run_exports, "finetune_with_tfmot", tune)
    return kept


def test_labels_alone_teach_where_the_teacher_is_none(inside, capsys, qat):
    options = words(teacher="none", out="runs/alone", epochs=4)
    more = ["--student-loss-weight", "1", "--controls", "same_size"]
    assert cli.main([*options, *more]) in (0, 1)
    shown = capsys.readouterr()
    assert "teacher" not in shown.out + shown.err
    assert "same size from scratch" in shown.out
    run = inside / "runs/alone"
    assert not [*run.rglob("teacher*")]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["taught_by"] == "labels"
    assert summary["job"]["teacher"] == "none"
    assert "teacher_accuracy" not in summary
    for command in (["verify", str(run)], ["bench", str(run)]):
        assert cli.main(command) == 0
    assert cli.main(["export", str(run), "--qat"]) == 2
    assert qat[0]["teacher"] is None and qat[0]["student_loss_weight"] == 1.0
    assert "warning" not in capsys.readouterr().err


def test_all_controls_without_a_teacher_are_those_that_differ():
    found = {}
    for name in ("none", "self"):
        given = cli._given([*words(teacher=name), "--controls", "all"])
        found[name] = config_of(given).controls
    assert found["self"] == list(CONTROLS)
    assert {*CONTROLS} - {*found["none"]} == {"same_size_labels"}


def test_every_seed_of_a_student_that_teaches_itself_has_its_teacher(
    inside, capsys, qat, monkeypatch
):
    options = words(teacher="self", out="runs/self", epochs=4, seed="0 1")
    epochs = iter([*range(9)])  # four each of two trainings, and one

    def tick(*_, **__):
        if next(epochs, None) is None:
            raise KeyboardInterrupt

    keras.backend.clear_session()  # as in a new process
    with monkeypatch.context() as patch:
        patch.setattr(stages._Ticks, "on_epoch_end", tick)
        assert cli.main([*options, "--controls"]) == INTERRUPTED
    keras.backend.clear_session()
    again = ["compress", "--resume", "runs/self", "--trust-code"]
    assert cli.main(again) in (0, 1)
    shown = capsys.readouterr()
    assert "teacher: the student itself: " in shown.err
    found = [inside / f"runs/self/seed-{seed}" for seed in (0, 1)]
    shares = [
        json.loads((run / "summary.json").read_text())["teacher_accuracy"]
        for run in found
    ]
    assert "teacher: the student itself" in shown.out
    assert " ".join(f"{100 * share:.2f}" for share in shares) in shown.out
    sums = [
        sum_of_model(keras.models.load_model(run / "teacher.keras"))
        for run in found
    ]
    assert sums[0] != sums[1]
    for run, digest in zip(found, sums, strict=True):
        assert cli.main(["export", str(run), "--qat"]) == 2
        assert sum_of_model(qat[-1]["teacher"]) == digest
    assert "not now" in capsys.readouterr().err


def sum_of_model(model):
    return sum(float(abs(weight).sum()) for weight in model.get_weights())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "mnist"}, "The data must be digits, idx:DIR"),
        ({"data": "npz:none.npz"}, "none.npz' must be a file of numpy.savez"),
        ({"data": "idx:."}, "must hold train-images-idx3-ubyte"),
        ({"data": "digits"}, "must have the shapes that the student takes"),
        ({"teacher": "digits_teacher"}, "The inputs of teacher and student"),
        ({"teacher": "none.keras"}, "must be a .keras file. Received a path"),
        ({"teacher": "nobody"}, "one of ['digits_student', 'digits_teacher'"),
        ({"teacher": "none"}, "must be 1 where teacher=None: the labels alone"),
        ({"student": "no_module:f"}, "must be a module that can be imported"),
        ({"student": "own_models:none"}, "A model must be a .keras file"),
        ({"student": "own_models:nothing"}, "must return a built keras.Model"),
        ({"student": "own_models:unbuilt"}, "Begin it with keras.Input(shape)"),
        ({"layers": "logits"}, "`layers` must name layers with removable"),
        ({"l1": -1}, "`l1` must be a finite number >= 0"),
        ({"epochs": 1}, "The schedule must leave at least one epoch"),
        (
            {"finetune_epochs": 6},
            "The schedule must not be longer than the run",
        ),
        ({"temperature": 0}, "`temperature` must be a finite number > 0"),
        ({"student_loss_weight": 2}, "must be a number in [0, 1]"),
        ({"max_parameters": 9}, "`max_parameters` must be at least"),
        ({"reference": "teacher"}, "must stand beside a `max_accuracy_drop`"),
        ({"max_accuracy_drop": 2}, "`max_accuracy_drop` must be a number in"),
        ({"seed": "1 1"}, "The seeds must be one or more, and different"),
        ({"controls": "kd kd"}, "must be a list of different names"),
        ({"teacher": "broken.keras"}, "must be a model that Keras can load"),
        ({"out": "data.npz/run"}, "data.npz"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    options, message, inside, capsys
):
    assert cli.main(words(**{"out": "runs/bad", **options})) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("kddp: ")
    assert message in lines[0]
    assert not (inside / "runs/bad/student.keras").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["verify", "nowhere"], "must hold student.keras, summary.json and"),
        (["explain", "nowhere.keras"], "must be a .keras file"),
    ],
)
def test_what_is_not_there_is_one_line_and_exit_code_2(given, message, capsys):
    assert cli.main(given) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", b"{", "must be JSON"),
        ("summary.json", b"[]", "must be the summary of a run"),
        ("summary.json", b'{"job": "x"}', "must be the summary of a run"),
        ("summary.json", b'{"input_range": []}', "must be the summary of"),
        ("student.keras", b"no model", "student.keras"),
        ("student_int8.tflite", b"TFL3", "student_int8.tflite"),
    ],
)
def test_a_damaged_run_is_one_line_and_exit_code_2(
    name, content, message, run, inside, tmp_path, capsys
):
    shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes(content)
    assert cli.main(["verify", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("kddp: ")


def test_a_run_that_does_not_name_its_data_asks_for_it(
    run, inside, tmp_path, capsys
):
    shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    del summary["job"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert "no --data. Name it" in capsys.readouterr().err
    assert cli.main(["verify", str(tmp_path), "--data", "npz:data.npz"]) == 0


@pytest.mark.parametrize(
    "word",
    [
        "--epochs=0",
        "--epochs=x",
        "--batch-size=0",
        "--seed=-1",
        "--finetune-epochs=-1",
        "--learning-rate=nan",
        "--learning-rate=x",
    ],
)
def test_numbers_out_of_range_are_refused(word, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words(), word])
    assert "must be a " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["export", "nowhere"], "must hold student.keras, summary.json"),
        (["bench", "nowhere"], "must hold student.keras, summary.json"),
    ],
)
def test_a_run_that_is_not_there_is_one_line(given, message, inside, capsys):
    assert cli.main(given) == 2
    assert message in capsys.readouterr().err


def test_a_flavour_that_tflm_refuses_makes_no_bundle(run, inside, capsys):
    words = ["export", "runs/one", "--format", "micro"]

    assert cli.main([*words, "--quantization", "float16"]) == 2

    assert "`--quantization` must be one of" in capsys.readouterr().err
    assert not (inside / "runs/one/micro_float16").exists()


def test_damaged_files_beside_good_ones_are_named(
    run, inside, tmp_path, capsys
):
    shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
    content = (tmp_path / "student_int8.tflite").read_bytes()
    (tmp_path / "student_int8.tflite").write_bytes(content[:-700])

    assert cli.main(["verify", str(tmp_path)]) == 2

    assert "student_int8.tflite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--format", "micro", "--quantization", "int8", "dynamic"],
            "TFLM run",
        ),
        (["--quantization", "float16", "--uint8-input"], "must stand beside"),
        (["--labels", "a", "b"], "must be 3 names, one per class"),
        (["--qat", "--format", "micro"], "`--qat` must stand beside"),
        (["--qat", "--quantization", "none"], "`--qat` must stand beside"),
        (["--qat", "--uint8-input"], "`--qat` must stand beside"),
        (["--labels", "a", "b", "a"], "different names, none of them empty"),
        (["--labels", "a", "b", " "], "different names, none of them empty"),
        (["--qat-epochs", "3"], "`--qat-epochs` must stand beside --qat"),
        (["--qat", "--qat-epochs", "0"], "`--qat-epochs` must be a whole"),
        (["--time-limit", "0"], "`time_limit` must be a finite number"),
        (["--features", "hidden"], "beside --format saved_model"),
        (
            ["--format", "saved_model", "--quantization", "int4"],
            "must be left out for --format saved_model",
        ),
        (["--license", "mit", "--qat"], "beside --format saved_model"),
        (
            ["--format", "saved_model", "--features", "nothing"],
            "called once, one of ['hidden', 'logits']",
        ),
    ],
)
def test_options_are_checked_before_a_file_is_written(
    words, message, run, inside, tmp_path, capsys
):
    shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
    before = {
        path: path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }

    assert cli.main(["export", str(tmp_path), *words]) == 2

    assert message in capsys.readouterr().err
    assert before == {
        path: path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }


CANARY = """
from pathlib import Path
Path("ran").touch()

def student():
    raise SystemExit("ran")
"""


@pytest.mark.parametrize("command", ["bench", "verify", "export"])
def test_a_run_directory_runs_no_code(
    command, run, tmp_path, monkeypatch, capsys
):
    out = shutil.copytree(run[0], tmp_path / "run")
    (out / "before.keras").unlink()
    (tmp_path / "stranger.py").write_text(CANARY)
    summary = json.loads((out / "summary.json").read_text())
    summary["job"] |= {
        "student": "stranger:student",
        "teacher": "stranger:student",
        "data": f"npz:{run[0].parents[1] / 'data.npz'}",
    }
    (out / "summary.json").write_text(json.dumps(summary))
    monkeypatch.chdir(tmp_path)

    assert cli.main([command, "run"]) == 0

    assert not Path("ran").exists()
    if command == "bench":
        assert cli.main([command, "run", "--trust-code"]) == 2
        assert "sys.exit('ran')" in capsys.readouterr().err
        assert Path("ran").exists()


def test_bench_says_what_it_leaves_out_of_a_run_of_before(
    run, inside, tmp_path, capsys
):
    shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
    before = tmp_path / "before.keras"
    assert keras.saving.load_model(before).get_layer("hidden").units == 24
    assert cli.main(["bench", str(tmp_path)]) == 0
    assert "before" in capsys.readouterr().out
    before.unlink()
    assert cli.main(["bench", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "before" not in shown.out
    assert "'own_models:student', which is code: give --trust-c" in shown.err
    assert cli.main(["bench", str(tmp_path), "--trust-code"]) == 0
    assert "before" in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["job"]["student"] = "gone.keras"
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert cli.main(["bench", str(tmp_path)]) == 0
    assert "'gone.keras', which is not there" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_time_limit_goes_to_what_runs_the_files(command, run, inside, capsys):
    words = [command, str(run[0]), "--time-limit", "0"]

    assert cli.main(words) == 2

    assert "`time_limit` must be a finite number" in capsys.readouterr().err


def test_a_saved_model_of_the_run_says_what_it_is(run, tmp_path, capsys):
    shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
    words = ["export", str(tmp_path), "--format", "saved_model"]

    assert cli.main([*words, "--license", "mit", "--labels", *"abc"]) == 0
    assert cli.main([*words, "--features", "hidden"]) == 0

    assert "computes what Keras computes" in capsys.readouterr().out
    card = json.loads((tmp_path / "saved_model" / "card.json").read_text())
    assert card["license"] == "mit"
    assert card["labels"] == ["a", "b", "c"]
    assert card["pruning"]["units"]["before"] == 24
    assert card["accuracy"]["student"].endswith("%")
    assert card["data"]["train"] == 88
    assert "stratified by class" in card["data"]["notes"][0]
    features = tf.saved_model.load(str(tmp_path / "features"))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert features(np.zeros((2, 6), "float32")).shape == (
        *(2, summary["units_after"]),
    )


def test_a_student_is_tuned_for_int8_into_a_run_of_its_own(
    run, inside, tmp_path, capsys
):
    shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "student.keras").read_bytes()

    assert cli.main(["export", str(tmp_path), "--qat"]) == 0
    assert cli.main(["verify", str(tmp_path / "qat")]) == 0

    assert capsys.readouterr().out.count("student_int8.tflite") >= 4
    assert (tmp_path / "student.keras").read_bytes() == before
    metadata = read_metadata(tmp_path / "qat" / "student_int8.tflite")
    assert metadata["finetuned_with"] == "TFMOT: quantization"


def test_another_teacher_is_not_the_teacher_of_the_run(
    run, inside, tmp_path, capsys
):
    out = shutil.copytree(run[0], tmp_path / "run")
    shutil.copy(out / "before.keras", out / "teacher.keras")

    assert cli.main(["export", str(out), "--qat"]) == 2

    message = capsys.readouterr().err
    assert "must be the one that the run learned from, of SHA-256" in message
    assert not (out / "qat").exists()


def test_an_earlier_run_is_replaced_only_where_that_is_asked_for(
    run, inside, tmp_path, capsys
):
    out = shutil.copytree(run[0], tmp_path / "run")
    (out / "student_float16.tflite").write_bytes(b"not in its list")
    options = words(out=out, epochs=4, layers="hidden")
    for more, message in (
        ([], "holds something else, or changed files: student_float16"),
        (["--overwrite"], "holds something else, or changed files: student_f"),
    ):
        assert cli.main([*options, *more, "--data", "none"]) == 2
        assert message in capsys.readouterr().err
    (out / "student_float16.tflite").unlink()
    assert cli.main([*options, "--data", "none"]) == 2
    assert "already. Give overwrite=True (--over" in capsys.readouterr().err

    assert cli.main([*options, "--overwrite", "--controls"]) in (0, 1)

    assert json.loads((out / "summary.json").read_text())["job"]["epochs"] == 4
    assert not (tmp_path / "run.unfinished").exists()


@pytest.mark.parametrize(
    "words",
    [
        words(out="runs/one", data="none") + ["--overwrite"],
        ["demo", "--out", "runs/one", "--overwrite"],
        ["export", "runs/one", "--quantization", "none"],
        ["export", "runs/one", "--format", "saved_model"],
    ],
    ids=["compress", "demo", "export", "export of a SavedModel"],
)
def test_a_second_command_into_a_folder_is_one_line_and_exit_code_2(
    words, run, inside, capsys
):
    with holding(run[0]):
        assert cli.main(words) == 2

    shown = capsys.readouterr().err
    assert "one' must have one writer at a time. Received a second" in shown
    assert len(shown.splitlines()) == 1


def test_a_run_that_was_replaced_meanwhile_gets_no_files(
    run, inside, tmp_path, capsys, monkeypatch
):
    out = RunDirectory(Path(shutil.copytree(run[0], tmp_path / "run")))
    found = out.read()._replace(student_sum="of another")

    with pytest.raises(ValueError, match="a new run has replaced it meanwhi"):
        with out.changing(found):
            raise AssertionError("nothing may be written")


def test_what_is_exported_goes_beside_what_the_user_has_put_there(
    run, inside, tmp_path
):
    out = shutil.copytree(run[0], tmp_path / "run")
    (out / "notes.txt").write_text("mine")

    given = ["export", str(out), "--quantization", "float16", "none"]
    assert cli.main(given) == 0

    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "student_float16.tflite").is_file()
    assert (out / "student_float16.json").is_file()
    assert not (tmp_path / "run.unfinished").exists()
