"""What the folders are that we write, and what they held before lists."""

from collections.abc import Mapping
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of folder.

    Attributes:
        words: What it is called in messages.
        needed: Patterns of names of which one was in every such folder,
            before folders had a list of their files.
        files: Patterns of the names of the files that such a folder held.
        values: Pattern of a folder's name in it -> the kind of that folder.
        added: Patterns of the names of what is added to a finished one.
    """

    words: str
    needed: tuple[str, ...]
    files: tuple[str, ...]
    values: Mapping[str, str] = {}
    added: tuple[str, ...] = ()


KINDS = {
    "run": Kind(
        "a run directory",
        ("summary.json", "seed-*"),
        (
            *("summary.json", "removals.json"),
            *("student.keras", "teacher.keras"),
            *("student_*.tflite", "student_*.json"),
        ),
        {
            "micro": "bundle",
            "micro_*": "bundle",
            "saved_model": "saved_model",
            "features": "saved_model",
            "qat": "run",
            "seed-*": "run",
        },
        (
            *("student_*.tflite", "student_*.json", "micro", "micro_*"),
            *("saved_model", "features", "qat"),
        ),
    ),
    "saved_model": Kind(
        "a SavedModel with its card",
        ("card.json",),
        ("card.json", "README.md", "saved_model.pb", "fingerprint.pb"),
        {"assets": "assets", "variables": "variables"},
    ),
    "assets": Kind("assets", (), ("*",)),
    "variables": Kind("variables", (), ("variables.*",)),
    "bundle": Kind(
        "a bundle for microcontrollers",
        ("model.cc",),
        (
            *("model.tflite", "model.json", "README.md", "model.h"),
            *("model.cc", "op_resolver.h", "golden.h", "golden.cc", "main.cc"),
        ),
    ),
    "teacher_cache": Kind(
        "a TeacherCache", ("key.json",), ("key.json", "outputs_*.npy")
    ),
}
"""By the name that a folder's list has of its kind."""
