"""The numbers given to `fit`, checked before the first step."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_kddp.arguments import MOST_EPOCHS, require_count
from keras_kddp.data.batches import Batches, are_arrays
from keras_kddp.data.packing import unpacked
from keras_kddp.model_io import Arrays, output_structure, to_numpy


def check_models_finite(**models: keras.Model | None) -> None:
    """Checks that models have no NaN or infinity among their weights.

    Args:
        **models: By role, such as `teacher`; None is left out.

    Raises:
        ValueError: If one has.
    """
    for role, model in models.items():
        if model is not None and (name := spoilt_weight(model)):
            raise ValueError(
                f"`{role}` must have finite weights. Received NaN or infinity "
                f"in '{name}'. Load weights from before its training went "
                "astray, or train it anew with a lower learning rate."
            )


def spoilt_weight(model: keras.Model) -> str:
    """Returns the path of the first weight with NaN or infinity, or ""."""
    for weight in model.weights:
        if "float" in keras.backend.standardize_dtype(weight.dtype):
            if not np.isfinite(to_numpy(weight)).all():
                return str(weight.path)
    return ""


def check_taught(x: Batches, validation: Batches) -> None:
    """Checks that data carry the outputs of a teacher that is not there.

    Args:
        x: What `fit` takes; of other batches than those of a
            `tf.data.Dataset` only the first step knows what they carry.
        validation: What it takes as `validation_data`, or None.

    Raises:
        ValueError: If they are plain.
    """
    is_pair = isinstance(validation, (tuple, list)) and len(validation) > 0
    held_out: Any = validation
    if is_pair:
        held_out = held_out[0]
    for name, data in (("x", x), ("validation_data", held_out)):
        of_batch = getattr(data, "element_spec", None)
        first = of_batch[0] if isinstance(of_batch, tuple) else of_batch
        is_known = of_batch is not None or are_arrays(data)
        if is_known and not unpacked(data if first is None else first)[1]:
            raise untaught(name)


def untaught(name: str) -> ValueError:
    """Returns the error of plain inputs where there is no teacher.

    Args:
        name: What holds them.
    """
    return ValueError(
        f"`{name}` must carry the outputs of the teacher when teacher=None. "
        "Received plain inputs. Pack them, keras_kddp.TeacherCache(teacher, x)"
        ".pack(x), the validation data too; or give the Distiller the teacher, "
        "or student_loss_weight=1 to learn from the labels alone."
    )


def check_not_empty(x: Arrays | None) -> None:
    """Checks that there is something to learn from.

    Args:
        x: Inputs that are arrays, without the validation rows; None where
            that is not known.

    Raises:
        ValueError: If there is no row.
    """
    leaves = [] if x is None else keras.tree.flatten(x)
    if leaves and leaves[0].shape[:1] == (0,):
        raise ValueError(
            "`x` must hold at least one example. Received none to train on. "
            "Pass more, or a smaller validation_split."
        )


def check_learning_rate(optimizer: Any) -> None:
    """Checks that an optimizer goes downhill, by finite steps.

    Args:
        optimizer: A Keras optimizer, or None.

    Raises:
        ValueError: If its learning rate, as it is now, is negative, NaN or
            infinite.
    """
    rate = getattr(optimizer, "learning_rate", None)
    try:
        number = float(keras.ops.convert_to_numpy(rate))
    except (TypeError, ValueError):  # none, or one of a kind of its own
        return
    if not 0 <= number < math.inf:
        raise ValueError(
            "`learning_rate` must be a finite number >= 0. Received: "
            f"learning_rate={number} of {type(optimizer).__name__}. Try 1e-3."
        )


def check_fit_numbers(
    given: Mapping[str, Any],
    y: Arrays,
    student: keras.Model,
    loss: Any,
) -> None:
    """Checks counts, and labels and weights that are arrays.

    Args:
        given: The arguments of `fit`; of `validation_data`, tuples of arrays
            are looked at.
        y: Labels.
        student: Its outputs say how many classes there are.
        loss: The hard loss as `compile` got it; None: labels do not count.

    Raises:
        ValueError: If labels are no classes of the student, a weight is
            negative, NaN or infinite, or a count out of range.
    """
    if given.get("batch_size") is not None:
        require_count("batch_size", given["batch_size"], smallest=1)
    epochs = given.get("epochs", 1)
    require_count("epochs", epochs, smallest=0, largest=MOST_EPOCHS)
    _check_weights("sample_weight", given.get("sample_weight"))
    of_classes = given.get("class_weight")
    if isinstance(of_classes, Mapping):
        _check_weights("class_weight", np.array([*of_classes.values()]))
    labels = [("y", y)]
    validation = given.get("validation_data")
    if isinstance(validation, (tuple, list)) and len(validation) in (2, 3):
        labels.append(("validation_data", validation[1]))
        _check_weights("validation_data", [*validation[2:]] or None)
    for name, numbers in labels:
        for array, each, output in _by_output(numbers, loss, student):
            _check_labels(name, array, each, output.shape)


def _check_weights(name: str, weights: Arrays) -> None:
    flat = [w for w in keras.tree.flatten(weights) if w is not None]
    if not flat or not are_arrays(flat):
        return
    for weight in flat:
        values = np.asarray(keras.ops.convert_to_numpy(weight))
        fine = np.isfinite(values) & (values >= 0)
        if not fine.all():
            wrong = values[~fine][0]
            raise ValueError(
                f"The weights in `{name}` must be finite numbers >= 0. "
                f"Received: {wrong}, {(~fine).sum()} such of {fine.size}. "
                "Leave such examples out, or give them 0."
            )


def _by_output(
    y: Arrays, loss: Any, student: keras.Model
) -> Sequence[tuple[Any, Any, Any]]:
    """Returns labels, loss and symbolic output together, where they are."""
    if y is None or loss is None or not are_arrays(y):
        return []
    if not getattr(student, "outputs", None):  # subclassed
        return []
    structure = output_structure(student)
    outputs = keras.tree.flatten(structure)
    labels = keras.tree.flatten(y)
    is_nested = keras.tree.is_nested(loss)
    losses = keras.tree.flatten(loss) if is_nested else [loss] * len(outputs)
    if len(outputs) == 1:
        if len(labels) == len(losses) == 1:
            return [(labels[0], losses[0], outputs[0])]
        return []
    kinds = [y, structure, *([loss] if is_nested else [])]
    if all(isinstance(kind, Mapping) for kind in kinds):
        fits = len({tuple(sorted(kind)) for kind in kinds}) == 1
    else:
        fits = all(isinstance(kind, (list, tuple)) for kind in kinds)
    if not fits or not len(labels) == len(losses) == len(outputs):
        return []  # Keras says so, or knows what is meant
    return list(zip(labels, losses, outputs, strict=True))


def _check_labels(name: str, y: Any, loss: Any, shape: Any) -> None:
    if not _is_stock(loss):
        return
    values = np.asarray(keras.ops.convert_to_numpy(y))
    if values.dtype.kind not in "iufb":
        return
    fine = np.isfinite(values)
    expected = "finite numbers"
    if _takes_class_numbers(loss):
        expected = f"class numbers from 0 to {shape[-1] - 1}"
        fine &= (values >= 0) & (values < shape[-1])
        ignored = getattr(loss, "ignore_class", None)
        if ignored is not None:
            fine |= values == ignored
    if not fine.all():
        row = int(np.argwhere(~fine)[0][0])
        raise ValueError(
            f"The labels in `{name}` must be {expected}. Received: "
            f"{values[~fine][0]} in row {row}, {(~fine).sum()} such of "
            f"{fine.size}. Mend or leave out these examples, or give the "
            "models an output for each class."
        )


def _is_stock(loss: Any) -> bool:
    kind = loss if callable(loss) and hasattr(loss, "__name__") else type(loss)
    is_of_keras = str(kind.__module__).startswith("keras.")
    return isinstance(loss, str) or is_of_keras


def _takes_class_numbers(loss: Any) -> bool:
    stock = (
        keras.losses.SparseCategoricalCrossentropy,
        keras.losses.sparse_categorical_crossentropy,
    )
    if isinstance(loss, str):
        return loss in [each.__name__ for each in stock]
    return loss in stock or type(loss) in stock
