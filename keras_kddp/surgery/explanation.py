"""What surgery can do: to the layers of a model, and to each layer class."""

import keras

from keras_kddp.surgery.graph import ChannelGraph
from keras_kddp.surgery.registry import BlockingRule, rules
from keras_kddp.surgery.rule import Rule
from keras_kddp.text_table import aligned

_PUBLIC_NAMES = {
    layer_class: name
    for name, layer_class in reversed(vars(keras.layers).items())
    if isinstance(layer_class, type)
}


def explain(model: keras.Model) -> str:
    """Returns a table of what surgery can do to a model.

    Args:
        model: A built Sequential or Functional model.

    Returns:
        One line per layer that has units: how many, how many can go, which
        layers they leave together with, and why the others must stay. One
        line too per operation that lets nothing through, with the reason.

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
            _explain_layer(graph, name)
            if name in graph.units
            else (name, "-", "-", "", blocked[name])
            for name in names
            if name in graph.units or name in blocked
        ),
    ]
    lines = aligned(rows, left=len(header))
    return "\n".join(line.rstrip() for line in lines)


def _explain_layer(graph: ChannelGraph, name: str) -> tuple[str, ...]:
    groups = graph.group_numbers[graph.units[name]].tolist()
    reasons = [
        graph.reasons[group] for group in groups if group in graph.reasons
    ]
    return (
        name,
        str(len(groups)),
        str(len(groups) - len(reasons)),
        ", ".join(graph.partners(name)),
        "; ".join(dict.fromkeys(reasons)),
    )


def coverage_table() -> str:
    """Returns two Markdown tables: what surgery follows, and what blocks it.

    Classes are those of `keras.layers`, and operations of `keras.ops`; rules
    that somebody registered for layers of their own are left out.
    """
    followed, blocked = _covered_names()
    return "\n".join(
        [
            "| layers, and `operations` of `keras.ops` | what surgery does |",
            "|---|---|",
            *(
                f"| {', '.join(dict.fromkeys(names))} | {text} |"
                for text, names in followed.items()
            ),
            "",
            "| layers that let nothing through | because such a layer |",
            "|---|---|",
            *(
                f"| {', '.join(names)} | {reason} |"
                for reason, names in blocked.items()
            ),
            "| all other `operations`, and layers of your own | has no rule |",
        ]
    )


def _covered_names() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Returns names of layers and operations by the text that covers them.

    Returns:
        What surgery does -> names of what it follows; reason -> names of what
        lets nothing through. Both in the order of registration.
    """
    followed: dict[Rule, list[str]] = {}
    blocked: dict[str, list[str]] = {}
    for target, rule in rules().items():
        name = (
            f"`{target}`"
            if isinstance(target, str)
            else _PUBLIC_NAMES.get(target)
        )
        if name is None:
            continue
        if isinstance(rule, BlockingRule):
            blocked.setdefault(rule.reason, []).append(name)
        else:
            followed.setdefault(rule, []).append(name)
    texts: dict[str, list[str]] = {}
    for rule, names in followed.items():
        text = (type(rule).__doc__ or "").strip()
        texts.setdefault(text, []).extend(names)
    return texts, blocked
