"""Optimizers whose state a swap carries, each as `student -> optimizer`."""

from collections.abc import Callable
from typing import Any

import keras
from keras import optimizers
from swap_reference import weight_of

MakeOptimizer = Callable[[keras.Model], keras.optimizers.Optimizer]


class Unregistered(optimizers.schedules.LearningRateSchedule):
    """A schedule that Keras can neither save nor find again."""

    def __call__(self, step: Any) -> Any:
        return 0.02 * 0.9 ** keras.ops.cast(step, keras.config.floatx())


def decay_without_exclusions(student: keras.Model) -> Any:
    optimizer = optimizers.AdamW(0.01, weight_decay=0.5)
    kernel = weight_of(student, "fc1", "kernel")
    optimizer.exclude_from_weight_decay([kernel], var_names=["bias"])
    return optimizer


OPTIMIZERS: dict[str, MakeOptimizer] = {
    "momentum": lambda _: optimizers.SGD(0.02, momentum=0.9, nesterov=True),
    "adam": lambda _: optimizers.Adam(0.01),
    "adamw_schedule": lambda _: optimizers.AdamW(
        optimizers.schedules.CosineDecay(0.02, 40), weight_decay=0.05
    ),
    "ema": lambda _: optimizers.Adam(
        0.01, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=5
    ),
    # 4 steps per epoch: a gradient waits in the accumulator at the swap.
    "gradient_accumulation": lambda _: optimizers.Adam(
        0.01, gradient_accumulation_steps=3
    ),
    "global_clipnorm": lambda _: optimizers.SGD(
        0.05, momentum=0.9, global_clipnorm=0.1
    ),
}
MORE_OPTIMIZERS: dict[str, MakeOptimizer] = {
    "adadelta": lambda _: optimizers.Adadelta(0.5),
    "adagrad": lambda _: optimizers.Adagrad(0.05),
    "adamax": lambda _: optimizers.Adamax(0.01),
    "amsgrad": lambda _: optimizers.Adam(0.01, amsgrad=True),
    # With beta=0 a weight whose slots are 0 becomes 0 / 0.
    "ftrl": lambda _: optimizers.Ftrl(0.05, beta=1.0),
    # The norms of whole layers do not feel rows of zeros.
    "lamb": lambda _: optimizers.Lamb(0.01),
    "lion": lambda _: optimizers.Lion(0.003),
    "nadam": lambda _: optimizers.Nadam(0.01),
    "rmsprop": lambda _: optimizers.RMSprop(0.005, momentum=0.9, centered=True),
    "schedule_free": lambda _: optimizers.ScheduleFreeAdamW(0.01),
}
SPECIAL_CASES: dict[str, MakeOptimizer] = {
    "unregistered_schedule": lambda _: optimizers.Adam(Unregistered()),
    "callable_learning_rate": lambda _: optimizers.Adam(lambda: 0.02),
    "decay_without_exclusions": decay_without_exclusions,
    "one_optimizer_per_layer": lambda _: optimizers.MultiOptimizer(
        optimizers.OptimizerMap(
            optimizers.Adam(0.01),
            {"fc1/.*": optimizers.SGD(0.05, momentum=0.9)},
        )
    ),
    # Under a loss scale Nadam's product is in nobody's list of variables.
    "loss_scale": lambda _: optimizers.LossScaleOptimizer(
        optimizers.Nadam(0.01), 2.0**10, dynamic_growth_steps=3
    ),
    "ema_at_the_end": lambda _: optimizers.SGD(
        0.05, use_ema=True, ema_momentum=0.9
    ),
}
ALL_OPTIMIZERS = OPTIMIZERS | MORE_OPTIMIZERS | SPECIAL_CASES
