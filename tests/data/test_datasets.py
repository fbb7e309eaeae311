"""Data sets by the texts that name them, and what is said of bad ones."""

import sys

import numpy as np
import pytest
from small_datasets import IDX_NAMES, arrays, write_idx

from keras_kddp.data.datasets import load_dataset


def write_npz(folder, **parts):
    path = folder / "data.npz"
    np.savez(path, **parts)
    return f"npz:{path}"


def assert_holds(data, parts):
    """Checks images in [0, 1], validation cut from the end of training."""
    images = np.concatenate([data.train.x, data.validation.x])
    labels = np.concatenate([data.train.y, data.validation.y])
    np.testing.assert_allclose(
        images[..., 0] * 255, parts["x_train"], rtol=1e-5
    )
    np.testing.assert_array_equal(labels, parts["y_train"])
    np.testing.assert_allclose(
        data.test.x[..., 0] * 255, parts["x_test"], rtol=1e-5
    )
    np.testing.assert_array_equal(data.test.y, parts["y_test"])
    assert data.train.x.dtype == np.float32
    assert data.train.x.shape[1:] == (4, 3, 1)
    assert data.train.y.dtype == np.int64
    # One in twelve of 24 is 2.
    assert data.split_sizes == {"train": 22, "validation": 2, "test": 6}


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read(zipped, tmp_path):
    parts = arrays()
    assert_holds(load_dataset(write_idx(tmp_path, parts, zipped=zipped)), parts)


def test_npz_files_are_read(tmp_path):
    parts = arrays()
    assert_holds(load_dataset(write_npz(tmp_path, **parts)), parts)


def test_a_validation_split_of_its_own_is_taken(tmp_path):
    parts = arrays()
    own = {"x_validation": parts["x_test"], "y_validation": parts["y_test"]}
    data = load_dataset(write_npz(tmp_path, **parts, **own))
    assert data.split_sizes == {"train": 24, "validation": 6, "test": 6}


def test_floats_stay_as_they_are(tmp_path):
    parts = arrays()
    series = np.linspace(-3, 3, 24 * 5 * 2).reshape(24, 5, 2)
    spec = write_npz(tmp_path, **{**parts, "x_train": series})
    data = load_dataset(spec)
    np.testing.assert_allclose(data.train.x, series[:22], rtol=1e-6)


def test_labels_may_stand_in_a_column(tmp_path):
    parts = arrays()
    spec = write_npz(
        tmp_path, **{**parts, "y_train": parts["y_train"][:, None]}
    )
    assert load_dataset(spec).train.y.shape == (22,)


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
        ({"y_test": np.zeros(5, int)}, "6 inputs and 5 labels"),
        ({"y_test": np.zeros(6)}, "must be class numbers.*float64"),
        ({"y_test": np.zeros((6, 3), int)}, r"shape \(6, 3\)"),
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


def test_a_single_array_is_no_npz_file(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match="must be a complete file of numpy"):
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
    ("text", "message"),
    [
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


def test_without_the_extra_tfds_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install -e '.\[data\]'"):
        load_dataset("tfds:mnist")
