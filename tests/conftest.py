"""What tests of several folders ask for by name."""

from collections.abc import Iterator

import pytest
from small_datasets import arrays


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Makes float64 the dtype of a test's new layers."""
    # Not above: beside workers, what TensorFlow says there would come last.
    from helpers import float64

    with float64():
        yield


@pytest.fixture(scope="session")
def prepared_tfds(tmp_path_factory):
    """Writes a real TFDS data set, and makes its folder the default one."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    parts = arrays()
    splits = {
        split: tf.data.Dataset.from_tensor_slices(
            {
                "image": parts[f"x_{split}"][..., None],
                "label": parts[f"y_{split}"].astype("int64"),
            }
        )
        for split in ("train", "test")
    }
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(4, 3, 1)),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_images",
        version="1.0.0",
        features=features,
        split_datasets=splits,
        data_dir=str(folder),
        disable_shuffling=True,
    )
    return folder
