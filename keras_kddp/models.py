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
