"""The grid of the comparison: students, how they train, what they must fit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras

from keras_kddp.models import (
    digits_student,
    digits_teacher,
    fashion_cnn_student,
    fashion_cnn_teacher,
    fashion_mlp_student,
    fashion_residual_student,
)
from keras_kddp.pruning.budget.budget import Budget

CONTROLS = (
    "kd",
    "same_size",
    "same_size_labels",
    "random",
    "magnitude",
    "contribution",
)

ABLATIONS = (
    "paper_criterion",
    "mean_activity",
    "no_penalty",
    "no_warmup",
    "no_finetune",
    "prune_at_end",
    "penalty_steering",
    "warm_targets",
)


@dataclass(frozen=True)
class Training:
    """How a model is trained: AdamW on a cosine to 0, no weight decay.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Examples per step.
        learning_rate: At the start.
    """

    epochs: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Experiment:
    """One student and everything that is fixed about it.

    Attributes:
        student: Makes it.
        training: Of every method.
        l1: Charge for a mean activity of 1.
        phases: Arguments of `DynamicPruning`.
        budget: What the pruned student must fit.
        layers: Those to prune; None: all that can be.
        methods: In the order they run; `kddp` first, its widths are theirs.
        seeds: A run each; ablations run with the first three.
        temperature: Of the soft targets.
        student_loss_weight: Share of the labels.
    """

    student: Callable[[], keras.Model]
    training: Training
    l1: float
    phases: Mapping[str, Any]
    budget: Mapping[str, int]
    layers: Sequence[str] | None = None
    methods: Sequence[str] = ("kddp", *CONTROLS)
    seeds: Sequence[int] = (0, 1, 2)
    temperature: float = 1.0
    student_loss_weight: float = 0.5

    def as_dict(self) -> dict[str, Any]:
        """Returns what a cell keeps of it: all but the grid itself."""
        config = asdict(self)
        del config["methods"], config["seeds"]
        config["student"] = self.student.__name__
        config["layers"] = self.layers and list(self.layers)
        return config

    def budget_object(self) -> Budget:
        """Returns the budget as the package takes it."""
        return Budget(**self.budget)


@dataclass(frozen=True)
class Comparison:
    """All students of one data set, under one teacher.

    Attributes:
        data: As `keras_kddp.data.datasets.load_dataset` takes it.
        teacher: Makes the teacher.
        teacher_training: How it is trained, on the labels.
        experiments: By name of the student.
    """

    data: str
    teacher: Callable[[], keras.Model]
    teacher_training: Training
    experiments: Mapping[str, Experiment] = field(default_factory=dict)


COMPARISONS = {
    "fashion": Comparison(
        data="idx:/usr/share/datasets/fashion-mnist",
        teacher=fashion_cnn_teacher,
        teacher_training=Training(5, 256, 3e-3),
        experiments={
            "mlp": Experiment(
                student=fashion_mlp_student,
                training=Training(16, 256, 2e-3),
                l1=0.002,
                phases={},
                budget={"max_parameters": 79_510},  # 100 of 800 units
                layers=("hidden",),
                methods=("kddp", *CONTROLS, *ABLATIONS),
                seeds=(0, 1, 2, 3, 4),
            ),
            "cnn": Experiment(
                student=fashion_cnn_student,
                training=Training(12, 256, 3e-3),
                l1=0.01,
                # At the quota's pace only: no unit leaves before its turn.
                phases={"finetune_epochs": 6, "threshold": 0.0},
                budget={"max_parameters": 38_872},  # 42 of 512 units
                layers=("hidden",),
            ),
            "residual": Experiment(
                student=fashion_residual_student,
                training=Training(8, 256, 3e-3),
                l1=0.002,
                phases={"threshold": 0.0},
                budget={"max_macs": 824_416},  # half
                methods=("kddp", "kd", "same_size", "random"),
            ),
        },
    ),
    "digits": Comparison(
        data="digits",
        teacher=digits_teacher,
        teacher_training=Training(40, 32, 1e-3),
        experiments={
            "mlp": Experiment(
                student=digits_student,
                training=Training(40, 32, 2e-3),
                l1=0.05,
                phases={},
                budget={"max_parameters": 1_210},  # 16 of 128 units
                layers=("hidden",),
            ),
        },
    ),
}
