"""The data a student is distilled on, with its splits kept apart."""

import sys
from dataclasses import dataclass

import numpy as np

from keras_kddp.data.dataset_files import read_idx, read_npz
from keras_kddp.data.groups import checked_groups
from keras_kddp.data.model_arrays import (
    Preparation,
    as_images,
    as_numbers,
    divider,
    make_split,
)
from keras_kddp.data.sources import Source
from keras_kddp.data.splits import Split
from keras_kddp.data.tfds_source import read_tfds
from keras_kddp.data.validation_split import (
    Cut,
    grouped_rows,
    last_rows,
    stratified_rows,
)
from keras_kddp.model_io import Array

# MNIST, Fashion-MNIST, KMNIST come shuffled: stored results lean on their last
# 5,000 as the validation split.
_MNIST_SIZE = 60_000
_MOST_COMPARED = 1_000_000  # examples: seconds


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of one data set.

    Attributes:
        name: What it was asked for by.
        train: What the weights are learned from.
        validation: What choices are made on.
        test: What accuracies are reported on; it chooses nothing.
        notes: What was done to what was read, a sentence each.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of examples by split."""
        return {
            name: len(getattr(self, name))
            for name in ("train", "validation", "test")
        }

    def say_notes(self) -> None:
        """Writes what was done to the data on standard error."""
        for note in self.notes:
            sys.stderr.write(f"kddp: {self.name}: {note}\n")


def load_dataset(
    spec: str, *, as_before: bool = False, is_trusted: bool = True
) -> Dataset:
    """Returns the data set that a text names.

    Args:
        spec: `digits`; `idx:DIR`, a folder of MNIST's four files, gzipped or
            not; `npz:FILE` with arrays x_train, y_train, x_test, y_test and,
            if there are any, x_validation, y_validation; or
            `tfds:NAME,train=SPLIT,validation=SPLIT,test=SPLIT`, of
            tensorflow-datasets, every split optional. `npz:FILE,scale=255`
            divides the inputs by 255; `,group=KEY` behind npz or tfds names
            what tells the groups that are not to be cut in two; see
            `read_npz` and `read_tfds`.
        as_before: Read the text as runs did whose `summary.json` is of version
            0 or 1: npz has no options, its uint8 images are made [0, 1] with
            a channel axis too, and validation is the last twelfth.
        is_trusted: Whether the text is the user's own. Of a stranger's tfds
            is read where it is prepared, with code that is installed.

    Returns:
        uint8 images of idx and tfds as float32 in [0, 1] with a channel axis;
        other inputs, and all of npz, as float32, as they are. Where the source
        has no validation split it is a twelfth of the training data,
        stratified by class, the same each time. `notes` says what was done.

    Raises:
        ValueError: If the text names nothing, or what it names is damaged.
        OSError: If a file cannot be read.
        ImportError: If what reads it is not installed.
    """
    kind, _, name = spec.partition(":")
    if spec == "digits":
        return load_digits()
    if kind not in ("idx", "npz", "tfds") or not name:
        raise ValueError(
            "The data must be digits, idx:DIR, npz:FILE or "
            f"tfds:NAME. Received: {spec!r}."
        )
    source, prepare = _read(kind, name, as_before, is_trusted)
    splits, notes = {}, [*source.notes]
    if as_before:
        notes.insert(0, "read as the version read it that made the run")
    for split, arrays in source.splits.items():
        splits[split], done = make_split(spec, split, arrays, prepare)
        notes += [note for note in done if note not in notes]
    if kind == "npz":  # the others have splits made by others
        notes += _notes_of_repeats(splits)
    groups = checked_groups(spec, source)
    if "validation" not in splits:
        key = source.options.get("group", "")
        cut = _cut(kind, splits["train"].y, groups, key, as_before=as_before)
        splits |= _parted(splits["train"], cut.rows)
        notes += cut.notes
    return Dataset(spec, **splits, notes=tuple(notes))


def _notes_of_repeats(splits: dict[str, Split]) -> list[str]:
    """Returns how many inputs of other splits stand in the training data."""
    if sum(map(len, splits.values())) > _MOST_COMPARED:
        return []
    rows = {
        name: [hash(row.tobytes()) for row in split.x]
        for name, split in splits.items()
    }
    seen = set(rows.pop("train"))
    repeated = {
        name: sum(row in seen for row in those) for name, those in rows.items()
    }
    return [
        f"{count:,} of {len(rows[name]):,} inputs of `{name}` stand in `train` "
        "as well: if they are the same examples, leave them out of one"
        for name, count in repeated.items()
        if count
    ]


def _read(
    kind: str, name: str, as_before: bool, is_trusted: bool
) -> tuple[Source, Preparation]:
    """Returns what was read, and what is to be done to its inputs."""
    if kind == "npz":
        source = read_npz(name, is_name=as_before)
        divisor = source.options.get("scale")
        numbers = as_numbers if divisor is None else divider(divisor)
        return source, as_images if as_before else numbers
    if kind == "idx":
        return read_idx(name), as_images
    return read_tfds(name, is_trusted=is_trusted), as_images


def _cut(
    kind: str, y: Array, groups: Array | None, key: str, *, as_before: bool
) -> Cut:
    """Returns which of the training examples are for validation."""
    if groups is not None:
        return grouped_rows(y, groups, key)
    last = last_rows(y)
    holds_all = len(np.unique(y[last.rows])) == len(np.unique(y))
    is_mnist = kind == "idx" and len(y) == _MNIST_SIZE and holds_all
    return last if as_before or is_mnist else stratified_rows(y)


def _parted(train: Split, rows: Array) -> dict[str, Split]:
    """Returns training examples in two parts: some rows are for validation."""
    others = np.delete(np.arange(len(train)), rows)
    return {
        name: Split(train.x[part], train.y[part])
        for name, part in (("train", others), ("validation", rows))
    }


def load_digits() -> Dataset:
    """Returns scikit-learn's handwritten digits, which need no download.

    1,797 images of 8x8 pixels (Alpaydin & Kaynak 1998) as (examples, 64)
    float32 in [0, 1]: 1,197 to train on, 150 for validation, 450 for tests,
    each with the same share of every class, the same split every time.
    """
    from sklearn.datasets import load_digits as bundled_digits
    from sklearn.model_selection import train_test_split

    digits = bundled_digits()
    x = (digits.data / 16).astype("float32")
    y = digits.target.astype("int64")
    x, x_test, y, y_test = train_test_split(
        x, y, test_size=450, stratify=y, random_state=0
    )
    x, x_validation, y, y_validation = train_test_split(
        x, y, test_size=150, stratify=y, random_state=0
    )
    return Dataset(
        "digits",
        Split(x, y),
        Split(x_validation, y_validation),
        Split(x_test, y_test),
        (
            "inputs, 0 to 16, are divided by 16",
            "validation: 150 of 1,347 training examples, stratified by class, "
            "seed 0",
        ),
    )
