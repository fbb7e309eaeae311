"""The reference teachers and students of the experiments."""

import keras


def digits_teacher() -> keras.Model:
    """Returns an untrained teacher for 8x8 digits: (batch, 64) to 10 logits."""
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10),
        ],
        name="digits_teacher",
    )


def digits_student(units: int = 128) -> keras.Model:
    """Returns an untrained student for 8x8 digits: (batch, 64) to 10 logits.

    Args:
        units: Width of the one hidden layer, `"hidden"`.
    """
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(units, activation="relu", name="hidden"),
            keras.layers.Dense(10, name="logits"),
        ],
        name="digits_student",
    )


def fashion_cnn_teacher() -> keras.Model:
    """Returns an untrained teacher: (batch, 28, 28, 1) to 10 logits."""
    layers: list[keras.Layer] = [keras.Input((28, 28, 1))]
    for filters in (32, 64, 128):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ]
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(256, activation="relu"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(10),
    ]
    return keras.Sequential(layers, name="fashion_cnn_teacher")


def fashion_cnn_student(units: int = 512) -> keras.Model:
    """Returns an untrained student: (batch, 28, 28, 1) to 10 logits.

    Args:
        units: Width of the Dense layer `"hidden"`, which holds most of the
            parameters.
    """
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(16, 3, activation="relu", name="conv1"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, activation="relu", name="conv2"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu", name="hidden"),
            keras.layers.Dense(10, name="logits"),
        ],
        name="fashion_cnn_student",
    )
