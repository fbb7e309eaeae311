"""Data sets by the texts that name them, and what is said of bad ones."""

import gzip
import io
import os
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from small_datasets import IDX_NAMES, arrays, write_idx

from keras_kddp.data import tfds_source
from keras_kddp.data.datasets import load_dataset


def write_npz(folder, **parts):
    path = folder / "data.npz"
    np.savez(path, **parts)
    return f"npz:{path}"


def rows_of(split, parts):
    """Returns which training examples a split of images in [0, 1] holds."""
    pixels = np.rint(split.x[..., 0] * 255)
    same = pixels[:, None] == parts["x_train"][None]
    return same.all(axis=(2, 3)).argmax(axis=1)


def assert_holds(data, parts):
    """Checks images in [0, 1], and a validation split of every class."""
    train, validation = (
        rows_of(split, parts) for split in (data.train, data.validation)
    )
    assert sorted([*train, *validation]) == list(range(24))
    np.testing.assert_array_equal(data.train.y, parts["y_train"][train])
    np.testing.assert_array_equal(data.validation.y, validation % 3)
    assert sorted(data.validation.y) == [0, 1, 2]
    np.testing.assert_allclose(
        data.test.x[..., 0] * 255, parts["x_test"], rtol=1e-5
    )
    np.testing.assert_array_equal(data.test.y, parts["y_test"])
    assert data.train.x.dtype == np.float32
    assert data.train.x.shape[1:] == (4, 3, 1)
    assert data.train.y.dtype == np.int64
    # One in twelve of 24 is 2, and there are 3 classes.
    assert data.split_sizes == {"train": 21, "validation": 3, "test": 6}
    assert data.notes[0] == "uint8 images are divided by 255"
    assert data.notes[-1] == (
        "validation: 3 of 24 training examples, stratified by class, seed 0"
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read(zipped, tmp_path):
    parts = arrays()
    data = load_dataset(write_idx(tmp_path, parts, zipped=zipped))
    assert_holds(data, parts)
    assert data.notes[1] == "a channel axis is added, (height, width, 1)"


def test_npz_files_are_taken_as_they_are(tmp_path):
    parts = arrays()
    data = load_dataset(write_npz(tmp_path, **parts))
    np.testing.assert_array_equal(data.test.x, parts["x_test"])
    assert data.train.x.shape == (21, 4, 3)
    assert data.train.x.dtype == np.float32
    assert "uint8 inputs are taken as they are" in data.notes[0]


@pytest.mark.parametrize(("text", "divisor"), [("255", 255), ("2e1", 20)])
def test_npz_inputs_are_divided_where_that_is_asked_for(
    text, divisor, tmp_path
):
    parts = arrays()
    data = load_dataset(f"{write_npz(tmp_path, **parts)},scale={text}")
    np.testing.assert_allclose(
        data.test.x, parts["x_test"] / divisor, rtol=1e-6
    )
    assert data.notes[0] == f"uint8 inputs are divided by {divisor}"


def test_npz_is_read_as_before_where_that_is_asked_for(tmp_path):
    parts = arrays()
    spec = write_npz(tmp_path, **parts)
    data = load_dataset(spec, as_before=True)
    np.testing.assert_allclose(
        data.validation.x[..., 0] * 255, parts["x_train"][22:], rtol=1e-5
    )
    assert data.train.x.shape == (22, 4, 3, 1)
    assert data.notes[0] == "read as the version read it that made the run"
    with pytest.raises(FileNotFoundError, match="scale=2' must be a file of"):
        load_dataset(f"{spec},scale=2", as_before=True)


@pytest.mark.parametrize(
    ("name", "options", "largest"),
    [
        ("data,scale=2", "", 250),
        ("data,scale=2", ",scale=10", 25),
        ("a=b,c.npz", ",scale=10", 25),
        ("data,group=g", "", 250),
        ("data,scale=", ",scale=10", 25),
    ],
)
def test_a_file_of_the_exact_name_wins(name, options, largest, tmp_path):
    parts = arrays()
    parts["x_test"] = np.full((6, 4, 3), 250)
    write_npz(tmp_path, **parts)
    (tmp_path / "data.npz").rename(tmp_path / name)
    data = load_dataset(f"npz:{tmp_path / name}{options}")
    assert data.test.x.max() == largest
    assert (
        data.notes[0] == f"'{tmp_path / name}' is all of it the name of a file"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",scale=0", "`scale=` must be a finite number > 0"),
        (",scale=-1", "Received: '-1'"),
        (",scale=nan", "Received: 'nan'"),
        (",scale=inf", "Received: 'inf'"),
        (",scale=1e39", "Received: '1e39'"),
        (",scale=1e-50", "Received: '1e-50'"),
        (",scale=pixels", "Received: 'pixels'"),
        (",scale=", "`scale=` must be given once, with a value"),
        (",scale=2,scale=3", "`scale=` must be given once"),
        (",group=one", "groups of `train` as 'one_train' or as 'one', for"),
        (",group=x", r"one for each example, \(24,\). Received.*\(24, 4, 3\)"),
    ],
)
def test_a_wrong_option_of_npz_is_refused(options, message, tmp_path):
    spec = write_npz(tmp_path, **arrays())
    with pytest.raises(ValueError, match=message):
        load_dataset(spec + options)


