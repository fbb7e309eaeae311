"""Small data sets as files, for whoever reads them."""

import gzip

import numpy as np

IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def arrays(train=24, test=6):
    """Returns images of 4x3 pixels and labels of 3 classes."""
    generator = np.random.default_rng(0)
    return {
        "x_train": generator.integers(0, 256, (train, 4, 3), dtype="uint8"),
        "y_train": (np.arange(train) % 3).astype("uint8"),
        "x_test": generator.integers(0, 256, (test, 4, 3), dtype="uint8"),
        "y_test": (np.arange(test) % 3).astype("uint8"),
    }


def idx_bytes(array):
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_idx(folder, parts, *, zipped=True):
    for key, name in IDX_NAMES.items():
        content = idx_bytes(parts[key])
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return f"idx:{folder}"
