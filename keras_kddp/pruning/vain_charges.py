"""Which layers pay a penalty for units that can never leave."""

import numpy as np

from keras_kddp.layers.penalized_models import (
    PENALTIES,
    penalty_layers,
    prepared_layers,
)
from keras_kddp.pruning.ranking import group_maxima
from keras_kddp.surgery.folding import fold_constants
from keras_kddp.surgery.graph import ChannelGraph

_MISPLACED = "it does not stand where the activity of a layer is observed"
_HALF = "only some of the tensors where it is observed are penalized"


def find_vain_charges(graph: ChannelGraph) -> dict[str, str]:
    """Returns what is charged in vain.

    What only moving averages keep is not: they settle while training.

    Args:
        graph: The channels of a student with penalties.

    Returns:
        Name of a layer, or of a penalty that stands where no layer is
        observed -> why nothing that it charges for can leave.
    """
    prepared = prepared_layers(graph)
    zeros = {name: np.zeros(len(graph.units[name])) for name in prepared}
    movable = set(group_maxima(graph, zeros))
    folding = fold_constants(graph, movable, {}, training=True)
    stuck = {
        group: reason
        for group, reason in folding.refusals.items()
        if group not in folding.unsettled
    }
    reasons = graph.reasons | stuck
    found: dict[str, str] = {}
    seen: set[int] = set()
    for name, labels in graph.units.items():
        makers = [graph.maker(x) for x in graph.observation_points(name)]
        charging = [x for x in makers if isinstance(x.operation, PENALTIES)]
        seen.update(id(maker.operation) for maker in charging)
        groups = set(graph.group_numbers[labels].tolist())
        pays = any(maker.operation.l1 for maker in charging)
        if not pays or groups & (movable - set(stuck)):
            continue
        known = [reasons[group] for group in groups if group in reasons]
        is_whole = len(charging) == len(makers)
        found[name] = (
            known[0] if known else _partners(graph, name) if is_whole else _HALF
        )
    for layer in penalty_layers(graph.model):
        if id(layer) not in seen and layer.l1:
            found[layer.name] = _MISPLACED
    return found


def _partners(graph: ChannelGraph, name: str) -> str:
    return (
        f"its units leave only together with those of {graph.partners(name)}, "
        "of which not all are penalized"
    )
