"""Files and folders that are complete or not there."""

from keras_kddp.atomic_files.files import (
    replacing,
    writable_directory,
    write_json,
    write_text,
)
from keras_kddp.atomic_files.folders import (
    Unfinished,
    changing_folder,
    recovered,
    writing_folder,
)
from keras_kddp.atomic_files.lock import TargetError
from keras_kddp.atomic_files.manifest import MANIFEST, write_manifest
from keras_kddp.atomic_files.obstacles import check_target

__all__ = [
    "MANIFEST",
    "TargetError",
    "Unfinished",
    "changing_folder",
    "check_target",
    "recovered",
    "replacing",
    "writable_directory",
    "write_json",
    "write_manifest",
    "write_text",
    "writing_folder",
]
