"""What the activity of units lies between, whatever the input."""

import numpy as np

from keras_kddp.surgery.bounds import UNBOUNDED, Bounds
from keras_kddp.surgery.channels import Call
from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.rule import Rule

_HALF_PRECISION = ("float16", "bfloat16")  # rounds too coarsely for a proof


def activity_bounds(
    graph: ChannelGraph, input_range: tuple[float, float]
) -> dict[str, Bounds]:
    """Returns bounds of the activity of every removable layer's units.

    Interval arithmetic along Dense layers, convolutions, BatchNormalization,
    ReLU and its like, with a margin for float32 sums; at inference. Nothing is
    known behind tensors of half precision.

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
            is_open = tensor.dtype in _HALF_PRECISION
            if call is None and not is_open:
                known[id(tensor)] = Bounds(*ends)
            elif call and not is_open and node.name not in graph.blocked:
                known[id(tensor)] = _compute_bounds(call, rule, known)
            else:
                known[id(tensor)] = UNBOUNDED
    found: dict[str, Bounds] = {}
    for name in graph.removable_layers():
        count = len(graph.units[name])
        parts = [known[id(x)] for x in graph.observation_points(name)]
        found[name] = Bounds(
            np.broadcast_to(np.min([p.low for p in parts], axis=0), (count,)),
            np.broadcast_to(np.max([p.high for p in parts], axis=0), (count,)),
        )
    return found


def _compute_bounds(call: Call, rule: Rule, known: dict[int, Bounds]) -> Bounds:
    """Returns the bounds of a call's output, for each of its channels."""
    inputs = [known[id(x)] for x in call.tensors]
    for index in call.crossed:  # of channels along another axis
        inputs[index] = inputs[index].merged()
    bounds = rule.bounds(call, inputs)
    count = len(call.output.labels)
    if call.output.axis is None or bounds.low.shape not in ((), (count,)):
        return bounds.merged()
    return bounds
