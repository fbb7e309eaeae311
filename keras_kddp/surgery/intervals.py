"""What the activity of units lies between, whatever the input."""

import numpy as np

from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.rule import UNBOUNDED, Bounds


def activity_bounds(
    graph: ChannelGraph, input_range: tuple[float, float]
) -> dict[str, Bounds]:
    """Returns bounds of the activity of every removable layer's units.

    Interval arithmetic along Dense layers, convolutions, BatchNormalization,
    ReLU and its like, with a margin for float32 sums; at inference.

    Args:
        graph: The channels of the model.
        input_range: What every number of every input lies between.

    Returns:
        Layer name -> bounds, each (units,), at the observation point; infinite
        where they are not known.
    """
    ends = [np.array(float(end)) for end in input_range]
    known: dict[int, Bounds] = {}
    for node, call, rule in zip(
        graph.nodes, graph.calls, graph.rules, strict=True
    ):
        for tensor in node.outputs:
            known[id(tensor)] = UNBOUNDED
        if call is None:
            known |= {id(x): Bounds(*ends) for x in node.outputs}
        elif len(node.outputs) == 1:
            inputs = [known[id(x)] for x in node.inputs]
            known[id(node.outputs[0])] = rule.bounds(call, inputs)
    found: dict[str, Bounds] = {}
    for name in graph.removable_layers():
        count = len(graph.units[name])
        parts = [known[id(x)] for x in graph.observation_points(name)]
        found[name] = Bounds(
            np.broadcast_to(np.min([p.low for p in parts], axis=0), (count,)),
            np.broadcast_to(np.max([p.high for p in parts], axis=0), (count,)),
        )
    return found
