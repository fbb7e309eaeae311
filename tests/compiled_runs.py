"""Trainings of a compression that are compiled in another way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from keras_kddp.compression import training


@contextmanager
def compiled_with(**flags: bool) -> Iterator[Callable[..., None]]:
    """Has all trainings of compressions compile with attributes of their own.

    Args:
        **flags: Attributes that a compiled model gets, such as `run_eagerly`.

    Yields:
        What compiles as without it.
    """
    real = training._compile

    def compile_otherwise(trained: Any, *arguments: Any) -> None:
        real(trained, *arguments)
        for name, flag in flags.items():
            setattr(trained, name, flag)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_compile", compile_otherwise)
        yield real
