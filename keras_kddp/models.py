"""The reference teachers and students of the experiments."""

from typing import Any

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


def fashion_mlp_student(units: int = 800) -> keras.Model:
    """Returns an untrained student: (batch, 28, 28, 1) to 10 logits.

    Args:
        units: Width of the one hidden layer, `"hidden"`.
    """
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu", name="hidden"),
            keras.layers.Dense(10, name="logits"),
        ],
        name="fashion_mlp_student",
    )


def fashion_residual_student(filters: int = 16) -> keras.Model:
    """Returns an untrained student: (batch, 28, 28, 1) to 10 logits.

    A stem and two residual blocks (He et al. 2015, arXiv 1512.03385) at 14, 7
    and 4 positions a side, in which every convolution can shrink.

    Args:
        filters: Of the stem; each block has twice as many as what it reads.
    """
    inputs = keras.Input((28, 28, 1))
    x = _normalized(inputs, filters, "stem", strides=2)
    x = keras.layers.ReLU(name="stem_relu")(x)
    x = _residual_block(x, 2 * filters, "block1")
    x = _residual_block(x, 4 * filters, "block2")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(10, name="logits")(x)
    return keras.Model(inputs, outputs, name="fashion_residual_student")


def _residual_block(x: Any, filters: int, name: str) -> Any:
    y = _normalized(x, filters, f"{name}_first", strides=2)
    y = keras.layers.ReLU(name=f"{name}_inner_relu")(y)
    y = _normalized(y, filters, f"{name}_second")
    x = _normalized(x, filters, f"{name}_shortcut", size=1, strides=2)
    y = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=f"{name}_relu")(y)


def _normalized(
    x: Any, filters: int, name: str, *, size: int = 3, strides: int = 1
) -> Any:
    convolution = keras.layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        use_bias=False,
        name=name,
    )
    norm = keras.layers.BatchNormalization(name=f"{name}_norm")
    return norm(convolution(x))
