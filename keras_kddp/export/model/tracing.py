"""A model at batch 1 as the SavedModel that the TFLite converter takes."""

from pathlib import Path

import keras

from keras_kddp.export.errors import ExportError
from keras_kddp.export.model.node_names import number_nodes, user_named
from keras_kddp.export.model.signature import infer, input_signature
from keras_kddp.model_io import Tensor


def traced_inputs(model: keras.Model) -> list[str]:
    """Returns what `save_trace` calls the inputs, in order."""
    return _numbered("input", len(model.inputs))


def traced_outputs(model: keras.Model) -> list[str]:
    """Returns what `save_trace` calls the outputs, in order."""
    return _numbered("output", len(model.outputs))


def save_trace(model: keras.Model, folder: Path) -> None:
    """Writes the model at batch 1 as a SavedModel that holds its weights.

    Inputs and outputs are numbered: TensorFlow and the converter take only
    some names, and put them in alphabetical order.

    Args:
        model: A model that passed `check_exportable`, in float32.
        folder: Of the SavedModel; its signature is `serving_default`.

    Raises:
        ExportError: If the model does not run in a graph, or at batch 1.
    """
    import tensorflow as tf  # here: the other backends do without it

    names = traced_outputs(model)

    def serve(*tensors: Tensor) -> dict[str, Tensor]:
        return dict(zip(names, infer(model, tensors), strict=True))

    module = tf.Module()
    # The converter finds weights only as variables of the module.
    module.weights = [variable.value for variable in model.variables]
    module.serve = tf.function(
        serve,
        input_signature=[
            tf.TensorSpec((1, *entry.shape), entry.dtype, name=name)
            for entry, name in zip(
                input_signature(model), traced_inputs(model), strict=True
            )
        ],
    )
    try:
        tf.saved_model.save(
            module,
            str(folder),
            signatures={"serving_default": module.serve},
            # Saved gradients, of silu for example, hold names of nodes.
            options=tf.saved_model.SaveOptions(
                experimental_custom_gradients=False
            ),
        )
    except Exception as error:
        raise ExportError(
            f"Model {model.name!r} must run in a TensorFlow graph with a "
            f"batch of 1. Received: {type(error).__name__}: {error}\n"
            "Remove what fixes the batch size, and what keeps state outside "
            "of Keras variables."
        ) from error
    number_nodes(folder, traced_inputs(model), user_named(model))


def _numbered(what: str, count: int) -> list[str]:
    return [f"{what}_{number:04}" for number in range(count)]
