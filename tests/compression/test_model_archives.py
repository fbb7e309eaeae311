"""A stranger's .keras file runs nothing, and takes no more than it brings."""

import io
import json
import os
import stat
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_kddp._compat import is_in_safe_mode
from keras_kddp.compression.model_sources import model_file
from keras_kddp.data import outside_files

WEIGHTS = "model.weights.h5"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Returns the members of a small model's file."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(3, name="d")(inputs)).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(folder, parts, **more):
    """Writes a file of members; those of `more` packed."""
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        for name, content in more.items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return path


def with_config(parts, edit):
    config = json.loads(parts["config.json"])
    edit(config["config"]["layers"])
    return {**parts, "config.json": json.dumps(config)}


def with_weights(parts, edit):
    file = io.BytesIO(parts[WEIGHTS])
    with h5py.File(file, "a") as weights:
        edit(weights)
    return {**parts, WEIGHTS: file.getvalue()}


def activation(module, name):
    made = {"module": module, "class_name": "function", "config": name}
    return lambda layers: layers[1]["config"].update(
        activation={**made, "registered_name": name}
    )


LAMBDA = {
    "class_name": "__lambda__",
    "config": {"code": "4wA=", "defaults": None, "closure": None},
}


def layer(name, module="keras.layers", **config):
    """Puts another layer in the place of the last."""
    made = {"module": module, "class_name": name, "registered_name": None}
    return lambda layers: layers[1].update(
        {**made, "build_config": None, "config": {"name": "d", **config}}
    )


CODE = {
    "lambda": (layer("Lambda", function=LAMBDA), "of a `Lambda` layer"),
    "tfsm": (layer("TFSMLayer", filepath="there"), "of a `TFSMLayer`"),
    "module": (layer("Stranger", "stranger"), "Could not locate class"),
    "function": (activation("os", "system"), "Could not locate function"),
    "builtin": (activation("builtins", "eval"), "Could not locate function"),
    "download": (activation("keras.utils", "get_file"), "not a modeling"),
    "vocabulary": (
        layer("StringLookup", vocabulary="/etc/hostname"),
        "outside of the model archive",
    ),
}


@pytest.mark.parametrize("kind", CODE)
@pytest.mark.parametrize("is_off", [False, True])
def test_no_file_runs_code_or_reads_others(
    kind, is_off, parts, tmp_path, monkeypatch
):
    (tmp_path / "stranger.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    edit, message = CODE[kind]
    path = write(tmp_path, with_config(parts, edit))
    if is_off:
        keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(ValueError, match=message):
            model_file(path)
        assert is_in_safe_mode() is (False if is_off else None)
    finally:
        keras.src.backend.common.global_state.set_global_attribute(
            "safe_mode_saving", None
        )
    assert not (tmp_path / "ran").exists()


def test_an_archive_with_assets_is_read(parts, tmp_path):
    path = write(tmp_path, parts, **{"assets/notes.txt": b"x" * 1000})
    assert model_file(path).count_params() == 4 * 3 + 3


@pytest.mark.parametrize(
    "name", ["../out.txt", "/out.txt", "a/../../out", "..\\out", "C:out"]
)
def test_no_member_leaves_its_archive(name, parts, tmp_path):
    path = write(tmp_path, parts, **{name: b"x"})
    with pytest.raises(ValueError, match="names that stay inside of it"):
        model_file(path)


def test_a_link_in_an_archive_is_refused(parts, tmp_path):
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write(tmp_path, parts)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/hostname")
    with pytest.raises(ValueError, match="must hold plain files.*assets/link"):
        model_file(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_stands_there_twice_is_refused(parts, tmp_path):
    path = write(tmp_path, parts, **{"config.json": parts["config.json"]})
    with pytest.raises(ValueError, match="each once"):
        model_file(path)


def test_an_archive_of_very_many_members_is_refused(
    parts, tmp_path, monkeypatch
):
    monkeypatch.setattr(outside_files, "_MOST_MEMBERS", 2)
    with pytest.raises(ValueError, match="at most 2 members. Received: 3"):
        model_file(write(tmp_path, parts))


def promise(path, name, size):
    """Lets the directory of an archive promise another size of a member."""
    content = bytearray(path.read_bytes())
    place = content.rindex(name.encode()) - 46  # of its central entry
    assert content[place : place + 4] == b"PK\1\2"
    content[place + 24 : place + 28] = size.to_bytes(4, "little")
    path.write_bytes(bytes(content))


def test_members_that_promise_too_much_are_refused(parts, tmp_path):
    path = write(tmp_path, parts, **{"assets/a": bytes(1000)})
    promise(path, "assets/a", 2**31)
    with pytest.raises(ValueError, match="at most 268,435,456.*2,147,483,648"):
        model_file(path)
    many = {f"assets/{number}": b"x" for number in range(3)}
    path = write(tmp_path, parts, **many)
    for name in many:
        promise(path, name, 2**27)
    with pytest.raises(ValueError, match="that promises 402,6"):
        model_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "must be JSON. Received: maximum recursion"),
        ("{", "must be JSON"),
        (" " * (2**25 + 1), "JSON of at most 33,554,432 bytes"),
    ],
    ids=["deep", "cut", "long"],
)
def test_a_configuration_that_is_none_is_refused(
    text, message, parts, tmp_path
):
    path = write(tmp_path, {**parts, "config.json": text})
    with pytest.raises(ValueError, match=message):
        model_file(path)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_an_archive_that_lacks_a_part_is_refused(name, parts, tmp_path):
    left = {key: content for key, content in parts.items() if key != name}
    with pytest.raises(ValueError, match=rf"an archive without \['{name}"):
        model_file(write(tmp_path, left))