def test_an_unknown_option_of_npz_is_told_the_known_ones(tmp_path):
    spec = write_npz(tmp_path, **arrays())
    with pytest.raises(FileNotFoundError, match=",scale=NUMBER and ,group=KEY"):
        load_dataset(f"{spec},scal=255")


def test_idx_takes_no_options(tmp_path):
    spec = write_idx(tmp_path, arrays())
    with pytest.raises(ValueError, match="must be followed by a folder alone"):
        load_dataset(f"{spec},scale=255")


@pytest.mark.parametrize(
    ("dtype", "note"),
    [
        ("int16", "int16 inputs are taken as float32, as they are"),
        ("float64", "float64 inputs are taken as float32, as they are"),
        ("bool", "bool inputs are taken as float32, as they are"),
        ("float32", None),
    ],
)
def test_inputs_of_every_real_dtype_are_taken(dtype, note, tmp_path):
    parts = arrays()
    parts |= {n: (parts[n] % 2).astype(dtype) for n in ("x_train", "x_test")}
    data = load_dataset(write_npz(tmp_path, **parts))
    np.testing.assert_array_equal(data.test.x, parts["x_test"])
    assert data.test.x.dtype == np.float32
    assert list(data.notes[:-1]) == ([] if note is None else [note])


def test_a_table_of_bytes_is_no_image(tmp_path):
    parts = arrays()
    parts |= {n: parts[n].reshape(-1, 12) for n in ("x_train", "x_test")}
    spec = write_npz(tmp_path, **parts)
    for as_before in (False, True):
        data = load_dataset(spec, as_before=as_before)
        np.testing.assert_array_equal(data.test.x, parts["x_test"])


def test_idx_data_sorted_by_class_keep_every_class(tmp_path):
    parts = arrays()
    parts["y_train"] = np.sort(parts["y_train"])
    data = load_dataset(write_idx(tmp_path, parts))
    assert sorted(data.validation.y) == [0, 1, 2]


@pytest.mark.parametrize("is_sorted", [False, True])
def test_the_size_of_mnist_keeps_its_last_5000_where_they_have_all_classes(
    is_sorted, tmp_path
):
    labels = (np.arange(60_000) % 10).astype("uint8")
    labels = np.sort(labels) if is_sorted else labels
    images = np.zeros((60_000, 1, 1), "uint8")
    images[-5_000:] = 255
    parts = {**arrays(), "x_train": images, "y_train": labels}
    data = load_dataset(write_idx(tmp_path, parts, zipped=False))
    assert len(data.validation) == 5_000
    assert set(data.validation.y) == set(range(10))
    assert (data.validation.x.mean() == 1) is not is_sorted
    said = "stratified" if is_sorted else "the last 5,000 of 60,000 training"
    assert said in data.notes[-1]


def test_a_validation_split_of_its_own_is_taken(tmp_path):
    parts = arrays()
    own = {"x_validation": parts["x_test"], "y_validation": parts["y_test"]}
    data = load_dataset(write_npz(tmp_path, **parts, **own))
    assert data.split_sizes == {"train": 24, "validation": 6, "test": 6}


