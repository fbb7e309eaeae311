"""What surgery does to each layer class, as a table made from the rules."""

import sys

import keras

from keras_kddp.surgery.rule import BlockingRule, Rule, rules

_PUBLIC_NAMES = {
    layer_class: name
    for name, layer_class in reversed(vars(keras.layers).items())
    if isinstance(layer_class, type)
}


def coverage_table() -> str:
    """Returns two Markdown tables: what surgery follows, and what blocks it.

    Classes are those of `keras.layers`, and operations of `keras.ops`; rules
    that somebody registered for layers of their own are left out.
    """
    followed: dict[Rule, list[str]] = {}
    blocked: dict[str, list[str]] = {}
    for target, rule in rules().items():
        if isinstance(target, str):
            name: str | None = f"`{target}`"
        else:
            name = _PUBLIC_NAMES.get(target)
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
    return "\n".join(
        [
            "| layers, and `operations` of `keras.ops` | what surgery does |",
            "|---|---|",
            *(
                f"| {', '.join(dict.fromkeys(names))} | {text} |"
                for text, names in texts.items()
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


if __name__ == "__main__":
    sys.stdout.write(coverage_table() + "\n")
