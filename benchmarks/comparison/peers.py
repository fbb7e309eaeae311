"""The peers as methods of the comparison: Torch-Pruning on PyTorch twins.

PyTorch is imported where it is used: plans and pages do without it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from comparison.methods import CUTS, METHODS, Method, Trained
from comparison.training import Setting, in_precision

Options = Mapping[str, Any]
Widths = Mapping[str, int]

SPARSE_LEARNING = tuple({"reg": reg, "at": 0.5} for reg in (1e-5, 1e-4, 1e-3))
"""Strengths of the sparse learning of group norm that are tried."""


def as_it_is(
    setting: Setting, options: Options, widths: Widths, budget: Options
) -> Trained:
    """Trains the twin of the unpruned student on labels."""
    from comparison.torch_training import train_twin
    from comparison.twins import size_of, twin

    net = twin(in_precision(setting.start(), "float32"))
    train_twin(net, setting.batches, setting.epochs, **_rules(setting, options))
    return _outcome(net, setting, size_of(net)["macs"] * setting.epochs)


def cut_twin(kind: str) -> Callable[..., Trained]:
    """Returns the method of Torch-Pruning of a kind; see `pruned_by`."""

    def run(
        setting: Setting, options: Options, widths: Widths, budget: Options
    ) -> Trained:
        from comparison.torch_pruning import pruned_by
        from comparison.twins import size_of, twin

        net = twin(in_precision(setting.start(), "float32"))
        before = size_of(net)["macs"]
        at = round(options["at"] * setting.epochs)
        own = {"reg": options["reg"]} if "reg" in options else {}
        pruned_by(
            kind,
            net,
            setting.batches,
            setting.epochs,
            widths,
            cut_after=at,
            **own,
            **_rules(setting, options),
        )
        after = size_of(net)["macs"] * (setting.epochs - at)
        return _outcome(net, setting, before * at + after)

    return run


def _rules(setting: Setting, options: Options) -> dict[str, Any]:
    return {
        "steps_per_epoch": setting.steps_per_epoch,
        "learning_rate": setting.recipe.learning_rate,
        "weight_decay": setting.recipe.weight_decay,
        "temperature": options.get("temperature", 1.0),
        "student_loss_weight": options.get("student_loss_weight", 1.0),
        "precision": setting.student.precision,
    }


def _outcome(net: Any, setting: Setting, macs_of_epochs: int) -> Trained:
    from comparison.torch_training import answers
    from comparison.twins import size_of

    size = size_of(net)
    *others, _ = size["widths"]  # the last gives the logits
    names = setting.student.layers or others
    widths = {name: size["widths"][name] for name in names}
    return Trained(
        partial(answers, net, precision="float32"),
        {
            "widths": widths,
            "units": sum(widths.values()),
            "live_units": None,
            "parameters": size["parameters"],
            "macs": size["macs"],
        },
        macs_of_epochs * setting.steps_per_epoch * setting.student.batch_size,
    )


PEERS = {
    "tp_group_norm": Method(
        cut_twin("group_norm"),
        SPARSE_LEARNING,
        targets_of="kd",
        backend="torch",
    ),
    "tp_taylor": Method(
        cut_twin("taylor"), CUTS, targets_of="kd", backend="torch"
    ),
    "torch_labels": Method(
        as_it_is, is_unpruned=True, has_widths=False, backend="torch"
    ),
}

ALL_METHODS = {**METHODS, **PEERS}
"""Name -> method, in the order in which they run."""
