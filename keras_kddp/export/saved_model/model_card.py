"""What a model is, for the people who find it."""

import json
from collections.abc import Mapping
from typing import Any

_ORDER = ("description", "data", "accuracy", "pruning")
_USE = """\
## Use

```python
import tensorflow as tf

student = tf.saved_model.load("path/to/this/folder")
outputs = student(inputs, training=False)  # fine-tune .trainable_variables
```

In Keras 3 `keras_kddp.export.SavedModelLayer("path/to/this/folder")` is a
layer, in tf_keras
`tensorflow_hub.KerasLayer("path/to/this/folder", trainable=True)`.
"""


def card_text(entries: Mapping[str, Any]) -> str:
    """Returns a model card in Markdown, its license in a YAML header.

    Args:
        entries: Name -> what is said, as JSON can hold it; `"name"` is the
            title.
    """
    license_name = json.dumps(entries.get("license", "unknown"))
    head = (
        f"---\nlicense: {license_name}\nlibrary_name: tensorflow\n"
        "tags: [knowledge-distillation, pruning]\n---\n\n"
        f"# {entries['name']}\n"
    )
    others = [
        name for name in entries if name not in (*_ORDER, "name", "license")
    ]
    parts = [
        f"## {name.replace('_', ' ').capitalize()}\n\n{_body(entries[name])}\n"
        for name in (*_ORDER, *others)
        if name in entries
    ]
    return "\n".join([head, *parts, _USE])


def _body(value: Any) -> str:
    if isinstance(value, Mapping):
        rows = [f"| {key} | {_cell(part)} |" for key, part in value.items()]
        return "\n".join(["| | |", "|---|---|", *rows])
    return _cell(value)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(part)}" for key, part in value.items())
    if isinstance(value, list):
        is_shape = all(part is None or isinstance(part, int) for part in value)
        parts = ["any" if part is None else str(part) for part in value]
        return (" x " if is_shape else ", ").join(parts)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
