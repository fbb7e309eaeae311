"""What surgery can do to a model, as a table for people."""

import keras

from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.text_table import aligned


def explain(model: keras.Model) -> str:
    """Returns a table of what surgery can do to a model.

    Args:
        model: A built Sequential or Functional model.

    Returns:
        A line a layer that has units: how many, how many can go, which layers
        they leave together with, and why the others must stay. A line too for
        each operation that lets nothing through, with the reason.

    Raises:
        SurgeryError: If the model has no graph of layers (subclassed).
    """
    graph = ChannelGraph(model)
    header = ("layer", "units", "removable", "partners", "why not")
    names = dict.fromkeys(node.name for node in graph.nodes)
    blocked = graph.blocked
    rows = [
        header,
        *(
            _explained(graph, name)
            if name in graph.units
            else (name, "-", "-", "", blocked[name])
            for name in names
            if name in graph.units or name in blocked
        ),
    ]
    lines = aligned(rows, left=len(header))
    return "\n".join(line.rstrip() for line in lines)


def _explained(graph: ChannelGraph, name: str) -> tuple[str, ...]:
    roots = graph.roots[graph.units[name]].tolist()
    reasons = [graph.reasons[root] for root in roots if root in graph.reasons]
    return (
        name,
        str(len(roots)),
        str(len(roots) - len(reasons)),
        ", ".join(graph.partners(name)),
        "; ".join(dict.fromkeys(reasons)),
    )
