"""Every method of the comparison: how it trains, what is tried for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from comparison.cuts import Cut
from comparison.slimming import SlimmingCut, scaled_layers, with_scale_penalty
from comparison.training import (
    Setting,
    in_precision,
    narrowed,
    predictions,
    train,
)
from keras_kddp import Budget, DynamicPruning, prepare, profile
from keras_kddp.pruning.activity import activity_on
from keras_kddp.surgery.graph import ChannelGraph

Options = Mapping[str, Any]
Widths = Mapping[str, int]

TARGETS = (
    {"temperature": 1.0, "student_loss_weight": 0.5},
    {"temperature": 2.0, "student_loss_weight": 0.5},
    {"temperature": 4.0, "student_loss_weight": 0.5},
    {"temperature": 4.0, "student_loss_weight": 0.1},
)
"""Soft targets that are tried; the last are the package's defaults."""

STRENGTHS = ({"l1": 0.001}, {"l1": 0.003}, {"l1": 0.01}, {"l1": 0.03})
"""Charges that are tried; the third is the package's default."""

CUTS = ({"at": 0.5}, {"at": 0.33})
"""Shares of the epochs before a cut that are tried."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What came out of a run.

    Attributes:
        predict: Inputs as the data have them -> (rows,) predicted classes.
        size: `widths`, `units`, `live_units`, `parameters`, `macs`.
        mac_steps: Multiply-accumulates of all forward passes of training.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    size: dict[str, Any]
    mac_steps: int


@dataclass(frozen=True)
class Method:
    """One way to a small student.

    Attributes:
        train: `(setting, options, widths, budget)` -> what came out.
        tries: Options that are tried on validation.
        tries_both: They are tried at both lengths; else the choice at the
            short one holds for the long one too.
        targets_of: Method whose soft targets it has; "" where it has none, or
            tries them itself.
        options_of: Method whose choice it has, where it tries none itself.
        is_unpruned: It keeps all units.
        has_widths: It is given those of dynamic pruning.
        is_longer: It trains until it has cost what dynamic pruning has.
        needs_scales: Only for students with BatchNormalization.
        backend: What trains it, where that is not Keras'.
    """

    train: Callable[[Setting, Options, Widths, Options], Trained]
    tries: tuple[Options, ...] = ({},)
    tries_both: bool = False
    targets_of: str = ""
    options_of: str = ""
    is_unpruned: bool = False
    has_widths: bool = True
    is_longer: bool = False
    needs_scales: bool = False
    backend: str = field(default_factory=keras.backend.backend)


def outcome(model: keras.Model, setting: Setting, mac_steps: int) -> Trained:
    """Returns a plain student with its size.

    Args:
        model: The student.
        setting: Of its run.
        mac_steps: What it cost.
    """
    plain = in_precision(model, "float32")
    graph = ChannelGraph(plain)
    names = [
        name
        for name in graph.removable_layers()
        if setting.student.layers is None or name in setting.student.layers
    ]
    activity = activity_on(graph, setting.sample(), layers=names)
    widths = {name: len(graph.units[name]) for name in names}
    size = profile(plain)
    return Trained(
        lambda x: predictions(plain, x),
        {
            "widths": widths,
            "units": sum(widths.values()),
            "live_units": sum(int(activity[n].live.sum()) for n in names),
            "parameters": size.parameters,
            "macs": size.macs,
        },
        mac_steps,
    )


def unpruned(
    setting: Setting, options: Options, widths: Widths, budget: Options
) -> Trained:
    """Trains the student as it is, on labels or, with options, on both."""
    return outcome(*_trained(setting.start(), setting, options))


def dynamically_pruned(
    setting: Setting, options: Options, widths: Widths, budget: Options
) -> Trained:
    """Trains with `DynamicPruning`, with soft targets where there are any."""
    student = prepare(setting.start(), options["l1"], setting.student.layers)
    pruning = DynamicPruning(budget=Budget(**budget), data=setting.sample())
    return outcome(*_trained(student, setting, options, pruning))


def same_size(
    setting: Setting, options: Options, widths: Widths, budget: Options
) -> Trained:
    """Trains from scratch with the widths that dynamic pruning ended with."""
    keras.utils.set_random_seed(setting.seed)
    student = narrowed(setting.student.make(), dict(widths))
    student = in_precision(student, setting.student.precision)
    rate = options.get("rate", 1.0) * setting.recipe.learning_rate
    recipe = replace(setting.recipe, learning_rate=rate)
    setting = replace(setting, recipe=recipe)
    return outcome(*_trained(student, setting, options))


def cut(ranking: str) -> Callable[..., Trained]:
    """Returns the method that cuts once, by a ranking of `comparison.cuts`."""

    def run(
        setting: Setting, options: Options, widths: Widths, budget: Options
    ) -> Trained:
        student = prepare(setting.start(), 0.0, setting.student.layers)
        once = Cut(ranking, setting, widths, options["at"])
        return outcome(*_trained(student, setting, options, once))

    return run


def slimmed(
    setting: Setting, options: Options, widths: Widths, budget: Options
) -> Trained:
    """Trains with a penalty on scales, and cuts half-way."""
    student = with_scale_penalty(setting.start(), options["strength"])
    scaled = scaled_layers(student)
    own = {name: width for name, width in widths.items() if name in scaled}
    once = SlimmingCut(setting.epochs // 2, own)
    return outcome(*_trained(student, setting, options, once))


def _trained(
    student: keras.Model,
    setting: Setting,
    options: Options,
    *callbacks: keras.callbacks.Callback,
) -> tuple[keras.Model, Setting, int]:
    model, macs = train(
        student,
        setting,
        callbacks,
        temperature=options.get("temperature"),
        student_loss_weight=options.get("student_loss_weight", 1.0),
    )
    return model, setting, macs


METHODS: dict[str, Method] = {
    "labels": Method(unpruned, is_unpruned=True, has_widths=False),
    "kd": Method(
        unpruned,
        TARGETS,
        tries_both=True,
        is_unpruned=True,
        has_widths=False,
    ),
    "kddp": Method(
        dynamically_pruned,
        STRENGTHS,
        tries_both=True,
        targets_of="kd",
        has_widths=False,
    ),
    "pruned_labels": Method(
        dynamically_pruned,
        STRENGTHS,
        tries_both=True,
        has_widths=False,
    ),
    "same_size_kd": Method(same_size, TARGETS, tries_both=True),
    "same_size_labels": Method(same_size, ({"rate": 1.0}, {"rate": 2.0})),
    "same_size_labels_longer": Method(
        same_size,
        options_of="same_size_labels",
        is_longer=True,
    ),
    "random": Method(cut("random"), CUTS[:1], targets_of="kd"),
    "magnitude": Method(cut("magnitude"), CUTS, targets_of="kd"),
    "contribution": Method(cut("contribution"), CUTS, targets_of="kd"),
    "taylor": Method(cut("taylor"), CUTS, targets_of="kd"),
    "slimming": Method(
        slimmed,
        ({"strength": 1e-5}, {"strength": 1e-4}, {"strength": 1e-3}),
        targets_of="kd",
        needs_scales=True,
    ),
}
"""Name -> method, in the order of the tables."""
