"""Arrays out of tensorflow-datasets, split by split."""

import itertools
import re
import warnings
from typing import Any

import numpy as np

from keras_kddp.data.sources import SPLITS, Source, SplitArrays
from keras_kddp.extras import absence_of, require

# Of a name that it does not know tfds lists the hundreds that it knows.
_LONG_LIST = re.compile(r"(?:\n\s*- \S+){9,}")


# NAME/CONFIG:VERSION of what is installed; community:NAME fetches its code.
_PLAIN = re.compile(r"\w+(/[\w.+-]+)*(:[\d.*]+)?")


def read_tfds(text: str, *, is_trusted: bool = True) -> Source:
    """Returns splits of a data set of tensorflow-datasets.

    Prepares (and downloads) it first where that has not been done; the
    environment variable TFDS_DATA_DIR says where data sets are kept. Warns of
    splits that share examples.

    Args:
        text: `NAME` or `NAME,train=SPLIT,validation=SPLIT,test=SPLIT`, with
            SPLIT such as `train[:90%]`; a data set of inputs with their
            labels. With `,group=FEATURE` that feature tells the groups.
        is_trusted: Whether the text is the user's own. Otherwise nothing is
            downloaded, and no code that is not installed is fetched.

    Raises:
        ImportError: If tensorflow-datasets is not installed.
        ValueError: If there is no such data set, or it cannot be had, or does
            not fit into arrays.
    """
    name, *words = text.split(",")
    names = {"train": "train", "test": "test"}
    options: dict[str, str] = {}
    for word in words:
        split, _, value = word.partition("=")
        if split not in (*SPLITS, "group") or not value:
            raise ValueError(
                "Splits of tfds must be written train=SPLIT, "
                "validation=SPLIT or test=SPLIT, and groups group=FEATURE. "
                f"Received: {word!r}."
            )
        (options if split == "group" else names)[split] = value
    load = _loaded if is_trusted else _prepared
    parts, info = load(name, names)
    _warn_of_overlaps(name, names, info.splits)
    group = options.get("group")
    splits = {
        split: _take_arrays(
            f"tfds:{name}, {split}", parts[split], info.supervised_keys, group
        )
        for split in SPLITS
        if split in parts
    }
    left = [
        feature
        for feature, values in parts["train"].items()
        if not any(values is taken for taken in splits["train"])
    ]
    note = (
        f"the features {sorted(left)} are left out; if one of them tells "
        "groups that no two splits may share, such as subjects, name it: "
        ",group=FEATURE"
    )
    return Source(splits, options, [note] if left and group is None else [])


def _prepared(name: str, names: dict[str, str]) -> tuple[dict[str, Any], Any]:
    """Returns what `_loaded` does, of a data set that is here already."""
    if not _PLAIN.fullmatch(name):
        raise ValueError(
            f"tfds:{name} must be a data set of the installed "
            "tensorflow-datasets, as a run names it that may be a stranger's. "
            "Received one that fetches code. Give --trust-code to do so."
        )
    return _loaded(name, names, download=False)


def _loaded(
    name: str, names: dict[str, str], *, download: bool = True
) -> tuple[dict[str, Any], Any]:
    """Returns the splits, each a dict of features, and the data set's info."""
    require(
        "tfds: is read by",
        "tensorflow-datasets with importlib_resources",
        absence_of("tensorflow_datasets", "importlib_resources"),
    )
    import tensorflow_datasets as tfds

    try:
        parts, info = tfds.load(
            name,
            split=list(names.values()),
            batch_size=-1,
            with_info=True,
            download=download,
        )
    # Whatever the data set's own script, the network or the file system says.
    except Exception as error:
        mend = "" if download else ". Give --trust-code to have it fetched."
        raise ValueError(
            f"tfds:{name} must be a data set that is prepared or can be "
            f"downloaded, with the splits {sorted(names.values())}. Received: "
            f"{type(error).__name__}: {_LONG_LIST.sub(' ...', str(error))}"
            f"{mend}"
        ) from error
    return dict(zip(names, tfds.as_numpy(parts), strict=True)), info


def _warn_of_overlaps(name: str, names: dict[str, str], infos: Any) -> None:
    """Warns of examples that two of the splits have.

    Args:
        name: Of the data set.
        names: What each split was asked for by.
        infos: The data set's own splits, by name.
    """
    import tensorflow_datasets as tfds

    rows = {
        split: _rows(
            tfds.core.ReadInstruction.from_spec(asked).to_absolute(infos), infos
        )
        for split, asked in names.items()
    }
    for one, other in itertools.combinations(filter(names.get, SPLITS), 2):
        shared = sum(
            len(np.intersect1d(those, rows[other][its]))
            for its, those in rows[one].items()
            if its in rows[other]
        )
        if shared:
            warnings.warn(
                f"tfds:{name}: no example must stand in two splits. Received "
                f"{shared:,} that do, in {one}={names[one]} and in "
                f"{other}={names[other]}: what is measured on them was seen "
                "before. Let one end where the other begins, such as "
                f"{one}=train[:80%],{other}=train[80%:].",
                stacklevel=5,
            )


def _rows(instructions: Any, infos: Any) -> dict[str, np.ndarray]:
    """Returns which examples of each of the data set's splits are read."""
    rows: dict[str, list[np.ndarray]] = {}
    for each in instructions:
        every = np.arange(infos[each.splitname].num_examples)
        rows.setdefault(each.splitname, []).append(every[each.from_ : each.to])
    return {split: np.concatenate(those) for split, those in rows.items()}


def _take_arrays(
    name: str, part: Any, keys: tuple[Any, Any] | None, group: str | None
) -> SplitArrays:
    """Returns inputs, labels and perhaps groups out of features."""
    if keys is None and isinstance(part, dict):  # take what is beside `label`
        others = sorted(set(part) - {"label", group})
        keys = (others[0], "label") if len(others) == 1 else None
    wanted = [*(keys or ()), *([] if group is None else [group])]
    found: list[Any] = [
        part.get(key) if isinstance(part, dict) and isinstance(key, str) else 0
        for key in wanted
    ]
    expected = 2 if group is None else 3
    are_arrays = all(isinstance(x, np.ndarray) for x in found)
    if len(found) != expected or not are_arrays:
        kinds = {key: type(part[key]).__name__ for key in part}
        raise ValueError(
            f"{name}: the data set must have inputs of one shape and a label "
            "each, and the feature that `group=` names. Received features "
            f"{kinds}, of which {wanted} are inputs, labels and groups. Name a "
            "feature that tells groups by `group=`, or write the data set as "
            "npz."
        )
    return SplitArrays(*found)
