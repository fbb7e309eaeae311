"""Models by the texts that name them on the command line."""

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from keras_kddp import models
from keras_kddp.compression.choices import NO_TEACHER
from keras_kddp.compression.model_archives import load_safely
from keras_kddp.compression.training import fresh
from keras_kddp.distillation.checks import Teacher


def is_trained(source: str) -> bool:
    """Says whether a text names a model file, which comes with weights."""
    return source.endswith(".keras")


def is_code(source: str) -> bool:
    """Says whether a text names a function of a module, which would run."""
    return ":" in source and not is_trained(source)


def teacher_named(source: str, seed: int) -> Teacher:
    """Returns the teacher that a text names, as `compress` takes it.

    Args:
        source: `"none"`, `"self"`, or as `load_model` takes it.
        seed: Of its first weights.

    Raises:
        ValueError: If the text names nothing, or what it names is no model.
        OSError: If a file cannot be read.
    """
    if source == NO_TEACHER:
        return None
    if source == "self":
        return source
    return fresh(lambda: load_model(source, others="none, self, "), seed)


def load_model(source: str, others: str = "") -> keras.Model:
    """Returns the model that a text names.

    Args:
        source: A `.keras` file; the name of a function of
            `keras_kddp.models`; or `package.module:function` of a function
            without arguments that returns a model, looked for from the
            working directory on.
        others: What else may stand there, for the error.

    Returns:
        A built Keras model.

    Raises:
        ValueError: If the text names nothing, or what it names is no model.
        OSError: If a file cannot be read.
    """
    if is_trained(source):
        return model_file(source)
    module, colon, name = source.partition(":")
    is_module = all(map(str.isidentifier, module.split(".")))
    if colon:
        make = _attribute(module, name) if is_module else None
    else:
        make = _own_models().get(source)
    if not callable(make):
        raise ValueError(
            f"A model must be {others}a .keras file, package.module:function, "
            f"or one of {sorted(_own_models())}. Received: {source!r}."
        )
    with _code_of(source):
        model = make()
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            f"'{source}' must return a built keras.Model. Received: "
            f"{type(model).__name__}. Begin it with keras.Input(shape)."
        )
    return model


def objects_of(source: str) -> dict[str, Any]:
    """Returns the classes and functions of the module that a text names.

    Args:
        source: `package.module:function`; the module is run.

    Returns:
        Name -> what a model file may call by it, without Keras' own.

    Raises:
        ValueError: If the module cannot be imported.
    """
    module, _, name = source.partition(":")
    _attribute(module, name)
    return {
        name: each
        for name, each in vars(sys.modules[module]).items()
        if (inspect.isclass(each) or inspect.isfunction(each))
        and each.__module__.split(".")[0] != "keras"
        and not hasattr(keras.activations, name)
    }


def model_file(path: str | os.PathLike[str]) -> keras.Model:
    """Returns the model in a `.keras` file, which may be a stranger's.

    It is read in safe mode even where `keras.config` turns that off: a
    function of your own may read it otherwise.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If Keras cannot read it, or it would run code.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"'{path}' must be a .keras file. Received a path with no file."
        )
    try:
        return load_safely(path)
    # Whatever zip, JSON, HDF5 and the layers themselves say of a damaged file.
    except Exception as error:
        raise ValueError(
            f"'{path}' must be a model that Keras can load. Received: "
            f"{type(error).__name__}: {_without_unsafe_advice(str(error))}"
        ) from error


def _without_unsafe_advice(said: str) -> str:
    """Returns what Keras says of a file, which is read in safe mode here."""
    if "safe_mode=False" not in said:
        return said
    return f"{said.partition(' This carries ')[0]} Register a named function."


def _own_models() -> dict[str, Callable[..., Any]]:
    return {
        name: function
        for name, function in inspect.getmembers(models, inspect.isfunction)
        if function.__module__ == models.__name__ and not name.startswith("_")
    }


def _attribute(module: str, name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    try:
        with _code_of(module):
            return getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(
            f"'{module}' must be a module that can be imported from here. "
            f"Received: {error}."
        ) from error
    finally:
        sys.path.pop(0)


@contextlib.contextmanager
def _code_of(source: str) -> Iterator[None]:
    """Keeps the code that a text names from ending the process.

    Raises:
        ValueError: If it asks for that.
    """
    try:
        yield
    except SystemExit as error:
        raise ValueError(
            f"'{source}' must return, not exit. Received: sys.exit("
            f"{'' if error.code is None else repr(error.code)}). Put what is "
            'for the command line behind `if __name__ == "__main__":`.'
        ) from error
