"""What an optional dependency is for, and how to get it."""

import importlib.util

_EXTRAS = {
    "ai_edge_quantizer": "int4",
    "ethosu": "vela",
    "importlib_resources": "data",
    "tensorflow_datasets": "data",
    "tensorflow_model_optimization": "tfmot",
    "tf_keras": "tfmot",
    "tflite_micro": "micro",
}
"""Module -> the extra of pyproject.toml that brings it."""


def absence_of(*modules: str) -> str | None:
    """Returns how to get modules of an extra, None where all are there.

    Args:
        *modules: Their names; they are looked for and not imported.
    """
    extras = {
        _EXTRAS[name]
        for name in modules
        if importlib.util.find_spec(name) is None
    }
    if not extras:
        return None
    names = ",".join(sorted(extras))
    return f"pip install -e '.[{names}]' in the clone of keras-kddp"


def require(purpose: str, name: str, absence: str | None) -> None:
    """Raises an ImportError where something is absent.

    Args:
        purpose: What it is needed for, the beginning of a sentence.
        name: What people call it.
        absence: How to get it, or why it cannot be used; None: it is there.
    """
    if absence is not None:
        raise ImportError(f"{purpose} {name}, which is not here: {absence}.")