def test_what_is_no_model_is_refused(parts, tmp_path):
    config = {
        "module": "keras.layers",
        "class_name": "ReLU",
        "config": {},
        "registered_name": None,
    }
    path = write(tmp_path, {**parts, "config.json": json.dumps(config)})
    with pytest.raises(ValueError, match="a ReLU, which is no model"):
        model_file(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda layers: layers[1]["config"].update(units=10**9),
        layer("Embedding", input_dim=10**6, output_dim=10**6),
        layer("Dense", units=2**19),  # a billion, of 4 inputs half a million
    ],
    ids=["units", "embedding", "dense"],
)
def test_a_model_has_no_more_weights_than_its_file_brings(
    edit, parts, tmp_path
):
    path = write(tmp_path, with_config(parts, edit))
    with pytest.raises(ValueError, match="must bring the weights of its lay"):
        model_file(path)


def test_a_tensor_larger_than_memory_is_refused(tmp_path):
    inputs = keras.Input((2,))
    inner = keras.Sequential([inputs, keras.layers.RepeatVector(2**28)])
    model = keras.Model(inputs, keras.layers.Flatten()(inner(inputs)))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="makes .*268435456, 2.*of one exampl"):
        model_file(tmp_path / "model.keras")


def group_of(weights):
    return weights["layers/dense/vars"]


def promise_numbers(weights):
    group = group_of(weights)
    del group["0"]
    group.create_dataset("0", (10**12,), "f4", chunks=(1000,))


def link_outside(weights):
    group_of(weights)["2"] = h5py.ExternalLink("other.h5", "/x")


def lie_outside(weights):
    group_of(weights).create_dataset(
        "2", (4,), "f4", external=[("/etc/hostname", 0, 16)]
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (promise_numbers, "must unpack to at most.*4,000,000,000,000"),
        (link_outside, "weights with the link '.*/vars/2'"),
        (lie_outside, "weights '.*/vars/2' that lie in other files"),
    ],
    ids=["shape", "link", "external"],
)
def test_weights_are_in_the_file_and_no_more_than_it_has(
    edit, message, parts, tmp_path
):
    path = write(tmp_path, with_weights(parts, edit))
    with pytest.raises(ValueError, match=message):
        model_file(path)


def test_a_pipe_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "model.keras")
    with pytest.raises(FileNotFoundError, match="must be a .keras file"):
        model_file(tmp_path / "model.keras")


def test_a_group_that_holds_itself_is_visited_once(parts, tmp_path):
    def knot(weights):
        weights["layers/knot"] = weights["layers"]

    path = write(tmp_path, with_weights(parts, knot))
    assert model_file(path)(np.ones((1, 4))).shape == (1, 3)