def test_inputs_of_npz_that_stand_in_two_splits_are_told(tmp_path):
    parts = arrays()
    spec = write_npz(tmp_path, **parts)
    assert not any("stand in `train`" in n for n in load_dataset(spec).notes)
    parts["x_test"][[1, 4]] = parts["x_train"][[20, 3]]
    own = {"x_validation": parts["x_train"][:3], "y_validation": np.arange(3)}
    notes = load_dataset(write_npz(tmp_path, **parts, **own)).notes
    assert any("3 of 3 inputs of `validation` stand in" in n for n in notes)
    assert any("2 of 6 inputs of `test` stand in `train`" in n for n in notes)


def test_floats_stay_as_they_are(tmp_path):
    parts = arrays()
    series = np.linspace(-3, 3, 24 * 5 * 2).reshape(24, 5, 2)
    spec = write_npz(tmp_path, **{**parts, "x_train": series})
    data = load_dataset(spec)
    both = np.concatenate([data.train.x, data.validation.x])
    np.testing.assert_allclose(
        both[np.argsort(both[:, 0, 0])], series, rtol=1e-6
    )


def test_labels_may_stand_in_a_column(tmp_path):
    parts = arrays()
    spec = write_npz(
        tmp_path, **{**parts, "y_train": parts["y_train"][:, None]}
    )
    data = load_dataset(spec)
    assert data.train.y.shape == (21,)
    assert (
        "labels in a column, (examples, 1), are taken out of it" in data.notes
    )


@pytest.mark.parametrize(
    "spec", ["", "mnist", "idx:", "npz", "csv:data", "digits:1", "tfds:"]
)
def test_an_unknown_spec_is_refused(spec):
    with pytest.raises(ValueError, match="The data must be digits, idx:DIR"):
        load_dataset(spec)


def test_a_missing_idx_file_is_named(tmp_path):
    spec = write_idx(tmp_path, arrays())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte, or"):
        load_dataset(spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-1], "must be 304 bytes for its shape .*Received: 303"),
        (lambda b: b + b"x", "Received: 305 bytes"),
        (lambda b: b[:9], "must be an IDX file of 3 dimensions. Received: 9"),
        (lambda b: b"", "must be an IDX file"),
        (lambda b: b"\x89PNG" + b[4:], "start with 89 50 4e 47"),
        (lambda b: b[:3] + b"\x01" + b[4:], "of 3 dimensions"),
        (lambda b: b[:2] + b"\x07" + b[3:], "must be an IDX file"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], r"its shape \[4294967295, "),
    ],
)
def test_a_damaged_idx_file_is_refused(change, message, tmp_path):
    spec = write_idx(tmp_path, arrays(), zipped=False)
    path = tmp_path / IDX_NAMES["x_train"]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load_dataset(spec)


@pytest.mark.parametrize(
    "change",
    [lambda b: b[: len(b) // 2], lambda b: b"no gzip", lambda b: b[:-1]],
)
def test_a_damaged_gzip_file_is_refused(change, tmp_path):
    spec = write_idx(tmp_path, arrays())
    path = tmp_path / f"{IDX_NAMES['x_train']}.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match="must be a complete gzip file"):
        load_dataset(spec)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"x_train": None}, r"\['x_train'\] are missing"),
        ({"x_validation": np.zeros(2)}, r"\['y_validation'\] are missing"),
        ({"y_test": np.array([{}], object)}, "no objects. Received: Object"),
        ({"x_test": np.zeros((0, 4, 3))}, "`test` must hold examples"),
        ({"y_test": np.zeros(5, int)}, "6 inputs and 5 labels. Give as many"),
        ({"y_test": np.zeros(6)}, "must be class numbers.*float64"),
        ({"y_test": np.zeros((6, 3), int)}, r"shape \(6, 3\).*argmax"),
        ({"y_test": np.array(["a"] * 6)}, "<U1 of shape.*of names"),
        ({"y_test": np.zeros(6, bool)}, "must be class numbers.*bool"),
        ({"y_train": np.arange(24)}, "Received 24 classes of one"),
        (
            {"x_test": np.array(["a"] * 6)},
            "`test` must be real numbers. Received: <U",
        ),
        (
            {"x_train": np.zeros((11, 2)), "y_train": np.zeros(11, int)},
            "at least 12 examples, of which one is for validation",
        ),
    ],
)
def test_an_npz_file_that_does_not_fit_is_refused(parts, message, tmp_path):
    parts = {**arrays(), **parts}
    spec = write_npz(
        tmp_path, **{k: v for k, v in parts.items() if v is not None}
    )
    with pytest.raises(ValueError, match=message):
        load_dataset(spec)


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_a_truncated_npz_file_is_refused(keep, tmp_path):
    spec = write_npz(tmp_path, **arrays())
    path = tmp_path / "data.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="must be a complete file of numpy"):
        load_dataset(spec)


