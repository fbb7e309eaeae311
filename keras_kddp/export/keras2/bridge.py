"""Models of ordinary layers carried between Keras 3 and tf_keras."""

import os
from pathlib import Path

import keras

from keras_kddp.arguments import require_time_limit
from keras_kddp.atomic_files import replacing
from keras_kddp.export.keras2.descriptions import describe, refusal_of
from keras_kddp.export.keras2.tf_keras_process import (
    TF_KERAS_SECONDS,
    ask_tf_keras,
)
from keras_kddp.export.model.float32 import plain_copy
from keras_kddp.export.model.sameness import check_same, outputs_of, samples_of
from keras_kddp.export.workers import portable_models
from keras_kddp.export.workers.arrays import read_arrays, write_arrays
from keras_kddp.export.workers.guard import temporary_folder
from keras_kddp.model_io import Array

_SUFFIXES = (".h5", ".keras")
_TWO = "Keras 3 and tf_keras"


def to_tf_keras(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    time_limit: float | None = TF_KERAS_SECONDS,
) -> Path:
    """Writes a Keras 3 model as a file of tf_keras (Keras 2), and checks it.

    tf_keras runs in a process of its own, so that this one's `tf.keras` and
    environment stay as they are.

    Args:
        model: A built Sequential or Functional model of ordinary layers, such
            as Dense, convolutions, normalization, pooling, joins; nested
            models are written flat. Penalties of `prepare` are left out.
        path: File ending in `.h5` or `.keras`; replaced on success only.
        time_limit: Seconds that tf_keras may take; None: no limit.

    Returns:
        The path.

    Raises:
        ImportError: If tf_keras is not installed.
        ValueError: If the model has something that tf_keras has not, or the
            path has another suffix.
        OSError: If the file cannot be written.
        ExportError: If tf_keras does not compute the same to 1e-5, or does
            not end in `time_limit`.

    Example:
        ```python
        keras_kddp.export.to_tf_keras(student, "student.h5")
        ```
    """
    require_time_limit(time_limit)
    target = Path(path)
    _check_target(target)
    plain = plain_copy(model)
    description, weights = describe(plain)
    x = samples_of(plain)
    with replacing(target) as new, temporary_folder() as folder:
        files = _array_files(folder)
        write_arrays(files["weights"], weights)
        write_arrays(files["samples"], dict(enumerate(x)))
        ask_tf_keras(
            "save",
            time_limit=time_limit,
            description=description,
            target=str(new.absolute()),
            **files,
        )
        check_same(outputs_of(plain, x), _in_order(files["outputs"]), _TWO)
    return target


def from_tf_keras(
    path: str | os.PathLike[str],
    *,
    time_limit: float | None = TF_KERAS_SECONDS,
) -> keras.Model:
    """Returns the Keras 3 model of a file that tf_keras (Keras 2) wrote.

    Args:
        path: A `.h5` or `.keras` file, or the folder of a SavedModel, of a
            Sequential or Functional model of ordinary layers.
        time_limit: Seconds that tf_keras may take; None: no limit.

    Raises:
        ImportError: If tf_keras is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If tf_keras cannot load it, or it has something that
            Keras 3 has not.
        ExportError: If Keras 3 does not compute the same to 1e-5, or tf_keras
            does not end in `time_limit`.

    Example:
        ```python
        teacher = keras_kddp.export.from_tf_keras("teacher.h5")
        ```
    """
    require_time_limit(time_limit)
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(
            f"`path` must be a model of tf_keras. Received: {str(source)!r}, "
            "which does not exist."
        )
    with temporary_folder() as folder:
        files = _array_files(folder)
        reply = ask_tf_keras(
            "load",
            time_limit=time_limit,
            path=str(source.absolute()),
            **files,
        )
        try:
            model = portable_models.build(
                keras, reply["description"], read_arrays(files["weights"])
            )
        except (TypeError, ValueError) as error:
            raise ValueError(refusal_of(error)) from error
        found = outputs_of(model, _in_order(files["samples"]))
        check_same(_in_order(files["outputs"]), found, _TWO)
    return model


def _check_target(target: Path) -> None:
    if target.suffix not in _SUFFIXES:
        raise ValueError(
            f"`path` must end in one of {_SUFFIXES}. Received: "
            f"path={str(target)!r}. Write for example to "
            f"{str(target.with_suffix('.h5'))!r}."
        )
    if not target.parent.is_dir() or target.is_dir():
        raise ValueError(
            "`path` must be a file in an existing folder. Received: "
            f"path={str(target)!r}. Create the folder first."
        )


def _array_files(folder: Path) -> dict[str, str]:
    """Returns the .npz files beside a request, by what they hold."""
    names = ("weights", "samples", "outputs")
    return {name: str(folder / f"{name}.npz") for name in names}


def _in_order(path: str) -> list[Array]:
    """Returns the arrays of a file that are named "0", "1", ..."""
    arrays = read_arrays(path)
    return [arrays[str(index)] for index in range(len(arrays))]
