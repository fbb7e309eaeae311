"""Files that somebody else made."""

import tensorflow as tf

from keras_kddp.export.tflite.converter import shared_converter


def converted(function, signature, folder, name):
    """The file of a TensorFlow function, as a stranger would have made it."""
    module = tf.Module()
    module.serve = tf.function(function, input_signature=signature)
    saved_model = folder / f"{name}_saved_model"
    tf.saved_model.save(
        module, saved_model, signatures={"serving_default": module.serve}
    )
    path = folder / f"{name}.tflite"
    shared_converter.convert(saved_model, path)
    return path
