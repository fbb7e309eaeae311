"""Reuse a compact student: its body under a new head, in three libraries.

    pip install 'keras-kddp[hub]'
    python examples/reuse_student.py

A student of handwritten digits is distilled and pruned, and its body saved
without the head. A second task, whether a digit is odd, is then learned upon it
in Keras 3, in plain TensorFlow, and in tf_keras with TF Hub (in a process of
its own: TF_USE_LEGACY_KERAS says which Keras is tf.keras).
"""

import os
import subprocess
import sys
import tempfile

import numpy as np
from sklearn.datasets import load_digits


def parity() -> tuple[np.ndarray, np.ndarray]:
    """Returns digits, and 1 where one is odd."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y % 2


def save_body(directory: str) -> None:
    import keras

    import keras_kddp as kddp

    x, _ = parity()
    y = load_digits().target
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    keras.utils.set_random_seed(0)
    teacher = kddp.models.digits_teacher()
    teacher.compile("adam", loss)
    teacher.fit(x, y, epochs=15, verbose=0)
    student = kddp.models.digits_student()
    train, validation = (x[:1200], y[:1200]), (x[1200:], y[1200:])
    found = kddp.compress(
        teacher, student, train, validation, epochs=40, batch_size=32, l1=0.2
    )
    print(f"{found.result.units} of {found.units_before} hidden units are left")
    kddp.export.to_saved_model(
        found.student,
        directory,
        features="hidden",
        card={"data": "scikit-learn's digits", "license": "apache-2.0"},
    )


def in_keras_3(directory: str) -> None:
    import keras

    import keras_kddp as kddp

    x, y = parity()
    inputs = keras.Input((64,))
    body = kddp.export.SavedModelLayer(directory)
    model = keras.Model(inputs, keras.layers.Dense(1)(body(inputs)))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("adam", loss)
    losses = model.fit(x, y[:, None], epochs=20, verbose=0).history["loss"]
    named = model.predict(x, verbose=0)[:, 0] > 0
    report("Keras 3", losses, float(np.mean(named == y)))


def in_tensorflow(directory: str) -> None:
    import tensorflow as tf

    x, y = parity()
    targets = tf.constant(y[:, None], "float32")
    body = tf.saved_model.load(directory)
    head = tf.Variable(tf.zeros((body(x[:1]).shape[-1], 1)))
    variables = [*body.trainable_variables, head]
    losses = []
    for _ in range(200):
        with tf.GradientTape() as tape:
            logits = body(x, training=True) @ head
            loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
            )
        gradients = tape.gradient(loss, variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(0.5 * gradient)
        losses.append(float(loss))
    named = (body(x) @ head).numpy()[:, 0] > 0
    report("TensorFlow", losses, float(np.mean(named == y)))


def in_tf_keras(directory: str) -> None:
    import tensorflow_hub as hub
    import tf_keras

    x, y = parity()
    model = tf_keras.Sequential(
        [
            tf_keras.Input((64,)),
            hub.KerasLayer(directory, trainable=True),
            tf_keras.layers.Dense(1),
        ]
    )
    loss = tf_keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("adam", loss)
    losses = model.fit(x, y[:, None], epochs=20, verbose=0).history["loss"]
    named = model.predict(x, verbose=0)[:, 0] > 0
    report("tf_keras, TF Hub", losses, float(np.mean(named == y)))


def report(name: str, losses: list[float], accuracy: float) -> None:
    print(
        f"{name:<17} loss {losses[0]:.3f} -> {losses[-1]:.3f}, "
        f"accuracy {accuracy:.1%}",
        flush=True,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = os.path.join(folder, "body")
        save_body(directory)
        in_keras_3(directory)
        in_tensorflow(directory)
        subprocess.run(
            [sys.executable, __file__, directory],
            env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
            check=True,
        )


if __name__ == "__main__":
    in_tf_keras(sys.argv[1]) if len(sys.argv) > 1 else main()
