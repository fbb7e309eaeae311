"""The students of the comparison: what is pruned, and what it must fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from keras_kddp.models import (
    digits_student,
    fashion_mlp_student,
    fashion_residual_student,
)


@dataclass(frozen=True)
class Student:
    """One student and everything that is fixed about it.

    Attributes:
        data: What `comparison.data.load` knows its data by.
        name: Of the student.
        make: Makes it unpruned, its outputs logits.
        layers: Those to prune; None: all that can be.
        budgets: Arguments of `keras_kddp.Budget`, of its sizes; the first is
            that of the table, the others, from small to large, are for curves.
        batch_size: Examples per step.
        augmentations: Keys of `comparison.views.KINDS` that are tried.
        learning_rates: Those that are tried.
        precision: `"float32"` or `"mixed_bfloat16"`.
        ladder: Epochs among which the short length is looked for.
        seeds: Of the table; the curves have the first three.
    """

    data: str
    name: str
    make: Callable[[], keras.Model]
    layers: tuple[str, ...] | None
    budgets: tuple[dict[str, int], ...]
    batch_size: int
    augmentations: tuple[str, ...]
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    precision: str = "float32"
    ladder: tuple[int, ...] = (8, 16, 32, 64)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    @property
    def has_scales(self) -> bool:
        """Whether BatchNormalization stands behind its layers."""
        kind = keras.layers.BatchNormalization
        return any(isinstance(each, kind) for each in self.make().layers)


def fashion_conv_student(units: int = 512) -> keras.Model:
    """Returns an untrained student: (batch, 28, 28, 1) to 10 logits.

    Its convolutions stride where others pool, which trains much faster.

    Args:
        units: Width of the Dense layer `"hidden"`, which is pruned.
    """
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(
                16, 4, strides=2, activation="relu", name="conv1"
            ),
            keras.layers.Conv2D(
                32, 4, strides=2, activation="relu", name="conv2"
            ),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(units, activation="relu", name="hidden"),
            keras.layers.Dense(10, name="logits"),
        ],
        name="fashion_conv_student",
    )


def watch_conv_student() -> keras.Model:
    """Returns an untrained student: (batch, 100, 6) to 7 logits.

    Every convolution and the Dense layer behind them can shrink.
    """
    layers: list[keras.Layer] = [keras.Input((100, 6))]
    for number, (filters, size) in enumerate(((32, 5), (64, 5), (64, 3)), 1):
        layers += [
            keras.layers.Conv1D(
                filters, size, activation="relu", name=f"conv{number}"
            ),
            keras.layers.MaxPooling1D(name=f"pool{number}"),
        ]
    layers += [
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(128, activation="relu", name="hidden"),
        keras.layers.Dense(7, name="logits"),
    ]
    return keras.Sequential(layers, name="watch_conv_student")


def watch_dense_student() -> keras.Model:
    """Returns an untrained student: (batch, 100, 6) to 7 logits."""
    return keras.Sequential(
        [
            keras.Input((100, 6)),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(256, activation="relu", name="hidden1"),
            keras.layers.Dense(128, activation="relu", name="hidden2"),
            keras.layers.Dense(7, name="logits"),
        ],
        name="watch_dense_student",
    )


def diamonds_dense_student() -> keras.Model:
    """Returns an untrained student: (batch, 22) to 5 logits."""
    return keras.Sequential(
        [
            keras.Input((22,)),
            keras.layers.Dense(256, activation="relu", name="hidden1"),
            keras.layers.Dense(128, activation="relu", name="hidden2"),
            keras.layers.Dense(5, name="logits"),
        ],
        name="diamonds_dense_student",
    )


def _unit_budgets(
    fixed: int, per_unit: int, units: int
) -> tuple[dict[str, int], ...]:
    """Returns budgets of parameters for one prunable Dense layer.

    Args:
        fixed: Parameters that do not depend on its width.
        per_unit: Parameters that leave with a unit.
        units: Those left at the size of the table.
    """
    return tuple(
        {"max_parameters": fixed + per_unit * width}
        for width in (units, units // 4, units // 2, 2 * units)
    )


def _shares(
    measure: str, unpruned: int, *shares: int
) -> tuple[dict[str, int], ...]:
    """Returns budgets that are so many 32nds of the unpruned size."""
    return tuple({measure: unpruned * share // 32} for share in shares)


_DENSE_IMAGES = ("none", "flip", "flip_shift")
_CONVOLVED_IMAGES = ("flip", "flip_shift", "flip_shift_erase")
_RECORDINGS = ("none", "rescale_jitter")

_ALL = (
    Student(
        data="digits",
        name="mlp",
        make=digits_student,
        layers=("hidden",),
        budgets=_unit_budgets(10, 75, 16)[:3],
        batch_size=16,
        augmentations=("none", "jitter"),
        ladder=(4, 8, 16),
        seeds=(0, 1, 2),
    ),
    Student(
        data="fashion",
        name="mlp",
        make=fashion_mlp_student,
        layers=("hidden",),
        budgets=_unit_budgets(10, 795, 100),
        batch_size=256,
        augmentations=_DENSE_IMAGES,
    ),
    Student(
        data="fashion",
        name="cnn",
        make=fashion_conv_student,
        layers=("hidden",),
        budgets=_unit_budgets(8_506, 811, 42),
        batch_size=256,
        augmentations=_CONVOLVED_IMAGES,
        precision="mixed_bfloat16",
        ladder=(4, 8, 16),
    ),
    Student(
        data="fashion",
        name="residual",
        make=fashion_residual_student,
        layers=None,
        budgets=_shares("max_macs", 1_648_832, 16, 4, 8, 24),
        batch_size=256,
        augmentations=_CONVOLVED_IMAGES,
        precision="mixed_bfloat16",
        ladder=(4, 8, 16),
    ),
    Student(
        data="watch",
        name="conv",
        make=watch_conv_student,
        layers=None,
        budgets=_shares("max_macs", 871_296, 4, 1, 2, 8),
        batch_size=64,
        augmentations=_RECORDINGS,
    ),
    Student(
        data="watch",
        name="dense",
        make=watch_dense_student,
        layers=None,
        budgets=_shares("max_parameters", 187_655, 4, 1, 2, 8),
        batch_size=64,
        augmentations=_RECORDINGS,
    ),
    Student(
        data="diamonds",
        name="dense",
        make=diamonds_dense_student,
        layers=None,
        budgets=_shares("max_parameters", 39_429, 4, 1, 2, 8),
        batch_size=256,
        augmentations=("none", "jitter"),
    ),
)

STUDENTS: Mapping[tuple[str, str], Student] = {
    (student.data, student.name): student for student in _ALL
}
"""All students, by data and name."""
