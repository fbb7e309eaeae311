"""Torch-Pruning on twins: group norm with sparse learning, and Taylor.

Both are Torch-Pruning's own (Fang et al. 2023, arXiv 2301.12900; Molchanov et
al. 2019, CVPR): its dependency graph couples the layers, its importances rank
the units, its pruner cuts them.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
import torch_pruning

from comparison.torch_training import Feed, loss_of, train_twin
from comparison.twins import MULTIPLYING, Twin

_TAYLOR_BATCHES = 20


def pruned_by(
    kind: str,
    net: Twin,
    feed: Feed,
    epochs: int,
    widths: Mapping[str, int],
    *,
    cut_after: int,
    reg: float = 5e-4,
    **training: Any,
) -> None:
    """Trains a twin that is cut on the way, once, to given widths.

    AdamW keeps the moments of the weights that stay, and the cosine goes on.

    Args:
        kind: "group_norm": the weights are pulled towards 0 by group, the
            weakest groups most, until the cut, which takes the smallest
            (`GroupNormPruner` with `GroupMagnitudeImportance`, normalized by
            the largest, as in its authors' "group_sl"); or "taylor": the cut
            takes those whose absolute weight times gradient is smallest
            (`GroupTaylorImportance`), over 20 batches of the last epoch.
        net: Trained and cut in place.
        feed: Gives the batches of each epoch.
        epochs: Before and after the cut together.
        widths: Layer name -> units that stay. Layers that are coupled with
            them by an Add get their width.
        cut_after: Epochs before the cut.
        reg: Strength of the sparse learning of "group_norm".
        **training: What else `train_twin` needs.

    Raises:
        ValueError: If the widths do not fit the network or each other, or
            the cut is not within the training.
    """
    if not 1 <= cut_after <= epochs:
        raise ValueError(
            f"`cut_after` must be in 1 to the {epochs} epochs. Received: "
            f"cut_after={cut_after}."
        )
    pruner = _pruner(kind, net, widths, reg)

    def regularize(epoch: int) -> None:
        if epoch < cut_after:
            pruner.regularize(net)

    def after_epoch(epoch: int, optimizer: torch.optim.Optimizer) -> None:
        if epoch + 1 != cut_after:
            return
        if kind == "taylor":
            _collect_gradients(net, feed, epoch, training)
        _cut(pruner, net, optimizer)

    train_twin(
        net,
        feed,
        epochs,
        regularize=regularize if kind == "group_norm" else None,
        after_epoch=after_epoch,
        **training,
    )


def _pruner(
    kind: str, net: Twin, widths: Mapping[str, int], reg: float
) -> torch_pruning.BasePruner:
    """Returns the pruner that cuts to the widths in one step."""
    modules = _coupled_widths(net, widths)
    others = [
        module
        for module in net.children()
        if isinstance(module, MULTIPLYING) and module not in modules
    ]
    importance = torch_pruning.importance
    arguments = {
        "model": net,
        "example_inputs": (net.example(),),
        # The half is lost when Torch-Pruning rounds down what stays.
        "pruning_ratio_dict": {
            module: 1 - (width + 0.5) / module.weight.shape[0]
            for module, width in modules.items()
        },
        "ignored_layers": others,
    }
    if kind == "group_norm":
        return torch_pruning.GroupNormPruner(
            importance=importance.GroupMagnitudeImportance(
                p=2, normalizer="max"
            ),
            reg=reg,
            **arguments,
        )
    if kind == "taylor":
        return torch_pruning.BasePruner(
            importance=importance.GroupTaylorImportance(), **arguments
        )
    raise ValueError(
        f'`kind` must be "group_norm" or "taylor". Received: kind={kind!r}.'
    )


def _coupled_widths(
    net: Twin, widths: Mapping[str, int]
) -> dict[torch.nn.Module, int]:
    """Returns the width of each layer that is cut, partners too."""
    graph = torch_pruning.DependencyGraph().build_dependency(
        net, example_inputs=(net.example(),)
    )
    found: dict[torch.nn.Module, int] = {}
    for name, width in widths.items():
        layer = net.get_submodule(name)
        units = layer.weight.shape[0]
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        partners = [
            dependency.layer
            for dependency, _ in graph.get_pruning_group(
                layer, prune, list(range(units))
            )
            if isinstance(dependency.layer, MULTIPLYING)
            and graph.is_out_channel_pruning_fn(dependency.pruning_fn)
        ]
        if not 1 <= width <= units or any(
            found.get(partner, width) != width for partner in partners
        ):
            raise ValueError(
                f"`widths` of layers that are coupled must be equal, and each "
                f"in 1 to the {units} units of layer {name!r}. Received: "
                f"widths={dict(widths)}."
            )
        found |= dict.fromkeys(partners, width)
    return found


def _collect_gradients(
    net: Twin, feed: Feed, epoch: int, training: Mapping[str, Any]
) -> None:
    """Leaves the gradients of the training loss, over some batches."""
    names = ("temperature", "student_loss_weight", "precision")
    net.eval()
    net.zero_grad()
    for batch in itertools.islice(feed(epoch), _TAYLOR_BATCHES):
        loss_of(net, batch, **{n: training[n] for n in names}).backward()


def _cut(
    pruner: torch_pruning.BasePruner,
    net: Twin,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Cuts the network, and the moments of its optimizer alike."""
    groups = list(pruner.step(interactive=True))
    before = dict(net.named_parameters())
    # Torch-Pruning cuts gradients with the weights: here they say which
    # entries stay. float32 counts up to 16 million exactly.
    for weight in before.values():
        weight.grad = torch.arange(weight.numel()).view_as(weight).float()
    for group in groups:
        group.prune()
    net.arrange()
    states = {}
    for name, weight in net.named_parameters():
        kept = weight.grad.flatten().long()
        state = dict(optimizer.state[before[name]])
        for moment in ("exp_avg", "exp_avg_sq"):
            entries = state[moment].flatten()[kept].view(weight.shape)
            state[moment] = torch.empty_like(weight.data).copy_(entries)
        states[weight] = state
        weight.grad = None
    optimizer.param_groups[0]["params"] = list(states)
    optimizer.state.clear()
    optimizer.state.update(states)