def npy_header(shape, dtype="<f4"):
    """Returns a .npy file that promises numbers, and has none."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


@pytest.mark.parametrize(
    "shape", [(10**12,), (10**12, 0), (-1, -4), (0, 10**9), (2,)]
)
def test_an_array_has_the_numbers_that_it_promises(shape, tmp_path):
    spec = write_npz(tmp_path, **arrays())
    with zipfile.ZipFile(tmp_path / "data.npz", "a") as archive:
        archive.writestr("more.npy", npy_header(shape))
    with pytest.raises(ValueError, match="'more.npy' promises .* and has 0 by"):
        load_dataset(spec)


def test_an_array_of_fields_is_refused(tmp_path):
    spec = write_npz(tmp_path, **arrays())
    file = io.BytesIO()
    fields = np.zeros(2, [("é", "i4")])
    np.lib.format.write_array(file, fields, version=(3, 0))
    with zipfile.ZipFile(tmp_path / "data.npz", "a") as archive:
        archive.writestr("more.npy", file.getvalue())
    with pytest.raises(ValueError, match="a .npy file of version .3, 0., of f"):
        load_dataset(spec)


def test_a_changed_number_of_an_npz_file_is_refused(tmp_path):
    spec = write_npz(tmp_path, **arrays())
    path = tmp_path / "data.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"\x93NUMPY") + 130] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="Bad CRC-32"):
        load_dataset(spec)


def test_packed_members_of_gigabytes_are_refused(tmp_path):
    spec = write_npz(tmp_path, **arrays())
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", npy_header((10**9,)))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"more.npy") - 46 + 24  # size, unpacked
    content[place : place + 4] = (4 * 10**9).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="must unpack to at most 268,435,456"):
        load_dataset(spec)


def test_other_parts_of_an_npz_file_are_left(tmp_path):
    spec = write_npz(tmp_path, **arrays())
    with zipfile.ZipFile(tmp_path / "data.npz", "a") as archive:
        archive.writestr("readme.txt", "of the data")
    assert len(load_dataset(spec).test) == 6


def test_a_packed_idx_file_promises_what_it_has(tmp_path):
    spec = write_idx(tmp_path, arrays())
    path = tmp_path / f"{IDX_NAMES['x_train']}.gz"
    head = gzip.decompress(path.read_bytes())[:4]
    sizes = np.array([10**6, 28, 28], ">u4").tobytes()
    path.write_bytes(gzip.compress(head + sizes))
    with pytest.raises(ValueError, match="that promises 784,000,000"):
        load_dataset(spec)


def test_a_pipe_is_no_data(tmp_path):
    os.mkfifo(tmp_path / "data.npz")
    with pytest.raises(OSError, match="a folder, a pipe or a device"):
        load_dataset(f"npz:{tmp_path / 'data.npz'}")


@pytest.mark.parametrize("name", ["community:set", "http://x/y", "../set"])
def test_a_strangers_tfds_fetches_no_code(name):
    with pytest.raises(ValueError, match="fetches code. Give --trust-code to"):
        load_dataset(f"tfds:{name}", is_trusted=False)


def test_a_strangers_tfds_is_read_and_not_downloaded(
    prepared_tfds, monkeypatch
):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared_tfds))
    found = load_dataset("tfds:tiny_images", is_trusted=False)
    assert len(found.test) == 6
    with pytest.raises(ValueError, match="Give --trust-code to have it"):
        load_dataset("tfds:mnist", is_trusted=False)


def test_a_single_array_is_no_npz_file(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"one array, .* of shape \(3,\). Put"):
        load_dataset(f"npz:{tmp_path / 'one.npy'}")


def test_a_missing_npz_file_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"none\.npz' must be a file of"
    ):
        load_dataset(f"npz:{tmp_path / 'none.npz'}")


def test_prepared_tensorflow_datasets_are_read(prepared_tfds, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared_tfds))
    assert_holds(load_dataset("tfds:tiny_images"), arrays())
    data = load_dataset(
        "tfds:tiny_images,train=train[:12],validation=train[12:18],"
        "test=train[18:]"
    )
    assert data.split_sizes == {"train": 12, "validation": 6, "test": 6}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",test=train[:5]", r"5 that do, in train=train and in test=train\[:5"),
        (",validation=train[75%:]", r"6 that do, .* in validation=train\[75%:"),
        (",train=train+test", "6 that do, in train=train[+]test and in test="),
        (
            ",train=train[:12],test=train[11:]",
            r"1 that do, in train=train\[:12\] and in test=train\[11:\]: what",
        ),
    ],
)
def test_splits_of_tfds_that_share_examples_warn(
    options, message, prepared_tfds, monkeypatch
):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared_tfds))
    with pytest.warns(UserWarning, match=message):
        load_dataset(f"tfds:tiny_images{options}")


def test_a_feature_of_tfds_tells_the_groups(prepared_tfds, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared_tfds))
    with (
        pytest.warns(UserWarning, match=r"Received 3 that do, such as \[0, 1"),
        pytest.raises(ValueError, match="`group=label` must leave every class"),
    ):
        load_dataset("tfds:tiny_images,group=label")


@pytest.fixture
def images_of_subjects(prepared_tfds, monkeypatch):
    """Adds subjects, as tfds reads texts, and tells inputs from labels."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared_tfds))
    read = tfds_source._loaded

    def loaded(name, names):
        parts, info = read(name, names)
        for part in parts.values():
            numbers = np.arange(len(part["label"])) // 4
            part["subject"] = np.array([b"s%d" % n for n in numbers], object)
        keys = ("image", "label")
        return parts, SimpleNamespace(splits=info.splits, supervised_keys=keys)

    monkeypatch.setattr(tfds_source, "_loaded", loaded)


