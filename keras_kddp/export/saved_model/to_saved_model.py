"""SavedModels that others run, fine-tune and build upon."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_kddp import _compat
from keras_kddp.arguments import checked_path
from keras_kddp.atomic_files import (
    check_target,
    write_json,
    writing_folder,
)
from keras_kddp.export.errors import ExportError
from keras_kddp.export.model.entries import merged
from keras_kddp.export.model.float32 import plain_copy
from keras_kddp.export.model.sameness import (
    check_same,
    outputs_of,
    samples_of,
)
from keras_kddp.export.model.signature import (
    check_exportable,
    input_signature,
    output_names,
    require_tensorflow,
)
from keras_kddp.export.saved_model.model_card import card_text
from keras_kddp.model_io import Tensor, input_structure
from keras_kddp.profiling import profile

_KIND = "saved_model"
_WEIGHT_BYTES = 4


def to_saved_model(
    model: keras.Model,
    directory: str | os.PathLike[str],
    *,
    features: str | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a student as a SavedModel that can be reused and fine-tuned.

    What comes back from `tf.saved_model.load` or `hub.load` is called with
    `(inputs, training=False)`, any batch; `hub.KerasLayer(directory,
    trainable=True)` takes it in tf_keras, and `SavedModelLayer` in Keras 3.
    It has `variables`, `trainable_variables` and `regularization_losses`.

    Args:
        model: A built Sequential or Functional model, every dimension but the
            batch fixed; penalties of `prepare` are left out, and weights are
            float32.
        directory: Folder of the SavedModel; one that is there as it was
            written is replaced, anything else is refused.
        features: Name of the layer whose output is exported instead of the
            model's: a body for other heads. None: the whole model.
        card: Entries for `README.md` and `card.json` beside it, as JSON can
            hold them: `"description"`, `"data"`, `"accuracy"`, `"pruning"`,
            `"license"`, and others; sizes, inputs and outputs are added.

    Returns:
        The directory.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If an argument does not fit, or the directory holds
            anything else.
        OSError: If the directory cannot be written.
        ExportError: If the model cannot be traced, or the SavedModel does not
            compute what the model computes.

    Example:
        ```python
        keras_kddp.export.to_saved_model(student, "student", features="hidden")
        body = hub.KerasLayer("student", trainable=True)  # in tf_keras
        ```
    """
    target = checked_path("directory", directory, "student")
    require_tensorflow("SavedModel export")
    check_exportable(model)
    check_target(target, _KIND, overwrite=True)
    plain = _headless(plain_copy(model), features)
    entries = _entries(plain, card)
    text = card_text(entries)
    with writing_folder(
        target,
        _KIND,
        overwrite=True,
        bytes_needed=_WEIGHT_BYTES * plain.count_params(),
    ) as unfinished:
        folder = unfinished.new
        _save(plain, folder)
        _check_saved(plain, folder)
        write_json(folder / "card.json", entries)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return target


def _headless(model: keras.Model, features: str | None) -> keras.Model:
    if features is None:
        return model
    nodes = [node for node in _compat.call_nodes(model) if node.inputs]
    counts = Counter(node.name for node in nodes for _ in node.outputs)
    once = [name for name, count in counts.items() if count == 1]
    if features not in once:
        raise ValueError(
            "`features` must name a layer of the model that is called once, "
            f"one of {once}. Received: features={features!r}."
        )
    (output,) = (node.outputs[0] for node in nodes if node.name == features)
    return keras.Model(
        input_structure(model), output, name=f"{model.name}_{features}"
    )


def _entries(
    model: keras.Model, card: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns what the card says, given and measured."""
    sizes = profile(model)
    measured = {
        "name": model.name,
        "parameters": sizes.parameters,
        "macs": sizes.macs,
        "inputs": {
            entry.name: {"shape": [None, *entry.shape], "dtype": entry.dtype}
            for entry in input_signature(model)
        },
        "outputs": {
            name: {"shape": list(tensor.shape), "dtype": tensor.dtype}
            for name, tensor in zip(
                output_names(model), model.outputs, strict=True
            )
        },
    }
    return merged("card", card, measured)


def _save(model: keras.Model, folder: Path) -> None:
    import tensorflow as tf  # here: the other backends do without it

    structure, specs = input_structure(model), _input_specs(model)
    names = output_names(model)

    @tf.function
    def call(inputs: Any, training: bool = False) -> Any:
        return model(inputs, training=training)

    reusable = _with_variables(model)
    reusable.__call__ = call
    try:
        for training in (True, False):
            call.get_concrete_function(specs, training=training)

        @tf.function(input_signature=keras.tree.flatten(specs))
        def serve(*tensors: Tensor) -> dict[str, Tensor]:
            inputs = keras.tree.pack_sequence_as(structure, list(tensors))
            outputs = keras.tree.flatten(model(inputs, training=False))
            return dict(zip(names, outputs, strict=True))

        tf.saved_model.save(
            reusable, str(folder), signatures={"serving_default": serve}
        )
    except Exception as error:
        raise ExportError(
            f"Model {model.name!r} must run in a TensorFlow graph. Received: "
            f"{type(error).__name__}: {error}\nRemove what keeps state outside "
            "of Keras variables."
        ) from error


def _input_specs(model: keras.Model) -> Any:
    """Returns specs of any batch, in the structure that the model takes."""
    import tensorflow as tf

    names = iter(input_signature(model))
    return keras.tree.map_structure(
        lambda tensor: tf.TensorSpec(
            (None, *tensor.shape[1:]), tensor.dtype, name=next(names).name
        ),
        input_structure(model),
    )


def _with_variables(model: keras.Model) -> Any:
    """Returns what is saved, with all that fine-tuning needs but the call."""
    import tensorflow as tf

    # Not a tf.Module: its properties would hide these attributes.
    reusable = tf.train.Checkpoint()
    reusable.tables = [
        layer.lookup_table
        for layer in _compat.all_layers(model)
        if hasattr(layer, "lookup_table")  # what looks words up
    ]
    reusable.variables = [v.value for v in model.variables]
    reusable.trainable_variables = [v.value for v in model.trainable_variables]
    reusable.regularization_losses = [
        _loss_of(variable)
        for variable in model.trainable_variables
        if getattr(variable, "regularizer", None) is not None
    ]
    return reusable


def _check_saved(model: keras.Model, folder: Path) -> None:
    """Raises an ExportError unless what was saved computes the same."""
    import tensorflow as tf

    rows = samples_of(model)
    structure = input_structure(model)
    loaded = tf.saved_model.load(str(folder))
    found = loaded(
        keras.tree.pack_sequence_as(structure, list(map(tf.constant, rows))),
        training=False,
    )
    check_same(
        outputs_of(model, rows),
        [part.numpy() for part in keras.tree.flatten(found)],
        "Keras and the SavedModel",
    )


def _loss_of(variable: Any) -> Any:
    import tensorflow as tf

    @tf.function(input_signature=[])
    def loss() -> Any:
        return variable.regularizer(variable)

    return loss
