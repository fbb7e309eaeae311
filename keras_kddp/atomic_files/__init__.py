"""Files and folders that are complete or not there."""

from keras_kddp.atomic_files.files import (
    as_json,
    replacing,
    write_json,
    write_text,
)
from keras_kddp.atomic_files.folders import (
    Unfinished,
    changing_folder,
    parts_of,
    reading_folder,
    recovered,
    remove_parts,
    unfinished_at,
    writing_folder,
)
from keras_kddp.atomic_files.lock import SUFFIX, TargetError
from keras_kddp.atomic_files.manifest import (
    MANIFEST,
    sum_of,
    sync_names,
    write_manifest,
)
from keras_kddp.atomic_files.obstacles import (
    check_changeable,
    check_place,
    check_target,
)

__all__ = [
    "MANIFEST",
    "SUFFIX",
    "TargetError",
    "Unfinished",
    "as_json",
    "changing_folder",
    "check_changeable",
    "check_place",
    "check_target",
    "parts_of",
    "reading_folder",
    "recovered",
    "remove_parts",
    "replacing",
    "sum_of",
    "sync_names",
    "unfinished_at",
    "write_json",
    "write_manifest",
    "write_text",
    "writing_folder",
]