def test_a_feature_of_tfds_that_is_left_out_is_told(images_of_subjects):
    notes = load_dataset("tfds:tiny_images").notes
    assert "the features ['subject'] are left out; if one" in notes[0]


def test_groups_that_are_texts_are_shown_as_texts(images_of_subjects):
    message = r"Received 2 that do, such as \['s0', 's1'\]:"
    with pytest.warns(UserWarning, match=message):
        data = load_dataset("tfds:tiny_images,group=subject")
    assert not any("left out" in note for note in data.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiny_images,group=dev", "the feature that `group=` names. Received"),
        ("tiny_images,scale=2", "Received: 'scale=2'"),
        ("tiny_images,dev=train", "Splits of tfds must be written train=SPLIT"),
        ("tiny_images,train", "Received: 'train'"),
        ("tiny_images,test=dev", "must be a data set that is prepared"),
        ("no_such_images", "must be a data set that is prepared or can be"),
    ],
)
def test_a_tfds_that_cannot_be_had_is_refused(
    text, message, prepared_tfds, monkeypatch
):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared_tfds))
    with pytest.raises(ValueError, match=message):
        load_dataset(f"tfds:{text}")


def test_an_unknown_tfds_is_not_told_hundreds_of_names(
    prepared_tfds, monkeypatch
):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared_tfds))
    with pytest.raises(ValueError, match="mnits -> mnist") as raised:
        load_dataset("tfds:mnits")
    assert len(str(raised.value)) < 1_200


def test_without_the_extra_tfds_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install -e '.\[data\]'"):
        load_dataset("tfds:mnist")
