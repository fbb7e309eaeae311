"""What surgery can do to a model, as a table for people."""

import keras

from keras_kddp.surgery.graph import ChannelGraph


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
    names = dict.fromkeys(node.operation.name for node in graph.nodes)
    blocked = graph.records.blocked
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
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


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
